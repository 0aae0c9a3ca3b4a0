"""The beat and meter heard in onsets, where they are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.evaluation.asked import from_columns
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.rhythm import Rhythm, beats_a_quarter, find_rhythm, meter_kind
from midillm_jax.music.vocab import PITCHES


def clicks(onsets: np.ndarray, sizes: np.ndarray) -> NoteTable:
    """So many notes at each onset, one above the other."""
    times = np.repeat(onsets, sizes).astype(np.int32)
    pitches = np.concatenate([40 + np.arange(size) for size in sizes]).astype(np.int32)
    return NoteTable(times, np.full(len(times), 9, np.int32), pitches, np.full(len(times), 80, np.uint8))


@pytest.mark.parametrize("bpm", [80, 97, 120, 133])
@pytest.mark.parametrize(("bar", "meter"), [([3, 1, 2, 1], "duple"), ([3, 1, 1], "triple")])
def test_clicks_with_a_heavy_downbeat(bpm: int, bar: list[int], meter: str) -> None:
    """Beats and soft halves of beats, for half a minute."""
    beats = bpm // 2
    onsets = np.round(np.arange(2 * beats) * 3000 / bpm)
    sizes = np.stack([np.resize(bar, beats) + 1, np.ones(beats, int)], axis=1).ravel()
    heard = find_rhythm(clicks(onsets, sizes))
    assert heard is not None
    assert heard.bpm == pytest.approx(bpm, rel=0.01)
    assert heard.meter == meter


def test_eighths_in_threes_are_compound() -> None:
    """6/8 with a dotted quarter at 80."""
    onsets = np.round(np.arange(120) * 25.0)
    heard = find_rhythm(clicks(onsets, np.resize([5, 1, 1, 4, 1, 1], 120)))
    assert heard == Rhythm(80.0, "compound")


def test_too_little_to_tell() -> None:
    assert find_rhythm(clicks(np.arange(7) * 50.0, np.ones(7, int))) is None
    assert find_rhythm(clicks(np.arange(20) * 10.0, np.ones(20, int))) is None
    nothing = np.zeros(0, np.int32)
    assert find_rhythm(NoteTable(nothing, nothing, nothing, np.zeros(0, np.uint8))) is None


def test_kinds_of_time_signatures() -> None:
    kinds = {"4/4": "duple", "2/2": "duple", "3/4": "triple", "3/8": "triple", "6/8": "compound", "12/8": "compound"}
    assert {name: meter_kind(*map(int, name.split("/"))) for name in kinds} == kinds
    assert meter_kind(5, 4) is None
    assert beats_a_quarter((6, 8)) == pytest.approx(2 / 3)
    assert beats_a_quarter((3, 4)) == beats_a_quarter(None) == 1


def test_the_bands_tempo_is_mostly_heard(tmp_path: Path) -> None:
    """benchmarks/control.py gives the shares; here, that they are no accident of the hand-made clicks above."""
    write_band(tmp_path / "band", 60, seed=7, profile="full", documents=0)
    right = []
    for line in (tmp_path / "band" / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked = from_columns(row)
        heard = find_rhythm(read_midi((tmp_path / "band" / row["location"]).read_bytes()))
        assert asked.tempo is not None
        right.append(heard is not None and abs(heard.bpm / (asked.tempo[0] * beats_a_quarter(asked.meter)) - 1) < 0.04)
    assert np.mean(right) > 0.7


def test_pitches_do_not_matter() -> None:
    table = clicks(np.arange(40) * 50.0, np.resize([2, 1], 40))
    moved = NoteTable(table.onsets, table.durations, table.notes + 5 * PITCHES, table.velocities)
    assert find_rhythm(table) == find_rhythm(moved)
