"""What the page's fields mean, on a real piece of the band, and what is said where they mean nothing."""

import dataclasses

import pytest

from midillm_jax.errors import UserError
from midillm_jax.music import clock
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import Score, read_score
from midillm_jax.music.vocab import DRUM_PROGRAM
from midillm_jax.serving.places import stretch, track_choices
from midillm_jax.serving.wishes import Bounds, Wish, plan
from tests.inference.parts import band_files

BOUNDS = Bounds(outputs=4, prompt_letters=200)


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Score:
    path = band_files(tmp_path_factory.mktemp("band"), 1)[0]
    return read_score(path.read_bytes(), path.name)


@pytest.mark.parametrize("words", ["3-5", "bars 3-5", " Bars 3 - 5 ", "3\u20135", "bar 3 to bar 6"])
def test_bars_as_people_write_them(score: Score, words: str) -> None:
    bars = clock.bar_map(score)
    assert stretch(score, words) == (bars.start(3), bars.start(6))


@pytest.mark.parametrize("words", ["2s-4.5s", "2s to 4.5s", "2-4.5s", "0:02 - 0:04.5"])
def test_seconds_as_people_write_them(score: Score, words: str) -> None:
    span = stretch(score, words)
    assert span is not None
    assert [clock.tempo_map(score).seconds(tick) for tick in span] == pytest.approx([2, 4.5], abs=0.01)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish("infill"), "Which bars are to be filled in"),
        (Wish("infill", where="chorus"), "'chorus' names no stretch; write bars"),
        (Wish("infill", where="900-901"), "is beyond its end; it has bars 1 to"),
        (Wish("infill", where="5-3"), "end before they begin"),
        (Wish("continue", where="9" * 5000), "is no place"),
        (Wish("accompany"), "Which instruments are to be added"),
        (Wish("accompany", instruments="kazoo"), "'kazoo' is no instrument"),
        (Wish("replace"), "Which tracks are to be written anew"),
        (Wish("replace", tracks=("../../etc/passwd",)), "has no '../../etc/passwd'"),
        (Wish("new", prompt="la " * 1000), "The prompt has 2,999 letters, and may have 200"),
        (Wish("new", prompt="half \ud83d"), "half of a pair"),
        (Wish("new", seconds=float("nan")), "The length is nan; expected 5 to 300 s"),
        (Wish("new", outputs=1000), "The number of takes is 1000; expected 1 to 4"),
        (Wish("new", seed=-1), "seed is -1"),
        (Wish("new", top_p=0), "top_p is 0"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(score: Score, wish: Wish, said: str) -> None:
    with pytest.raises(UserError) as raised:
        plan(wish, score, BOUNDS)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["continue", "infill", "accompany", "replace"])
def test_a_change_needs_a_piece(kind: str) -> None:
    with pytest.raises(UserError, match="There is no piece yet to"):
        plan(dataclasses.replace(Wish("new"), kind=kind), None, BOUNDS)  # type: ignore[arg-type]


def test_a_stretch_of_some_tracks_is_replaced(score: Score) -> None:
    choices = dict(track_choices(score))
    drums = [words for shown, words in choices.items() if shown.startswith(PROGRAM_NAMES[DRUM_PROGRAM])]
    made = plan(Wish("replace", where="2-3", tracks=tuple(drums)), score, BOUNDS)
    assert made.change is not None
    bars = clock.bar_map(score)
    assert (made.change.start, made.change.end) == (bars.start(2), bars.start(4))
    assert made.change.parts == {note.part for note in read_notes(score).notes if note.part.program == DRUM_PROGRAM}
    assert made.title.endswith("in bars 2\u20133")


def test_a_continuation_begins_where_the_piece_ends_or_where_it_is_told(score: Score) -> None:
    end = plan(Wish("continue", seconds=20), score, BOUNDS)
    assert end.change is not None
    assert end.change.start == clock.music_end(score)
    assert (end.seconds, end.start) == (20, clock.tempo_map(score).seconds(clock.music_end(score)))
    # What the roll selects is a stretch; its beginning counts.
    for where in ("bar 3", "3-5"):
        made = plan(Wish("continue", where=where), score, BOUNDS)
        assert made.change is not None
        assert made.change.start == clock.bar_map(score).start(3)


def test_every_track_of_a_piece_can_be_chosen(score: Score) -> None:
    choices = track_choices(score)
    assert len({words for _, words in choices}) == len(choices) == len({note.part for note in read_notes(score).notes})
    for _, words in choices:
        made = plan(Wish("replace", tracks=(words,)), score, BOUNDS)
        assert made.change is not None
        assert made.change.parts
