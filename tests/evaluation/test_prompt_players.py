"""Who is said to play, and who is not."""

import json
from pathlib import Path
from typing import Literal

import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.evaluation.prompt_players import asked_instruments, asks_for_drums
from midillm_jax.music.instruments import CAPTION_WORDS, PROGRAM_NAMES


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
        "No piano, no drums.",
        "Without vocals, without drums.",
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


def allowed(prompt: str, *programs: int) -> list[bool]:
    """For each program, whether exactly one instrument asked for allows it."""
    asked = asked_instruments(prompt)
    assert asked is not None
    return [sum(program in instrument for instrument in asked) == 1 for program in programs]


@pytest.mark.parametrize("program", range(128))
def test_every_program_is_known_by_its_names(program: int) -> None:
    for name in (CAPTION_WORDS[program], PROGRAM_NAMES[program]):
        assert allowed(f"A slow piece played by {name}.", program) == [True], name


@pytest.mark.parametrize(
    ("prompt", "count", "programs"),
    [
        ("an electric bass guitar", 1, (33,)),
        ("A dynamic blend of electric and acoustic guitars", 2, (24, 27)),
        ("overdriven and distorted guitars", 2, (29, 30)),
        ("Violins, a saxophone and strings", 3, (40, 66, 48)),
        ("The electric guitar plays. Later the guitar rests.", 1, (27,)),
        ("The bassist and the pianist groove.", 2, (33, 0)),
        ("Solo Harpsichord", 1, (6,)),
        ("a honky-tonk piano", 1, (3,)),
    ],
)
def test_words_for_instruments(prompt: str, count: int, programs: tuple[int, ...]) -> None:
    asked = asked_instruments(prompt)
    assert asked is not None
    assert len(asked) == count
    assert all(any(program in one for one in asked) for program in programs)


@pytest.mark.parametrize(
    "prompt", ["", "A fast polka with drums.", "It has a driving bass line.", "No piano, no organ."]
)
def test_no_instrument_is_named(prompt: str) -> None:
    assert asked_instruments(prompt) is None


def test_what_is_denied_is_not_asked_for() -> None:
    assert asked_instruments("A trio for flute and harp without piano.") == asked_instruments("flute, harp")
    assert asked_instruments("Strings instead of brass") == asked_instruments("strings")
