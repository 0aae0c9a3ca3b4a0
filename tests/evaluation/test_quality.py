"""Measures without a caption, where arithmetic gives them, and the area that two sets share."""

import json
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.evaluation.quality import (
    Quality,
    compression_ratio,
    groove_consistency,
    measure,
    overlapped_area,
    pitch_class_entropy,
    scale_consistency,
    sounding_pitches,
    summary,
    values,
)
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.rhythm import Rhythm

DRUMS = 128 * 128


def table(*notes: tuple[int, int, int]) -> NoteTable:
    """Of (onset, duration, note)."""
    columns = np.array(sorted(notes), np.int32).reshape(-1, 3).T
    return NoteTable(*columns, np.full(len(notes), 80, np.uint8))


def test_pitch_class_entropy() -> None:
    """Two classes alike are a bit, four are two; octaves are one class, and drums are none."""
    assert pitch_class_entropy(table((0, 9, 60), (10, 9, 67))) == 1
    assert pitch_class_entropy(table(*((10 * i, 9, note) for i, note in enumerate((60, 62, 64, 65))))) == 2
    assert pitch_class_entropy(table((0, 9, 60), (10, 9, 72), (20, 9, 48), (30, 9, DRUMS + 41))) == 0
    # 3 of 4 notes are C: 3/4 log2(4/3) + 1/4 log2(4).
    found = pitch_class_entropy(table((0, 9, 60), (10, 9, 60), (20, 9, 72), (30, 9, 66)))
    assert found == pytest.approx(0.75 * math.log2(4 / 3) + 0.5)
    assert pitch_class_entropy(table((0, 9, DRUMS + 36))) is None


def test_scale_consistency() -> None:
    """D major's notes and one C: seven of eight fit, in D major as in B minor; the octave's twelve notes fit by 7."""
    scale = [62, 64, 66, 67, 69, 71, 73]
    assert scale_consistency(table(*((i, 9, note) for i, note in enumerate(scale)))) == 1
    assert scale_consistency(table(*((i, 9, note) for i, note in enumerate([*scale, 60])))) == 7 / 8
    assert scale_consistency(table(*((i, 9, 60 + i) for i in range(12)))) == 7 / 12
    assert scale_consistency(table((0, 9, DRUMS + 36))) is None


def test_polyphony() -> None:
    """C for 4 s, E from 1 to 3 s, the same C again from 2 to 4 s on another program; a drum until 5 s."""
    piece = table((0, 400, 60), (100, 200, 64), (200, 200, 128 * 40 + 60), (400, 100, DRUMS + 36))
    chords = sounding_pitches(piece)
    assert chords.tolist() == [1] * 100 + [2] * 200 + [1] * 100 + [0] * 100
    found = measure(piece)
    assert found.polyphony == pytest.approx(6 / 4)
    assert found.polyphony_rate == pytest.approx(2 / 5)
    drums = measure(table((0, 50, DRUMS + 36)))
    assert (drums.polyphony, drums.polyphony_rate, drums.pitch_class_entropy) == (None, None, None)


def test_pitches_that_end_together_or_repeat() -> None:
    """A long note under a short one of its own pitch sounds on; repeated notes leave no gap and no double."""
    assert sounding_pitches(table((0, 10, 60), (2, 3, 60), (10, 5, 60), (12, 3, 61))).tolist() == [1] * 12 + [2] * 3
    assert sounding_pitches(table((50, 0, 60), (51, 0, 127), (52, 0, 0))).tolist() == [1, 1, 1]


def test_empty_share() -> None:
    """A second of sound, two of silence, a second of sound."""
    assert measure(table((0, 100, 60), (300, 100, 60))).empty_share == pytest.approx(1 / 2)


def test_groove_consistency() -> None:
    """Three bars of 4/4 at 120: alike, then with one onset of sixteen places moved, which differs in two of them."""
    bars = [[0, 4, 8, 12], [0, 4, 8, 12], [0, 4, 8, 13]]
    onsets = [12.5 * (16 * bar + place) for bar, places in enumerate(bars) for place in places]
    piece = table(*((round(onset), 5, 60) for onset in onsets))
    assert groove_consistency(piece, Rhythm(120.0, "duple")) == pytest.approx(1 - (0 + 2 / 16) / 2)
    assert groove_consistency(piece, None) is None
    assert groove_consistency(table((0, 5, 60), (50, 5, 60)), Rhythm(120.0, "duple")) is None


def test_compression_finds_repetition() -> None:
    rng = np.random.default_rng(0)
    bar = [
        (int(gap), 20, int(note)) for gap, note in zip(rng.integers(5, 40, 16), rng.integers(40, 80, 16), strict=True)
    ]
    loop, fresh = [], []
    now = 0
    for gap, duration, note in bar * 16:
        now += gap
        loop.append((now, duration, note))
        fresh.append((now, int(rng.integers(5, 90)), int(rng.integers(30, 90))))
    assert compression_ratio(table(*loop)) > 2 * compression_ratio(table(*fresh)) > 2


def test_overlapped_area_of_two_normals() -> None:
    """Two bells of deviation s, d apart, share 2 Phi(-d / 2s). Kernels of width h widen s to sqrt(s^2 + h^2)."""
    bell = np.array([NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])
    wide = math.sqrt(1 + 2000**-0.4)
    for apart in (0.5, 1.0, 3.0):
        expected = 2 * NormalDist().cdf(-apart / (2 * wide))
        assert overlapped_area(bell, bell + apart) == pytest.approx(expected, abs=0.003)
    assert overlapped_area(bell, bell) == pytest.approx(1)
    assert overlapped_area(bell, bell + 100) == pytest.approx(0, abs=1e-6)


def test_overlapped_area_of_constants() -> None:
    assert overlapped_area(np.array([1.0, 1.0]), np.array([1.0])) == pytest.approx(1)
    assert overlapped_area(np.zeros(3), np.ones(3)) == pytest.approx(0, abs=1e-6)


def test_an_empty_piece_has_no_measures() -> None:
    assert values(measure(table())) == {}


def band(folder: Path, pieces: int, seed: int) -> list[Quality]:
    write_band(folder, pieces, seed=seed, profile="full", documents=0)
    rows = map(json.loads, (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines())
    return [measure(read_midi((folder / row["location"]).read_bytes())) for row in rows]


def test_two_bands_are_nearer_than_a_band_and_noise(tmp_path: Path) -> None:
    first, second = band(tmp_path / "first", 9, 1), band(tmp_path / "second", 9, 2)
    rng = np.random.default_rng(0)
    noise = [
        measure(table(*((int(onset), 20, int(rng.integers(30, 90))) for onset in rng.integers(0, 3000, 400))))
        for _ in range(4)
    ]
    alike = {each.name: each for each in summary(first, second, seed=0)}
    apart = {each.name: each for each in summary(noise, second, seed=0)}
    assert set(alike) == {name for each in first for name in values(each)}
    for name in ("pitch_class_entropy", "scale_consistency", "groove_consistency", "compression_ratio"):
        assert alike[name].overlap.low <= alike[name].overlap.value
        assert alike[name].overlap.value > apart[name].overlap.value + 0.2, name
    assert alike["pitch_class_entropy"].mean.value == pytest.approx(
        np.mean([each.pitch_class_entropy for each in first if each.pitch_class_entropy is not None])
    )
    assert alike["polyphony"].overlap.value == pytest.approx(
        overlapped_area(*(np.array([values(each)["polyphony"] for each in pieces]) for pieces in (first, second)))
    )
    assert (alike["polyphony"].pieces, alike["polyphony"].references) == (9, 9)
