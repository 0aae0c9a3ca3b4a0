"""Which takes are kept."""

import numpy as np

from midillm_jax.composing.takes import account, judge, ranked
from midillm_jax.evaluation.asked import Asked
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.music.midi import NoteTable


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
