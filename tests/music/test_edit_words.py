"""Requests in words: the plans they become, and the words that are refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from midillm_jax.music.edit_plan import plan_text, read_plan
from midillm_jax.music.edit_words import NotUnderstood, plan_of

BEFORE, AFTER = (
    json.loads((Path(__file__).parent / f"edit_phrasings_{when}.json").read_text(encoding="utf-8"))["phrasings"]
    for when in ("before", "after")
)
PHRASINGS: list[dict[str, Any]] = BEFORE + AFTER
PLANNED = [row for row in PHRASINGS if "plan" in row]
DESCRIBES = ("add", "rewrite", "something")
"""Requests with these words hold a description of music, in which any word may stand."""


def lines(words: str, *tracks: str) -> list[str]:
    return plan_text(plan_of(words, tracks)).splitlines()


def refused(words: str, *tracks: str) -> NotUnderstood:
    with pytest.raises(NotUnderstood) as error:
        plan_of(words, tracks)
    return error.value


def test_the_lists_are_plans() -> None:
    assert (len(BEFORE), len(AFTER), len(PLANNED)) == (100, 100, 169)
    for row in PLANNED:
        text = "\n".join(row["plan"]) + "\n"
        assert plan_text(read_plan(text)) == text


@pytest.mark.parametrize("row", PHRASINGS, ids=lambda row: row["words"])
def test_what_people_say_becomes_the_plan_expected(row: dict[str, Any]) -> None:
    if "plan" in row:
        assert lines(row["words"], *row.get("tracks", ())) == row["plan"]
    else:
        assert list(refused(row["words"]).words) == row["not_understood"]


def test_an_unknown_word_anywhere_is_named() -> None:
    for row in PLANNED:
        words = row["words"].split()
        if not any(word.lower() in DESCRIBES for word in words) and '"' not in row["words"]:
            for at in range(len(words) + 1):
                request = " ".join([*words[:at], "blorp", *words[at:]])
                assert any("blorp" in said for said in refused(request, *row.get("tracks", ())).words), request


@pytest.mark.parametrize(
    "words",
    [
        "kindly double the flute with a violin",
        "let the viola double the violin an octave lower",
        "transpose the bass up 12 and the piano down 12",
        "mute the strings before bar 9 and the brass after bar 16",
        "everything out but the choir",
        "would you mind muting the drums and making the bass louder",
        "the piano is too loud, turn it down",
        "I want that the drums are off in bar 4",
        "strip it back to piano and cello",
        "swap the violin for a viola, lower the whole thing a half step",
    ],
)
@pytest.mark.parametrize("nonsense", ["blorp", "blorpy", "blorping"])
def test_an_unknown_word_is_named_wherever_clauses_share_their_words(words: str, nonsense: str) -> None:
    said = words.split()
    for at in range(len(said) + 1):
        request = " ".join([*said[:at], nonsense, *said[at:]])
        assert any(nonsense in each for each in refused(request).words), request


def test_any_words_at_all_are_a_plan_or_are_refused_by_name() -> None:
    words = [word for row in BEFORE for word in row["words"].split()]
    rng = random.Random(0)
    planned = 0
    for _ in range(1000):
        request = " ".join(rng.choice(words) for _ in range(rng.randint(1, 7)))
        said: tuple[str, ...] = ()
        try:
            plan = plan_of(request)
        except NotUnderstood as error:
            plan, said = (), error.words
        assert plan or said, request
        assert all(each in request for each in said), request
        assert read_plan(plan_text(plan)) == plan
        planned += bool(plan)
    assert planned > 20


@pytest.mark.parametrize("words", ["", "  \n ", "please!", "hello, thanks", "and then"])
def test_nothing_said_is_refused(words: str) -> None:
    assert "say what to do" in str(refused(words))


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        pytest.param(
            "in bars 9-16 mute the drums and transpose the piano up an octave. bass softer",
            ["bars 9-16: remove [drums]", "bars 9-16: transpose +12 semitones [piano]", "all: velocity 80% [bass]"],
            id="a place at a sentence's head holds for all of it",
        ),
        pytest.param(
            "make bars 9-16 sparser and mute the drums",
            ["bars 9-16: thin to 50% [all]", "all: remove [drums]"],
            id="elsewhere it is its own clause's",
        ),
        pytest.param(
            "make it sparser, slower and quieter in bars 1-8",
            ["bars 1-8: thin to 50% [all]", "bars 1-8: tempo 90%", "bars 1-8: velocity 80% [all]"],
            id="or that of those that share its verb",
        ),
        pytest.param(
            "transpose the piano up an octave in bars 1-4 and make it louder",
            ["bars 1-4: transpose +12 semitones [piano]", "bars 1-4: velocity 125% [piano]"],
            id="it is what the clause before was about, and there",
        ),
        pytest.param(
            "mute the drums in bar 4 and make the bass louder there",
            ["bar 4: remove [drums]", "bar 4: velocity 125% [bass]"],
            id="there",
        ),
        pytest.param(
            "swap the piano for a flute and make it softer",
            ["all: change to Flute [piano]", "all: velocity 80% [Flute]"],
            id="the new instrument",
        ),
        pytest.param(
            "mute the drums and make it softer",
            ["all: remove [drums]", "all: velocity 80% [all]"],
            id="what was taken out cannot be meant",
        ),
        pytest.param(
            "piano louder, bass much louder, everything else quieter",
            ["all: velocity 125% [piano]", "all: velocity 150% [bass]", "all: velocity 80% [all but piano, bass]"],
            id="the rest",
        ),
        pytest.param(
            "mute the piano, strings up an octave",
            ["all: remove [piano]", "all: transpose +12 semitones [strings]"],
            id="a list that makes no sense as one",
        ),
        pytest.param(
            "1. mute the drums\n2) tempo 90\n- bass an octave down",
            ["all: remove [drums]", "all: tempo 90 bpm", "all: transpose -12 semitones [bass]"],
            id="a list of lines",
        ),
        pytest.param(
            "mute the drums in bars 1 to 4 and in bars 9 to 12",
            ["bars 1-4: remove [drums]", "bars 9-12: remove [drums]"],
            id="several places",
        ),
        pytest.param(
            "transpose everything up a fifth, except the bass", ["all: transpose +7 semitones [all but bass]"]
        ),
        pytest.param("the drums are too loud", ["all: velocity 80% [drums]"], id="a complaint"),
        pytest.param("30% fewer notes in the piano", ["all: thin to 70% [piano]"], id="so many fewer"),
        pytest.param("tempo plus 10", ["all: tempo +10 bpm"]),
        pytest.param("let the cello play the bass part", ["all: change to Cello [bass]"]),
        pytest.param("mute the drums, and in bar 5", ["bar 5: remove [drums]"], id="a place that comes last"),
        pytest.param(
            "bars 17-24 in the style of a march",
            ['bars 17-24: regenerate "in the style of a march" [all]'],
            id="a description",
        ),
    ],
)
def test_what_is_made_of_what_is_left_unsaid(words: str, plan: list[str]) -> None:
    assert lines(words) == plan


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        ("let the viola double the violin", ["all: double on Viola [violin]"]),
        ("the cello doubles the bass an octave up", ["all: double on Cello +12 semitones [bass]"]),
        ("have the strings doubling the piano", ["all: double on String Ensemble 1 [piano]"]),
        ("the violin should be doubled by a viola", ["all: double on Viola [violin]"]),
        ("double the violin with a viola", ["all: double on Viola [violin]"]),
        ("double the flute on a piccolo, an octave up", ["all: double on Piccolo +12 semitones [flute]"]),
        ("layer the strings with a choir", ["all: double on Choir Aahs [strings]"]),
        (
            "thin the piano and have a harp double it",
            ["all: thin to 50% [piano]", "all: double on Orchestral Harp [piano]"],
        ),
        (
            "thin the piano and double it an octave up",
            ["all: thin to 50% [piano]", "all: double +12 semitones [piano]"],
        ),
        ("let the oboe take over the flute's part", ["all: change to Oboe [flute]"]),
        ("the flute replaces the violin", ["all: change to Flute [violin]"]),
    ],
)
def test_who_doubles_or_replaces_whom(words: str, plan: list[str]) -> None:
    assert lines(words) == plan


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        ("lower the whole thing a half step", "all: transpose -1 semitone [all]"),
        ("the whole song down a fifth", "all: transpose -7 semitones [all]"),
        ("the piece slower", "all: tempo 90%"),
        ("then the whole song softer", "all: velocity 80% [all]"),
        ("softer throughout the song", "all: velocity 80% [piano]"),
    ],
)
def test_the_whole_thing_is_everybody(words: str, plan: str) -> None:
    assert lines(f"make the piano louder in bar 3, {words}") == ["bar 3: velocity 125% [piano]", plan]


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        (
            "mute the piano in bars 1-4, the bass in bars 5-8 and the drums in bar 9",
            ["bars 1-4: remove [piano]", "bars 5-8: remove [bass]", "bar 9: remove [drums]"],
        ),
        (
            "thin the drums by 30% and the bass 20%",
            ["all: thin to 70% [drums]", "all: thin to 80% [bass]"],
        ),
        (
            "raise the velocity of the bass by 10 and the piano by 20",
            ["all: velocity +10 [bass]", "all: velocity +20 [piano]"],
        ),
        ("turn the bass up and the piano down", ["all: velocity 125% [bass]", "all: velocity 80% [piano]"]),
        (
            "raise the bass an octave and the piano a fifth",
            ["all: transpose +12 semitones [bass]", "all: transpose +7 semitones [piano]"],
        ),
        (
            "tempo 90 in bars 1-4 and 100 in bars 5-8",
            ["bars 1-4: tempo 90 bpm", "bars 5-8: tempo 100 bpm"],
        ),
        ("mute the drums in bars 1-4, tempo 90", ["bars 1-4: remove [drums]", "all: tempo 90 bpm"]),
        (
            "make the piano louder, gone in bars 9-12",
            ["all: velocity 125% [piano]", "bars 9-12: remove [piano]"],
        ),
    ],
)
def test_clauses_that_share_their_words(words: str, plan: list[str]) -> None:
    assert lines(words) == plan


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        ("the piano is too loud in bars 1-4. Could you turn the piano down?", ["bars 1-4: velocity 80% [piano]"]),
        (
            "the piano is too loud in bar 1 and bar 5, turn it down a bit",
            ["bar 1: velocity 90% [piano]", "bar 5: velocity 90% [piano]"],
        ),
        ("the piano is way too loud", ["all: velocity 60% [piano]"]),
        ("turn the piano down by 30%, it's too loud", ["all: velocity 70% [piano]"]),
        ("the drums are too loud, mute them", ["all: remove [drums]"]),
        ("it is too fast and too loud. Slow it down to 90 bpm", ["all: velocity 80% [all]", "all: tempo 90 bpm"]),
        ("make the bass louder. It is too loud", ["all: velocity 125% [bass]", "all: velocity 80% [bass]"]),
        ("the drums are too loud, turn the bass up", ["all: velocity 80% [drums]", "all: velocity 125% [bass]"]),
    ],
)
def test_a_complaint_and_its_cure_are_one(words: str, plan: list[str]) -> None:
    assert lines(words) == plan


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        ("everything off but the drums and slow down", ["all: remove [all but drums]", "all: tempo 90%"]),
        ("everything louder but the drums softer", ["all: velocity 125% [all]", "all: velocity 80% [drums]"]),
        ("the whole piece, but the drums, up an octave", ["all: transpose +12 semitones [all but drums]"]),
        ("make the brass slightly more heroic", ['all: regenerate "slightly more heroic" [brass]']),
        ("add a more majestic piano", ['all: add "a more majestic piano"']),
        ("would you mind taking the drums out and adding a flute", ["all: remove [drums]", 'all: add "a flute"']),
        ("pull the tempo back by 10%", ["all: tempo 90%"]),
    ],
)
def test_ways_of_saying_it(words: str, plan: list[str]) -> None:
    assert lines(words) == plan


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        ("make the piano higher", "higher", "say by how much"),
        ("transpose the piano an octave", "an octave", "say whether it goes up or down"),
        ("transpose the piano up a third", "a third", "say of which kind"),
        ("up -3 semitones", "-3 semitones", "its sign and the words say different things"),
        ("raise the piano down an octave", "raise the piano down", "more and less at once"),
        ("tempo by 10 bpm", "10 bpm", "say whether it is more or less"),
        ("make the drums 10 bpm faster", "drums", "all parts share one tempo"),
        ("remove bars 9-12", "remove bars 9-12", "to empty them write: silence bars 9-12"),
        ("make the snare louder", "snare", "write drums"),
        ("make the guitar solo louder", "solo", "name an instrument or a track"),
        ("transpose it into D minor", "D minor", "say the interval"),
        ("if it is slow make it faster", "if", "without conditions"),
        ("make everything else louder", "everything else", "nobody was named before"),
        ("mute the drums from bar 16 to bar 9", "from bar 16 to bar 9", "the first one first"),
        ("replace the piano with drums", "drums", "name one instrument with pitches"),
        ("replace the piano with strings and a choir", "strings and a choir", "name one instrument"),
        ("trnaspose the bass down an octave", "trnaspose", "do you mean 'transpose'?"),
        ("add 3 semitones to the piano", "3 semitones", "say whether it goes up or down"),
        ("strings but the violin up an octave", "strings but the violin up an octave", "which instrument for which"),
        ("tempo 5000", "tempo 5000", "expected 4 to 1000"),
        ("in bars 1-4", "in bars 1-4", "say what is to be done there"),
        ("layer strings on the piano", "layer strings on the piano", "say whom to double"),
        ("double the violin, viola", "double the violin, viola", "say with what"),
        ("duplicate bars 1-4 an octave up", "duplicate", "bars are not repeated"),
        ("transpose the bass up 12 and the pad down 12 in bars 1-4", "in bars 1-4", "say where for each"),
        ("keep only the piano in bars 1-4 and the bass in bars 5-8", "bass in bars 5-8", "does not say what to do"),
        (
            "swap the violin for a harp and raise the track a fifth",
            "raise the track a fifth",
            "everything that is meant",
        ),
        ("everything out but the bass louder", "out", "in a sentence of its own"),
        ("bring the bass down and the piano up 3 semitones", "bring the bass down", "say how much"),
        ("more heroic and softer drums", "more heroic", "say whose notes"),
        ("mute the piano in bars 1-4, then the whole thing", "the whole thing", "in a sentence of its own"),
        ("bring the piano back in bar 9", "bring the piano back in bar 9", "does not say what to do"),
        ("the drums are off", "are", "say what is to be done"),
        ("make it more blorp", "blorp", "rewrite"),
        ("more electric piano", "more", "say by how much"),
        ("add a flute, playing softly", "playing", "rewrite"),
    ],
)
def test_refusals_say_what_to_write_instead(words: str, said: str, remedy: str) -> None:
    error = refused(words)
    assert said in error.words
    assert remedy in str(error)


def test_all_that_is_not_understood_is_told_at_once() -> None:
    error = refused("sidechain the bass, mute the drums in the chorus and make it wobblier")
    assert error.words == ("sidechain", "chorus", "wobblier")


def test_tracks_by_name() -> None:
    assert lines("mute lead vox in bar 2", "Lead Vox") == ["bar 2: remove [Lead Vox]"]
    assert lines("make the melody an octave lower", "Melody") == ["all: transpose -12 semitones [Melody]"]
    assert lines("mute Rhythm, left and the bass", "Rhythm, left") == ['all: remove ["Rhythm, left", bass]']
    # A name that is a word of requests is one only with "track" or in quotes.
    assert lines("make the up track louder", "Up") == ["all: velocity 125% [Up]"]
    assert lines('make "Up" louder', "Up") == ["all: velocity 125% [Up]"]
    assert lines("transpose the bass up an octave", "Up") == ["all: transpose +12 semitones [bass]"]
    assert refused("mute lead vox in bar 2").words == ("lead",)
