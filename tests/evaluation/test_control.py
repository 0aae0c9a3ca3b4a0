"""Pieces held against what was asked for."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.data.tonality import Key
from midillm_jax.evaluation.asked import Asked, from_columns
from midillm_jax.evaluation.control import (
    MEASURES,
    Heard,
    InstrumentCounts,
    compare,
    hear,
    relative_key,
    score,
    summary,
    tempo_bin,
)
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.rhythm import Rhythm

PIANO, GUITAR, FLUTE, VIOLIN = (frozenset(programs) for programs in ((0, 1), (24, 25), (73,), (40,)))


def heard(**facts: object) -> Heard:
    waltz = Heard((0, 73), False, Rhythm(90.4, "triple"), Key(0, "major"), 60.0)
    return dataclasses.replace(waltz, **facts)  # type: ignore[arg-type]


def test_tempo_bins_are_those_of_midicaps() -> None:
    """index = sum(bpm > (40, 60, 70, 90, 110, 140, 160, 210)) of the whole number of beats."""
    tempos = (30, 40, 41, 60.4, 61, 70, 90, 90.4, 91, 110, 140, 141, 160, 210, 211)
    assert [tempo_bin(bpm) for bpm in tempos] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 8]


@pytest.mark.parametrize(
    ("asked", "exact", "near", "octave"),
    [
        ((90, 90), True, True, True),  # 90.4 is 90, the end of Andante
        ((100, 100), False, True, False),
        ((65, 65), False, True, False),
        ((120, 120), False, False, False),
        ((180, 180), False, False, True),  # twice 90.4 is a Presto
        ((45, 45), False, False, True),
        ((60, 140), True, True, True),
    ],
)
def test_tempo(asked: tuple[float, float], exact: bool, near: bool, octave: bool) -> None:
    found = compare(heard(), Asked(tempo=asked))
    assert (found.tempo_bin, found.tempo_bin_near, found.tempo_bin_octave) == (exact, near, octave)


def test_a_word_for_very_fast_has_no_upper_limit() -> None:
    """Prestissimo is above 210; the waltz at 90.4 is neither there nor near, one at 230 is."""
    asked = read_prompt("A prestissimo waltz.")
    assert asked.tempo is not None
    assert math.isinf(asked.tempo[1])
    assert compare(heard(), asked).tempo_bin_near is False
    assert compare(heard(rhythm=Rhythm(230.0, "triple")), asked).tempo_bin is True


def test_six_eight_has_two_beats_a_bar() -> None:
    """135 quarter notes a minute are 90 dotted ones."""
    assert compare(heard(), Asked(tempo=(135, 135), meter=(6, 8))).tempo_bin is True
    assert compare(heard(), Asked(tempo=(135, 135), meter=(3, 4))).tempo_bin is False


def test_keys() -> None:
    asked = [Asked(key=key) for key in (Key(0, "major"), Key(9, "minor"), Key(0, "minor"), Key(7, "major"))]
    found = [compare(heard(), ask) for ask in asked]
    assert [each.key for each in found] == [True, False, False, False]
    assert [each.key_or_relative for each in found] == [True, True, False, False]
    assert all(relative_key(relative_key(Key(tonic, "major"))) == Key(tonic, "major") for tonic in range(12))


def test_drums_meter_and_length() -> None:
    found = compare(heard(drums=True), Asked(drums=True, meter=(3, 8), seconds=(50, 50)))
    assert (found.drums, found.meter, found.length) == (True, True, True)
    found = compare(heard(), Asked(drums=True, meter=(4, 4), seconds=(47, 47)))
    assert (found.drums, found.meter, found.length) == (False, False, False)
    assert compare(heard(), Asked(meter=(5, 4))).meter is None
    assert compare(heard(), Asked(seconds=(0, 45))).length is False
    assert compare(heard(), Asked(seconds=(70, 120))).length is True


def test_instruments() -> None:
    """Piano and flute play; a piano, a guitar and a violin were wanted. Two guitars of one name are one instrument."""
    found = compare(heard(), Asked(instruments=(PIANO, GUITAR, VIOLIN))).instruments
    assert found == InstrumentCounts(wanted=3, found=1, played=2, fitting=1)
    assert (found.precision, found.recall, found.f1) == (1 / 2, 1 / 3, pytest.approx(2 / 5))
    guitars = compare(heard(programs=(24, 25)), Asked(instruments=(GUITAR | {26, 27},))).instruments
    assert guitars == InstrumentCounts(wanted=1, found=1, played=1, fitting=1)
    nothing = compare(heard(programs=()), Asked(instruments=(PIANO,))).instruments
    assert nothing is not None
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


def test_nothing_asked_is_no_score() -> None:
    assert set(dataclasses.asdict(compare(heard(), Asked())).values()) == {None}


def test_an_empty_piece_does_nothing_right() -> None:
    nothing = np.zeros(0, np.int32)
    empty = NoteTable(nothing, nothing, nothing, np.zeros(0, np.uint8))
    asked = Asked((PIANO,), True, (90, 90), Key(0, "major"), (4, 4), (30, 30))
    found = dataclasses.asdict(score(empty, asked))
    assert found.pop("instruments") == {"wanted": 1, "found": 0, "played": 0, "fitting": 0}
    assert set(found.values()) == {False}


def test_the_bands_pieces_do_what_their_rows_say(tmp_path: Path) -> None:
    """Instruments, drums and lengths exactly; key, tempo and meter as far as the estimators go."""
    write_band(tmp_path / "band", 40, seed=3, profile="full", documents=0)
    pieces, asked = [], []
    for line in (tmp_path / "band" / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pieces.append(hear(read_midi((tmp_path / "band" / row["location"]).read_bytes())))
        asked.append(from_columns(row))
    found = summary(pieces, asked, seed=0)
    assert tuple(measure.name for measure in found.measures) == MEASURES
    assert {measure.prompts for measure in found.measures} == {40}
    for name in ("drums", "length", "instrument_precision", "instrument_recall", "instrument_f1"):
        assert found[name].share.value == 1
    for name in ("tempo_bin", "key", "meter"):
        assert found[name].wins
        assert found[name].share.value > 0.6


def test_summary_by_hand() -> None:
    """Three outputs; the second prompt says nothing about the key, the third nothing about instruments."""
    outputs = [heard(), heard(key=Key(7, "major"), programs=(24,)), heard(key=Key(2, "minor"))]
    asked = [
        Asked(instruments=(PIANO, VIOLIN), key=Key(0, "major")),
        Asked(instruments=(GUITAR,)),
        Asked(key=Key(5, "major")),
    ]
    found = summary(outputs, asked, seed=0)
    assert [measure.name for measure in found.measures] == ["key", "key_or_relative", *MEASURES[-3:]]
    assert (found["key"].prompts, found["key"].share.value) == (2, 1 / 2)
    assert found["key_or_relative"].share.value == 1
    # Dealt the other way round neither key fits.
    assert found["key"].shuffled.value == 1 / 4
    assert found["key_or_relative"].shuffled.value == 1 / 2
    # Played piano, flute and guitar; wanted piano, violin and guitar; piano and guitar are right.
    assert found["instrument_precision"].share.value == pytest.approx(2 / 3)
    assert found["instrument_recall"].share.value == pytest.approx(2 / 3)
    assert found["instrument_f1"].better_by.value == pytest.approx(2 / 3 - 1 / 3)
    assert not any(measure.wins for measure in found.measures)
    assert json.loads(json.dumps(found.to_json()))["outputs"] == 3


def test_shuffled_shares_are_the_mean_over_all_orders() -> None:
    outputs = [heard(drums=drums, seconds=seconds) for drums, seconds in ((True, 10), (False, 60), (True, 55))]
    asked = [Asked(drums=drums, seconds=(20, 50)) for drums in (True, False, False)]
    orders = [
        [compare(o, a).drums for o, a in zip(outputs, order, strict=True)] for order in itertools.permutations(asked)
    ]
    assert summary(outputs, asked, seed=0)["drums"].shuffled.value == pytest.approx(np.mean(orders))


def test_no_outputs_have_no_measures() -> None:
    assert summary([], [], seed=0).measures == ()
    with pytest.raises(ValueError, match="1 outputs and 0 asks"):
        summary([heard()], [], seed=0)
