"""What the page's fields mean, on a real piece of the band, and what is said where they mean nothing."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from midillm_jax.composing import options
from midillm_jax.composing.options import Change
from midillm_jax.errors import UserError
from midillm_jax.music import clock
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import Score, read_score
from midillm_jax.music.vocab import DRUM_PROGRAM
from midillm_jax.serving import wishes
from midillm_jax.serving.places import stretch, track_choices
from midillm_jax.serving.wishes import Bounds, Wish, plan
from tests.inference.parts import band_files

BOUNDS = Bounds(outputs=4, prompt_letters=200)
Continue = partial(options.Continue, file=Path())
Infill = partial(options.Infill, file=Path())
Accompany = partial(options.Accompany, file=Path())
Replace = partial(options.Replace, file=Path())


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
        (Wish("new", tempo=1000), "tempo 1000: expected 20 to 400"),
        (Wish("new", tempo=float("nan")), "tempo nan: expected 20 to 400"),
        (Wish("new", key="H major"), "'H major' is no key"),
        (Wish("new", outputs=3, candidates=2), "candidates 2: expected 3 or more, as 3 takes are kept"),
        (Wish("new", candidates=5), "The number of candidates is 5; expected 1 to 4"),
        (Wish("infill", where="2", quantize="1/7"), "'1/7' is no grid"),
        (Wish("infill", where="2", velocity=128), "velocity 128: expected 1 to 127"),
        (Wish("infill", where="2", strength=1.5), "strength 1.5: expected 0"),
        (Wish("edit"), "What is to be changed? Write it"),
        (Wish("edit", words="make the chorus louder"), "'chorus' is not understood: a file does not say"),
        (Wish("edit", words="la " * 300), "What is to be changed has 900 letters, and may have 500"),
        (Wish("edit", words="mute bars 1 to 12345678901"), "a number that no bar, second or tempo has"),
        (Wish("edit", plan="all: dance"), "the plan, line 1: 'dance' is nothing that can be done"),
        (Wish("edit", plan="all: transpose +1 semitone [all]\n" * 41), "The plan has 41 operations; expected 1 to 40"),
        (Wish("edit", plan="# nothing"), "The plan has 0 operations"),
        (Wish("edit", plan='all: add "\ud83d"'), "The plan: character 11 is half of a pair"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(score: Score, wish: Wish, said: str) -> None:
    with pytest.raises(UserError) as raised:
        plan(wish, score, BOUNDS)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["continue", "infill", "accompany", "replace", "edit"])
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


@pytest.mark.parametrize(
    ("wish", "option"),
    [
        (
            Wish("continue", where="bar 3", seconds=12, instruments="harp"),
            Continue(start="bar 3", seconds=12, add="harp"),
        ),
        (Wish("continue"), Continue()),
        (Wish("infill", where="2-3", instruments="harp"), Infill(bars="2-3", add="harp")),
        (Wish("infill", where="2s-4.5s"), Infill(between=("2s", "4.5s"))),
        (Wish("accompany", instruments="harp, bass", tracks=("drums",)), Accompany(add="harp, bass", keep="drums")),
        (Wish("accompany", instruments="harp", where="2"), Accompany(add="harp", bars="2")),
        (Wish("replace", tracks=("drums",), where="2-3"), Replace(tracks="drums", bars="2-3")),
    ],
)
def test_the_page_and_the_commands_mean_the_same(score: Score, wish: Wish, option: Change) -> None:
    asked = options.change_of(option, score)
    made = plan(wish, score, BOUNDS)
    assert made.change == asked.change(score, read_notes(score))


def test_the_words_of_an_edit_are_a_plan_that_needs_no_model_for_what_rules_do(score: Score) -> None:
    by_rule = plan(Wish("edit", words="mute the drums  in bars 1-2"), score, BOUNDS)
    assert (by_rule.edit, by_rule.needs_model) == ("bars 1-2: remove [drums]\n", False)
    assert by_rule.title == "mute the drums in bars 1-2"
    by_model = plan(Wish("edit", words="add a flute solo"), score, BOUNDS)
    assert by_model.needs_model


def test_a_plan_goes_before_the_words_and_names_the_version_if_it_was_changed(score: Score) -> None:
    lines = "# mine\nbars 1-3: remove [drums]\nall: tempo 90 bpm\n"
    for words in ("mute the drums in bars 1-2", "make the chorus louder"):
        made = plan(Wish("edit", words=words, plan=lines), score, BOUNDS)
        assert made.edit == lines
        assert made.title == "bars 1-3: remove [drums]; all: tempo 90 bpm"


def untouched(*given: object) -> None:
    raise AssertionError("no model is asked")


def test_an_edit_changes_the_piece_and_says_what_became_of_it(score: Score) -> None:
    made = plan(Wish("edit", words="mute the drums and play everything an octave up"), score, BOUNDS)
    heard: list[str] = []
    (take,) = made.work(None, lambda stage, seconds: heard.append(stage), untouched)  # type: ignore[arg-type]
    assert take.account.startswith("all: remove [drums]: ")
    assert " \u00b7 all: transpose +12 semitones [all]: " in take.account
    assert len(heard) == 2, "after each operation it can be stopped"
    before, after = read_notes(score).notes, read_notes(read_score(take.midi)).notes
    pitches = [note.pitch + 12 for note in before if note.part.program != DRUM_PROGRAM]
    assert sorted(note.pitch for note in after) == sorted(pitches)


def test_an_edit_that_would_flood_the_page_ends(score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishes, "MAX_NOTES", len(read_notes(score).notes))
    lines = "".join(f"all: double on {name} [all]\n" for name in ("Violin", "Flute", "Harmonica", "Cello", "Oboe"))
    made = plan(Wish("edit", plan=lines), score, BOUNDS)
    with pytest.raises(UserError, match=r"more than \d+ notes, which is what the page takes"):
        made.work(None, lambda *given: None, untouched)  # type: ignore[arg-type]
