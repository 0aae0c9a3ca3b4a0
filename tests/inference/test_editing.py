"""A person's file gets new music: where, for whom, and with everything else as it was."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference import changes
from midillm_jax.inference.changes import Change
from midillm_jax.inference.compose import MusicModel, load_model
from midillm_jax.inference.editing import write_into
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.clock import bar_map, music_end, tempo_map
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.parts import programs_asked, read_notes
from midillm_jax.music.score import END_OF_TRACK, NOTE_OFF, NOTE_ON, Score, event_diff, read_score, write_score
from tests.inference.parts import band_files, untrained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MusicModel:
    return load_model(untrained(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Score:
    """A piece with drums."""
    for path in band_files(tmp_path_factory.mktemp("piece"), 12):
        found = read_score(path.read_bytes(), path.name)
        programs = {note.part.program for note in read_notes(found).notes}
        if 128 in programs and len(programs) > 2:
            return found
    raise AssertionError("no such piece")


def going_on(score: Score, start: int | None, seconds: float) -> Change:
    """A continuation that lasts: to this model, any onset beyond the end is as likely as one before it."""
    return dataclasses.replace(changes.continuation(score, start, seconds), may_close=False)


def fresh(score: Score, edited: Score) -> list[tuple[int, int, int]]:
    """(program, tick, velocity) of the notes that only the second score has."""
    before = {(note.part.program, note.pitch, note.onset, note.end) for note in read_notes(score).notes}
    return [
        (note.part.program, note.onset, note.velocity)
        for note in read_notes(edited).notes
        if (note.part.program, note.pitch, note.onset, note.end) not in before
    ]


def check_nothing_else_changed(score: Score, change: Change, edited: Score) -> None:
    tail = 10 * score.ticks_per_beat * 4
    end = float("inf") if change.end is None else change.end
    gone = {} if change.parts is None else {part.track for part in change.parts}
    for diff in event_diff(score, edited):
        if diff.message[:2] == END_OF_TRACK[:2]:
            continue  # a note that rings on pushes it back
        assert diff.tick >= change.start
        if not diff.added:
            assert diff.message[0] & 0xF0 in (NOTE_ON, NOTE_OFF)
            assert diff.tick < end + tail
            assert change.parts is None or diff.track in gone


def test_bars_are_filled_and_nothing_else_is_touched(model: MusicModel, score: Score) -> None:
    change = changes.infilling(score, bar_map(score).start(3), bar_map(score).start(5))
    (edited,) = write_into(model, score, change, MusicRequest("a warm lute", seed=2))
    assert edited.removed > 0
    assert edited.added > 0
    check_nothing_else_changed(score, change, edited.score)
    own = {note.part.program for note in read_notes(score).notes}
    for program, tick, _ in fresh(score, edited.score):
        assert program in own
        assert change.end is not None
        assert change.start <= tick < change.end
    assert read_score(write_score(edited.score)) == read_score(write_score(edited.score))


def test_it_goes_on_from_the_end_for_as_long_as_was_asked(model: MusicModel, score: Score) -> None:
    change = going_on(score, None, 8.0)
    first, second = write_into(model, score, change, MusicRequest(None, outputs=2))
    end, tempos = music_end(score), tempo_map(score)
    for edited in (first, second):
        ticks = [tick for _, tick, _ in fresh(score, edited.score)]
        assert ticks
        assert min(ticks) >= end
        assert tempos.seconds(max(ticks)) < tempos.seconds(end) + 8.01
        assert edited.removed == 0
        check_nothing_else_changed(score, change, edited.score)
    assert write_score(first.score) != write_score(second.score)


def test_it_goes_on_from_a_place_in_the_middle_without_what_was_there(model: MusicModel, score: Score) -> None:
    start = bar_map(score).start(3)
    change = going_on(score, start, 5.0)
    (edited,) = write_into(model, score, change, MusicRequest(None))
    assert edited.removed == sum(note.onset >= start for note in read_notes(score).notes)
    check_nothing_else_changed(score, change, edited.score)


def test_instruments_join_those_that_are_kept(model: MusicModel, score: Score) -> None:
    asked = programs_asked("harp, bagpipe")
    change = changes.accompaniment(score, "harp, bagpipe")
    (edited,) = write_into(model, score, change, MusicRequest(None))
    new = fresh(score, edited.score)
    assert new
    assert {program for program, _, _ in new} <= set(asked)
    assert edited.removed == 0
    alone = changes.accompaniment(score, "harp", keep="drums")
    (edited,) = write_into(model, score, alone, MusicRequest(None))
    assert {note.part.program for note in read_notes(edited.score).notes} == {128, *programs_asked("harp")}


def test_tracks_are_played_anew_in_a_span(model: MusicModel, score: Score) -> None:
    bars = bar_map(score)
    change = changes.replacement(score, "drums", (bars.start(2), bars.start(4)))
    (edited,) = write_into(model, score, change, MusicRequest(None))
    assert edited.removed == sum(
        note.part.program == 128 and bars.start(2) <= note.onset < bars.start(4) for note in read_notes(score).notes
    )
    assert {program for program, _, _ in fresh(score, edited.score)} == {128}
    check_nothing_else_changed(score, change, edited.score)


def test_velocities_are_near_the_files_own_or_flat(model: MusicModel, score: Score) -> None:
    change = going_on(score, None, 20.0)
    by_rule = write_into(model, score, change, MusicRequest(None, outputs=4))
    (flat,) = write_into(model, score, change, MusicRequest(None), velocity=33)
    struck = [velocity for one in by_rule for _, _, velocity in fresh(score, one.score)]
    assert len(set(struck)) > 3
    middle = np.median([note.velocity for note in read_notes(score).notes])
    assert abs(np.median(struck) - middle) < 20
    assert {velocity for _, _, velocity in fresh(score, flat.score)} == {33}


def test_new_notes_keep_to_a_grid(model: MusicModel, score: Score) -> None:
    onto = changes.grid_of(score, "1/4")
    change = going_on(score, None, 20.0)
    (edited,) = write_into(model, score, change, MusicRequest(None), grid=onto, velocity=60)
    assert {tick % score.ticks_per_beat for _, tick, _ in fresh(score, edited.score)} == {0}


def test_what_cannot_be_is_refused(model: MusicModel, score: Score) -> None:
    with pytest.raises(UserError, match="no note begins before"):
        changes.continuation(score, 0, 5.0)
    with pytest.raises(UserError, match="shorter than 10 ms"):
        write_into(model, score, changes.infilling(score, 960, 961), MusicRequest(None))
    with pytest.raises(UserError, match="give one of them"):
        changes.span(score, ("1s", "2s"), "1-2")
    with pytest.raises(UserError, match="no instrument"):
        changes.accompaniment(score, "spoons and forks")


def test_an_account_says_what_became_of_the_notes(model: MusicModel, score: Score) -> None:
    change = changes.infilling(score, bar_map(score).start(3), bar_map(score).start(5))
    (edited,) = write_into(model, score, change, MusicRequest(None))
    said = changes.account(score, change, edited)
    assert "from bar 3 to 4 (" in said
    assert f"{edited.added} notes new" in said
    assert said.endswith(f"{edited.removed} gone")


@pytest.mark.parametrize("form", [0, 1])
def test_both_forms_of_file(model: MusicModel, form: int) -> None:
    from tests.music.files import note, smf, timed

    data = smf(timed(*note(0, 480), *note(480, 960, 64), *note(960, 1920, 67)), form=form)
    score = read_score(data)
    (edited,) = write_into(model, score, changes.accompaniment(score, "drums"), MusicRequest(None))
    assert {program for program, _, _ in fresh(score, edited.score)} == {128}
    assert edited.score.form == form


def test_of_the_outputs_those_are_placed_that_are_kept_in_the_order_asked_for(model: MusicModel, score: Score) -> None:
    change, music = going_on(score, None, 5.0), read_notes(score)
    everything = write_into(model, score, change, MusicRequest(None, outputs=4))
    heard: list[int] = []

    def keep(tables: Sequence[NoteTable]) -> list[int]:
        heard.extend(map(len, tables))
        return [3, 1]

    kept = write_into(model, score, change, MusicRequest(None, outputs=4), keep=keep, music=music)
    assert [one.score for one in kept] == [everything[3].score, everything[1].score]
    assert heard == [one.added + one.omitted for one in everything]
