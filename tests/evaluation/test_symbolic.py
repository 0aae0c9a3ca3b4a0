"""What captions ask for and what notes hold."""

import itertools

import numpy as np
import pytest

from midillm_jax.evaluation.symbolic import drums_as_asked, has_drums, instruments_as_asked
from midillm_jax.music.midi import NoteTable


def table(*programs: int) -> NoteTable:
    count = len(programs)
    notes = np.array([128 * program + 40 for program in programs], np.int32)
    return NoteTable(np.arange(count, dtype=np.int32), np.full(count, 9, np.int32), notes, np.ones(count, np.uint8))


def test_only_the_drum_kit_is_drums() -> None:
    assert has_drums(table(0, 128))
    assert not has_drums(table(0, 114, 118))


def test_drums_as_asked_by_hand() -> None:
    asked = [True, True, False, None, False, True]
    heard = [True, False, False, True, True, True]
    found = drums_as_asked(asked, heard, seed=0)
    assert (found.prompts, found.silent_prompts) == (5, 1)
    assert found.share is not None
    assert found.share.value == pytest.approx(3 / 5)
    assert found.share.low <= 3 / 5 <= found.share.high


def test_shuffled_score_is_the_mean_over_all_orders() -> None:
    asked, heard = [True, True, False, False, True], [True, True, True, False, False]
    orders = [np.mean([a == h for a, h in zip(order, heard, strict=True)]) for order in itertools.permutations(asked)]
    found = drums_as_asked(asked, heard, seed=0)
    assert found.shuffled is not None
    assert found.better_by is not None
    assert found.shuffled.value == pytest.approx(np.mean(orders))
    assert found.better_by.value == pytest.approx(3 / 5 - np.mean(orders))


def test_a_model_that_listens_wins_and_one_that_does_not_does_not() -> None:
    rng = np.random.default_rng(0)
    asked = (rng.random(48) < 0.5).tolist()
    listening = [ask if rng.random() < 0.9 else not ask for ask in asked]
    won = drums_as_asked(asked, listening, seed=0)
    assert won.wins
    assert won.line().startswith("drums as asked on 48 unseen prompts: ")
    assert " points [" in won.line().split(": better by ")[1]
    always = drums_as_asked(asked, [True] * 48, seed=0)
    assert always.better_by is not None
    assert always.better_by.value == pytest.approx(0)
    assert not always.wins
    assert ": not better (0 points [0, 0])" in always.line()


def test_prompts_that_say_nothing_give_no_score() -> None:
    found = drums_as_asked([None, None], [True, False], seed=0)
    assert (found.prompts, found.silent_prompts, found.share, found.wins) == (0, 2, None, False)
    assert "not better" in found.line()


def test_instruments_by_hand() -> None:
    """Wanted: piano and drums; two guitars of one name count once. Played: piano; drums and violin."""
    found = instruments_as_asked([[0, 128], [24, 25]], [[1], [25, 40, 128]], seed=0)
    # 3 wanted (piano, drums; acoustic guitar), 4 played, hits: piano (of another program), acoustic guitar.
    assert found.precision.value == pytest.approx(2 / 4)
    assert found.recall.value == pytest.approx(2 / 3)
    assert found.f1.value == pytest.approx(4 / 7)
    # Dealt the other way round, only drums are wanted and played.
    assert found.shuffled_f1.value == pytest.approx(np.mean([4 / 7, 2 / 7]))
