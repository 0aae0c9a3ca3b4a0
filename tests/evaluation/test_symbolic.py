"""What captions ask for and what notes hold."""

import itertools
import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.evaluation.symbolic import asks_for_drums, drums_as_asked, has_drums, instruments_as_asked
from midillm_jax.music.midi import NoteTable


@pytest.mark.parametrize(
    "sentence",
    [
        "A rock song with drums.",
        "Electric bass, drums and a saxophone play a funk groove.",
        "The bassist and the drummer groove together.",
        "Driven by a drum machine and a synth bass.",
        "Latin percussion over a piano.",
        "A drum-heavy track with a loud hi-hat.",
        "It opens without bass, but with drums.",
        "No vocals. Drums mark the beat throughout.",
        "There is no melody, and the drums keep the beat.",
        "No drums at first; the drums enter later.",
        "Not only drums but also congas.",
        "Synth drums of the eighties",
        "A song without vocals, featuring drums.",
        "Without vocals, drums take the lead.",
    ],
)
def test_drums_are_asked_for(sentence: str) -> None:
    assert asks_for_drums(sentence) is True


@pytest.mark.parametrize(
    "sentence",
    [
        "A waltz without drums.",
        "A waltz in 3/4 for piano, with no drums, at a slow tempo of 80 BPM.",
        "no percussion",
        "There are no drums.",
        "A drumless ballad.",
        "A drum-free, percussion-free meditation",
        "It has neither drums nor bass.",
        "It has neither bass nor drums.",
        "Solo piano without any drums or percussion.",
        "A trio without bass, drums or guitar.",
        "A march without brass and drums.",
        "The piece lacks drums and is calm.",
        "A guitar duet, free of percussion.",
        "The drums are absent.",
        "Drums are not used.",
        "Drums aren't used here, nor is there any percussion.",
        "It doesn't have any drums.",
        "No live drums",
        "Without Drums",
        "Drums: none",
        "Strings instead of drums",
    ],
)
def test_drums_are_declined(sentence: str) -> None:
    assert asks_for_drums(sentence) is False


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "A slow piano ballad in C minor.",
        "A calypso led by steel drums.",
        "A taiko drum and a koto.",
        "A percussive organ and chromatic percussion such as the marimba.",
        "A conundrum for solo flute.",
    ],
)
def test_captions_that_say_nothing_about_the_drum_kit(sentence: str) -> None:
    assert asks_for_drums(sentence) is None


@pytest.mark.parametrize("profile", ["small", "full"])
def test_exact_captions_are_read_exactly(profile: Literal["small", "full"], tmp_path: Path) -> None:
    """The small band's captions name drums wherever they play; a piece without may say nothing, in the full profile."""
    write_band(tmp_path / "band", 150, seed=1, profile=profile, documents=0)
    answers = []
    for line in (tmp_path / "band" / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answers.append(asks_for_drums(row["caption"]))
        silent = answers[-1] is None and not row["drums"] and profile == "full"
        assert answers[-1] == row["drums"] or silent, row["caption"]
    assert {True, False} <= set(answers)


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
