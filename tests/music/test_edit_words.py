"""Requests in words: the plans they become, and the words that are refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from midillm_jax.music.edit_plan import plan_text, read_plan
from midillm_jax.music.edit_words import NotUnderstood, plan_of

BEFORE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "edit_phrasings_before.json").read_text(encoding="utf-8")
)["phrasings"]
PLANNED = [row for row in BEFORE if "plan" in row]
DESCRIBES = ("add", "rewrite", "something")
"""Requests with these words hold a description of music, in which any word may stand."""


def lines(words: str, *tracks: str) -> list[str]:
    return plan_text(plan_of(words, tracks)).splitlines()


def refused(words: str, *tracks: str) -> NotUnderstood:
    with pytest.raises(NotUnderstood) as error:
        plan_of(words, tracks)
    return error.value


def test_the_lists_are_plans() -> None:
    assert (len(BEFORE), len(PLANNED)) == (100, 85)
    for row in PLANNED:
        text = "\n".join(row["plan"]) + "\n"
        assert plan_text(read_plan(text)) == text


@pytest.mark.parametrize("row", BEFORE, ids=lambda row: row["words"])
def test_what_people_say_becomes_the_plan_expected(row: dict[str, Any]) -> None:
    if "plan" in row:
        assert lines(row["words"], *row.get("tracks", ())) == row["plan"]
    else:
        assert list(refused(row["words"]).words) == row["not_understood"]


def test_an_unknown_word_anywhere_is_named() -> None:
    for row in PLANNED:
        words = row["words"].split()
        if not any(word in DESCRIBES for word in words) and '"' not in row["words"]:
            for at in range(len(words) + 1):
                request = " ".join([*words[:at], "blorp", *words[at:]])
                assert any("blorp" in said for said in refused(request, *row.get("tracks", ())).words), request


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
