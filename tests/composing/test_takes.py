"""Which takes are kept."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.composing.takes import (
    Stretch,
    account,
    judge,
    judge_change,
    ranked,
    ranked_changes,
    stretch_of,
    together,
)
from midillm_jax.evaluation.asked import Asked
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.inference.changes import Change
from midillm_jax.music.clock import bar_map, tempo_map
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import read_score
from midillm_jax.music.signatures import Signatures, signatures
from tests.inference.parts import band_files


def tune(program: int, notes: int = 60, apart: int = 25, seed: int = 0) -> NoteTable:
    rng = np.random.default_rng(seed)
    onsets = apart * np.arange(notes, dtype=np.int32)
    pitches = rng.integers(50, 80, notes).astype(np.int32)
    return NoteTable(onsets, np.full(notes, apart, np.int32), 128 * program + pitches, np.full(notes, 72, np.uint8))


def test_failed_takes_come_last_whatever_they_play() -> None:
    asked = read_prompt("A tune for flute.")
    flute, piano, hardly = tune(73), tune(0), tune(73, notes=5)
    order = ranked([hardly, piano, flute], asked)
    assert [take.number for take in order] == [2, 1, 0]
    assert order[-1].failed == "next to empty or full of holes"
    assert order[0].agreement == 1.0
    assert order[1].agreement == 0.0


def test_a_flood_is_named() -> None:
    assert judge(0, tune(0, notes=2000, apart=0), Asked()).failed == "flooded with notes"


def test_where_nothing_is_asked_the_first_comes_first() -> None:
    order = ranked([tune(0, seed=1), tune(0, seed=2)], Asked())
    assert [(take.number, take.agreement) for take in order] == [(0, None), (1, None)]


def test_the_account_names_what_was_kept_and_why_not_the_others() -> None:
    order = ranked([tune(73, notes=5), tune(0), tune(73)], read_prompt("A tune for flute."))
    assert account(order, 1) == ("3 takes: 1 next to empty or full of holes; kept 3 (100% of what was asked)")
    assert account(ranked([tune(0)], Asked()), 1) == "1 takes: none failed; kept 1"


def at(start: int, table: NoteTable) -> NoteTable:
    return dataclasses.replace(table, onsets=table.onsets + np.int32(start))


NOTHING = tune(0, notes=0)
SIGNS = signatures(tune(0, seed=9), (0, 1500))


def stretch(
    kept: NoteTable = NOTHING,
    before: Signatures = SIGNS,
    players: tuple[frozenset[int], ...] = (),
    *,
    closes: bool = False,
) -> Stretch:
    """15 s from 10 s on."""
    return Stretch(1000, 2500, closes, kept, before, players)


def loop(start: int, programs: tuple[int, ...] = (0,)) -> NoteTable:
    """A bar of a second over and over, for 15 s."""
    notes = np.tile([60, 64, 67, 64], 15).astype(np.int32) + 128 * np.resize(np.array(programs, np.int32), 60)
    return NoteTable(
        start + 25 * np.arange(60, dtype=np.int32),
        np.full(60, 25, np.int32),
        notes.astype(np.int32),
        np.full(60, 72, np.uint8),
    )


@pytest.mark.parametrize(
    ("new", "failed"),
    [
        (at(1000, tune(0)), None),
        (NOTHING, "without a note"),
        (at(1000, tune(0, notes=300, apart=0)), "flooded with notes"),
        (loop(1000), "looping"),
        (at(1000, tune(0, notes=20)), "next to empty or full of holes"),  # the last 10 s are silent
        (at(2000, tune(0, notes=20)), "next to empty or full of holes"),  # the first 10 s are
    ],
)
def test_takes_of_a_stretch_fail_as_pieces_do_but_a_short_stretch_has_few_notes(
    new: NoteTable, failed: str | None
) -> None:
    assert judge_change(0, new, stretch(), Asked()).failed == failed
    short = Stretch(1000, 1200, False, NOTHING, SIGNS, ())
    assert judge_change(0, at(1000, tune(0, notes=8)), short, Asked()).failed is None


def test_what_the_stretch_had_before_is_no_fault_of_a_take() -> None:
    of_loops = signatures(loop(0), (0, 1500))
    assert judge_change(0, loop(1000), stretch(before=of_loops), Asked()).failed is None
    # Others that play on make no loop of a part that has one; nor do they fill a part that hardly plays.
    around = at(1000, tune(33, seed=4))
    assert judge_change(0, loop(1000), stretch(kept=around), Asked()).failed is None
    assert judge_change(0, at(1000, tune(0, notes=8)), stretch(kept=around), Asked()).failed is not None


def test_a_continuation_may_end_early_but_not_at_once() -> None:
    twelve, three = at(1000, tune(0, notes=48)), at(1000, tune(0, notes=12))
    assert judge_change(0, twelve, stretch(closes=True), Asked()).failed is None
    assert judge_change(0, three, stretch(closes=True), Asked()).failed == "over at once"


def test_all_who_were_asked_to_play_and_what_the_words_say_count() -> None:
    bass, drums = at(1000, tune(33)), at(1000, tune(128, seed=2))
    both = stretch(players=(frozenset({32, 33}), frozenset({128})))
    order = ranked_changes([bass, together(bass, drums), drums], both, None)
    assert [(take.number, take.agreement) for take in order] == [(1, 1.0), (0, 0.5), (2, 0.5)]
    # Who plays there already counts for the words; the length is the file's.
    with_flute = stretch(kept=at(1000, tune(73, seed=3)))
    judged = judge_change(0, bass, with_flute, read_prompt("Two minutes of flute and bass, fast."))
    assert judged.agreement == 1.0


def test_the_stretch_of_a_change_is_what_sounds_in_it(tmp_path: Path) -> None:
    score = read_score(band_files(tmp_path, 1)[0].read_bytes())
    music, bars = read_notes(score), bar_map(score)
    seconds, names = tempo_map(score).seconds, {note.part for note in music.notes}
    start, end = bars.start(3), bars.start(5)
    part = min(names)
    found = stretch_of(score, music, Change(start, end, frozenset({part}), None), ())
    ticks = round(seconds(start) * 100), round(seconds(end) * 100)
    assert (found.start, found.end) == ticks
    ringing = [note for note in music.notes if note.onset < end and (note.end or 0) > start and note.part != part] + [
        note for note in music.notes if note.onset < start < (note.end or 0) and note.part == part
    ]
    assert abs(len(found.kept) - len(ringing)) <= 1
    assert found.kept.onsets.min() == found.start
    assert found.before.seconds > 0
    on = stretch_of(score, music, Change(start, None, None, None, 20.0, True), ())
    assert (on.end - on.start, on.closes) == (2000, True)


def test_a_kept_take_that_failed_is_said_to_have() -> None:
    order = ranked([tune(73, notes=5)], Asked())
    assert account(order, 1) == ("1 takes: 1 next to empty or full of holes; kept 1 (next to empty or full of holes)")
