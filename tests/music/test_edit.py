"""Edits of hand-made files, one case each."""

import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.clock import bar_map, bars, span
from midillm_jax.music.edit import Edited, NewNote, add_tracks, keep_tracks, replace_span, replace_tracks
from midillm_jax.music.grid import Grid, grid_named
from midillm_jax.music.parts import Part, parts_named, read_notes
from midillm_jax.music.score import Change, Score, event_diff
from tests.music.files import BAND, BEAT, meter, note, program, song, tempo


def pedal(tick: int, value: int, channel: int = 0) -> tuple[int, bytes]:
    return tick, bytes((0xB0 | channel, 64, value))


def new(on: int, length: int = BEAT, program: int = 0, pitch: int = 60, velocity: int = 90) -> NewNote:
    """A new note in ticks of half a second a beat."""
    return NewNote(on / 960, length / 960, program, pitch, velocity)


def changes(before: Score, edited: Edited) -> list[tuple[str, int, int, bytes]]:
    """("+" or "-", track, tick, message)."""
    return [("+" if c.added else "-", c.track, c.tick, c.message) for c in event_diff(before, edited.score)]


def sounding(score: Score) -> list[tuple[int, int, int, int, int, int | None]]:
    """(track, channel, program, pitch, onset, end) of each note, in the order of onsets."""
    return [(*each.part, each.pitch, each.onset, each.end) for each in read_notes(score).notes]


def test_notes_that_begin_in_the_span_go_with_their_ends_and_all_else_stays() -> None:
    others = [
        (500, b"\xb0\x07\x50"),
        (500, b"\xe0\x00\x50"),
        (500, b"\xa0\x3c\x50"),
        (500, b"\xff\x06\x01A"),
        (500, tempo(400_000)),
        program(500, 0),
    ]
    before = song((*note(0, 479), *note(480, 700), *note(900, 1200, 64), *note(960, 1440, 67), *others))
    edited = replace_span(before, 480, 960, None, [])
    assert changes(before, edited) == [
        ("-", 0, 480, b"\x90\x3c\x64"),
        ("-", 0, 700, b"\x80\x3c\x00"),
        ("-", 0, 900, b"\x90\x40\x64"),
        ("-", 0, 1200, b"\x80\x40\x00"),
    ]
    assert (edited.removed, edited.added) == (2, 0)


def test_a_note_on_of_no_velocity_ends_a_note_and_goes_with_it() -> None:
    before = song(((480, b"\x90\x3c\x64"), (960, b"\x90\x3c\x00"), *note(960, 1440)))
    assert changes(before, replace_span(before, 480, 960, None, [])) == [
        ("-", 0, 480, b"\x90\x3c\x64"),
        ("-", 0, 960, b"\x90\x3c\x00"),
    ]


def test_a_note_that_sounds_into_the_span_is_kept_whole() -> None:
    before = song(note(0, 900))
    edited = replace_span(before, 480, 960, None, [new(480, pitch=64)])
    assert sounding(edited.score) == [(0, 0, 0, 60, 0, 900), (0, 0, 0, 64, 480, 960)]


def test_of_overlapping_notes_of_a_pitch_the_one_that_began_in_the_span_goes() -> None:
    before = song((*note(0, 600), *note(480, 1200)))  # the first off ends the first on
    assert sounding(replace_span(before, 480, 960, None, []).score) == [(0, 0, 0, 60, 0, 600)]
    assert sounding(replace_span(before, 0, 480, None, []).score) == [(0, 0, 0, 60, 480, 1200)]


def test_a_note_that_never_ends_goes_alone() -> None:
    before = song(((0, b"\x90\x3c\x64"), *note(0, 480, 64)))
    assert changes(before, replace_span(before, 0, 1, parts_named(before, "track 1"), [])) == [
        ("-", 0, 0, b"\x90\x3c\x64"),
        ("-", 0, 0, b"\x90\x40\x64"),
        ("-", 0, 480, b"\x80\x40\x00"),
    ]


def test_new_notes_stand_in_the_track_and_channel_of_their_program() -> None:
    before = song((program(0, 33, 4), *note(0, 480, 40, 4)), (program(0, 48, 2), *note(0, 480, 60, 2)))
    edited = replace_span(before, 960, None, None, [new(960, program=48, pitch=61, velocity=77)])
    assert changes(before, edited) == [
        ("-", 1, 480, b"\xff\x2f\x00"),
        ("+", 1, 960, b"\x92\x3d\x4d"),
        ("+", 1, 1440, b"\x82\x3d\x40"),
        ("+", 1, 1440, b"\xff\x2f\x00"),
    ]


def test_of_several_tracks_the_one_that_plays_near_gets_the_note() -> None:
    before = song(note(0, 480, 72, 0), note(0, 480, 48, 1))
    edited = replace_span(before, 960, None, None, [new(960, pitch=70), new(960, pitch=50)])
    assert sounding(edited.score)[2:] == [(0, 0, 0, 70, 960, 1440), (1, 1, 0, 50, 960, 1440)]
    low = parts_named(before, "track 2")
    edited = replace_span(before, 960, None, low, [new(960, pitch=70)])
    assert sounding(edited.score)[2:] == [(1, 1, 0, 70, 960, 1440)]


def test_drums_go_to_the_track_that_strikes_that_drum() -> None:
    before = song(note(0, 480, 36, 9), note(0, 480, 42, 9))
    edited = replace_span(before, 960, None, None, [new(960, program=128, pitch=42), new(960, program=128, pitch=36)])
    assert [each[:4] for each in sounding(edited.score)[2:]] == [(0, 9, 128, 36), (1, 9, 128, 42)]


def test_a_new_program_gets_a_named_track_and_a_channel_without_events() -> None:
    before = song((pedal(0, 0, 1), *note(0, 480)))  # channel 1 is set up, though nothing plays there
    edited = replace_span(before, 480, None, None, [new(480, program=33, pitch=40), new(960, program=33, pitch=40)])
    assert list(edited.score.tracks[1]) == [
        (0, b"\xff\x03\x16Electric Bass (finger)"),
        (480, b"\xc2\x21"),
        (480, b"\x92\x28\x5a"),
        (960, b"\x82\x28\x40"),
        (960, b"\x92\x28\x5a"),
        (1440, b"\x82\x28\x40"),
        (1440, b"\xff\x2f\x00"),
    ]
    assert edited.score.tracks[0] == before.tracks[0]


def test_new_drums_are_on_channel_10() -> None:
    edited = replace_span(song(note(0, 480)), 0, None, None, [new(0, program=128, pitch=36)])
    assert sounding(edited.score) == [(1, 9, 128, 36, 0, 480)]


def test_in_a_file_of_type_0_all_stays_in_its_one_track() -> None:
    before = song((program(0, 33, 4), *note(0, 480, 40, 4), *note(0, 480, 36, 9), *note(480, 960, 40, 4)), form=0)
    edited = replace_tracks(before, "bass", [new(480, program=33, pitch=43), new(480, program=0, pitch=60)], start=480)
    assert edited.score.form == 0
    assert len(edited.score.tracks) == 1
    assert sorted(sounding(edited.score)) == [
        (0, 0, 0, 60, 480, 960),
        (0, 4, 33, 40, 0, 480),
        (0, 4, 33, 43, 480, 960),
        (0, 9, 128, 36, 0, 480),
    ]
    assert (480, b"\xc0\x00") in edited.score.tracks[0]


def test_a_note_is_of_the_program_in_force_when_it_begins() -> None:
    before = song((program(0, 5), *note(0, 1000), program(480, 6), *note(960, 1440, 62), program(1440, 5)))
    assert [each[2] for each in sounding(before)] == [5, 6]
    edited = replace_span(before, 0, 2000, parts_named(before, "track 1") - {Part(0, 0, 6)}, [])
    assert sounding(edited.score) == [(0, 0, 6, 62, 960, 1440)]
    fives = [new(0, 100, program=5, pitch=70), new(960, 100, program=5, pitch=70), new(1440, 100, program=5, pitch=70)]
    edited = replace_span(before, 0, 2000, None, fives)
    # At 960 channel 0 is another instrument, so a channel is found where program 5 is in force.
    assert [each[:3] for each in sounding(edited.score)] == [(0, 0, 5), (1, 1, 5), (0, 0, 5)]


def test_program_changes_count_for_their_channel_in_all_tracks() -> None:
    before = song((program(0, 40, 3),), note(0, 480, 60, 3))
    assert sounding(before) == [(1, 3, 40, 60, 0, 480)]


def port(number: int) -> tuple[int, bytes]:
    return 0, bytes((0xFF, 0x21, 1, number))


def test_ports_have_channels_of_their_own() -> None:
    first = (port(0), program(0, 68, 3), pedal(0, 127, 3), *note(0, 480, 70, 3))
    second = (port(1), program(0, 40, 3), *note(0, 480, 60, 3), *note(0, 480, 36, 9))
    before = song(first, second)
    assert [each[1:3] for each in sounding(before)] == [(3, 68), (19, 40), (25, 128)]
    assert {part.track for part in parts_named(before, "oboe")} == {0}
    edited = replace_span(before, 480, None, None, [new(480, program=40), new(480, program=128), new(480, program=68)])
    assert sorted(sounding(edited.score)[3:]) == [
        (0, 3, 68, 60, 480, 960),
        (1, 19, 40, 60, 480, 960),
        (1, 25, 128, 60, 480, 960),
    ]
    # The pedal is the oboe's alone, on the first port.
    assert [each for each in changes(before, edited) if each[3][0] & 0xF0 == 0xB0] == [("+", 0, 480, b"\xb3\x40\x00")]


def test_a_new_program_finds_a_channel_on_any_port_of_the_file() -> None:
    before = song(everywhere(), (port(2), *note(0, 480, 60, 0)))
    edited = replace_span(before, 480, None, None, [new(480, program=90)])
    assert list(edited.score.tracks[2][1:3]) == [(0, b"\xff\x21\x01\x02"), (480, b"\xc1\x5a")]
    assert sounding(edited.score)[-1][:3] == (2, 33, 90)


def everywhere(but: int | None = None) -> tuple:
    """A note on every channel but the drums' and one, each with a program of its own."""
    channels = [channel for channel in range(16) if channel not in (9, but)]
    return tuple(event for c in channels for event in (program(0, c, c), *note(0, 480, 60, c)))


def test_without_a_free_channel_a_sentence_says_so() -> None:
    one_left = song(everywhere(but=7))
    assert sounding(replace_span(one_left, 480, None, None, [new(480, program=90)]).score)[-1][:3] == (1, 7, 90)
    full = song(everywhere())
    with pytest.raises(UserError, match=r"^song\.mid: has no channel left for Pad 3 \(polysynth\), all are in use"):
        replace_span(full, 480, None, None, [new(480, program=90)])
    with pytest.raises(UserError, match="no channel left"):
        replace_span(one_left, 480, None, None, [new(480, program=90), new(480, program=91)])
    assert sounding(replace_span(full, 480, None, None, [new(480, program=128, pitch=36)]).score)[-1][:3] == (1, 9, 128)


def test_a_channel_is_free_again_where_all_its_notes_went() -> None:
    full = song(everywhere())
    edited = replace_span(full, 0, None, frozenset({Part(0, 3, 3)}), [new(0, program=90)])
    assert sounding(edited.score)[-1][:3] == (1, 3, 90)
    # But not where its program changes later on, and not where new notes want that program itself.
    busy = song((*everywhere(), program(960, 5, 3)))
    with pytest.raises(UserError, match="no channel left"):
        replace_span(busy, 0, None, frozenset({Part(0, 3, 3)}), [new(0, program=90)])
    with pytest.raises(UserError, match="no channel left"):
        replace_span(full, 0, None, frozenset({Part(0, 3, 3)}), [new(0, program=90), new(0, program=3)])


@pytest.mark.parametrize(
    ("on", "length", "expected", "counts"),
    [
        pytest.param(480, 480, (480, 960), (0, 0, 0), id="ends where the next begins"),
        pytest.param(480, 600, (480, 960), (0, 1, 0), id="is ended where the next begins"),
        pytest.param(380, 400, (400, 780), (1, 0, 0), id="begins where the one before ends"),
        pytest.param(300, 200, (400, 500), (1, 0, 0), id="half of it is left"),
        pytest.param(300, 190, None, (0, 0, 1), id="less than half of it is left"),
        pytest.param(960, 100, None, (0, 0, 1), id="struck already"),
    ],
)
def test_a_pitch_sounds_once_on_a_channel(on: int, length: int, expected: tuple | None, counts: tuple) -> None:
    before = song((*note(0, 400), *note(960, 1440)))
    edited = replace_span(before, 0, None, frozenset(), [new(on, length)])
    kept = [(0, 0, 0, 60, 0, 400), (0, 0, 0, 60, 960, 1440)]
    added = [] if expected is None else [(0, 0, 0, 60, *expected)]
    assert sounding(edited.score) == sorted(kept + added, key=lambda each: each[4])
    assert (edited.moved, edited.shortened, edited.omitted) == counts


def test_a_note_that_would_have_to_wait_until_behind_the_span_is_omitted() -> None:
    before = song(note(0, 480))
    waits = replace_span(before, 240, 481, None, [new(470, 100)])
    assert sounding(waits.score)[1:] == [(0, 0, 0, 60, 480, 570)]
    assert replace_span(before, 240, 480, None, [new(470, 100)]) == Edited(before, 0, 0, 0, 0, 1)


def test_new_notes_of_a_pitch_end_each_other() -> None:
    before = song(note(0, 480, 72))
    notes = [new(960, 480), new(960, 960), new(1200, 480)]
    edited = replace_span(before, 960, None, None, notes)
    assert sounding(edited.score)[1:] == [(0, 0, 0, 60, 960, 1200), (0, 0, 0, 60, 1200, 1680)]
    assert (edited.added, edited.shortened, edited.omitted) == (2, 1, 1)


def test_another_track_on_the_channel_keeps_its_notes_too() -> None:
    before = song(note(0, 480, 72), (*note(960, 1440, 60), *note(1920, 2400, 84)))  # both on channel 0
    edited = replace_span(before, 480, None, frozenset({Part(0, 0, 0)}), [new(480, 900, pitch=60)])
    # A tick before the other track's note: which of two tracks comes first within a tick is for the player to say.
    assert (0, 0, 0, 60, 480, 959) in sounding(edited.score)
    assert (1, 0, 0, 60, 960, 1440) in sounding(edited.score)


def test_an_off_that_ends_nothing_ends_a_new_note() -> None:
    before = song((*note(0, 480, 72), (960, b"\x80\x3c\x00")))
    edited = replace_span(before, 480, None, None, [new(720, 480)])
    assert sounding(edited.score)[1:] == [(0, 0, 0, 60, 720, 960)]
    assert (960, b"\x80\x3c\x00") in edited.score.tracks[0]


def test_a_pedal_across_the_border_is_left_to_the_file() -> None:
    before = song((pedal(240, 127), pedal(720, 0), *note(0, 480), *note(480, 960)))
    edited = replace_span(before, 480, None, None, [new(480, pitch=62)])
    assert not [c for c in event_diff(before, edited.score) if c.message[0] & 0xF0 == 0xB0]


def test_a_pedal_that_is_never_lifted_is_lifted_for_new_notes() -> None:
    before = song((pedal(240, 127), *note(0, 480)))
    edited = replace_span(before, 480, None, None, [new(720, pitch=62), new(960, pitch=64)])
    assert [c for c in event_diff(before, edited.score) if c.message[0] & 0xF0 == 0xB0] == [
        Change(0, 720, b"\xb0\x40\x00", True)
    ]
    order = [message[0] for tick, message in edited.score.tracks[0] if tick == 720]
    assert order == [0xB0, 0x90]
    # Notes of the file's that follow were played with the pedal down.
    before = song((pedal(240, 127), *note(0, 480), *note(1920, 2400)))
    edited = replace_span(before, 480, 960, None, [new(480, pitch=62)])
    assert not [c for c in event_diff(before, edited.score) if c.message[0] & 0xF0 == 0xB0]


def test_within_a_tick_offs_come_first_and_ons_last() -> None:
    before = song((*note(0, 480), (960, b"\xb0\x07\x50"), *note(1440, 1920, 62)))
    edited = replace_span(before, 480, 1440, None, [new(480), new(960)])
    at = [message for tick, message in edited.score.tracks[0] if tick == 960]
    assert at == [b"\x80\x3c\x40", b"\xb0\x07\x50", b"\x90\x3c\x5a"]


def test_the_end_of_a_track_is_behind_its_notes_and_what_was_behind_it_stays_there() -> None:
    before = song((*note(0, 480),))
    late = before.tracks[0] + ((500, b"\xff\x01\x02hi"),)
    before = Score("song.mid", 1, BEAT, (tuple(type(before.tracks[0][0])(*event) for event in late),))
    edited = replace_span(before, 480, None, None, [new(480)])
    assert [tuple(event) for event in edited.score.tracks[0][-3:]] == [
        (960, b"\x80\x3c\x40"),
        (960, b"\xff\x2f\x00"),
        (960, b"\xff\x01\x02hi"),
    ]


def test_onsets_outside_of_the_span_are_a_fault_of_the_caller_but_for_rounding() -> None:
    before = song(note(0, 480, 72))
    edited = replace_span(before, 480, 960, None, [NewNote(0.495, 0.1, 0, 60, 90), NewNote(1.0, 0.1, 0, 62, 90)])
    assert [each[4] for each in sounding(edited.score)[1:]] == [480, 959]
    for onset in (0.4, 1.1):
        with pytest.raises(ValueError, match=r"outside of the span, 0\.5 s to 1\.0 s"):
            replace_span(before, 480, 960, None, [NewNote(onset, 0.1, 0, 60, 90)])
    for wrong in ({"pitch": 128}, {"velocity": 0}, {"program": 129}, {"duration": -1}):
        with pytest.raises(ValueError, match="a number that MIDI has not"):
            replace_span(before, 480, 960, None, [NewNote(0.5, 0.1, 0, 60, 90)._replace(**wrong)])


def test_seconds_are_the_files_own() -> None:
    before = song(((0, tempo(500_000)), (480, tempo(1_000_000)), *note(0, 480, 72)))
    edited = replace_span(before, 480, None, None, [NewNote(1.0, 0.25, 0, 60, 90)])
    assert sounding(edited.score)[1:] == [(0, 0, 0, 60, 720, 840)]


@pytest.mark.parametrize(("strength", "tick"), [(0, 500), (0.5, 490), (1, 480)])
def test_onsets_move_to_the_grid_as_far_as_asked_and_keep_their_length(strength: float, tick: int) -> None:
    before = song(note(0, 240, 72))
    edited = replace_span(before, 240, None, None, [new(500, 100)], grid=Grid((2,)), strength=strength)
    assert sounding(edited.score)[1:] == [(0, 0, 0, 60, tick, tick + 100)]


def test_the_grid_is_counted_from_bar_lines_and_does_not_leave_the_span() -> None:
    before = song(((0, meter(7, 16)), *note(0, 100, 72)))  # bars of 840 ticks
    grid = grid_named("1/8+1/8t")
    line = bar_map(before)
    # Eighths are at 840, 1080 ...; triplets at 840, 1000, 1160 ...; the next bar line is at 1680.
    for tick, point in ((850, 840), (1030, 1000), (1050, 1080), (1130, 1160), (1660, 1640), (1661, 1680)):
        assert grid.nearest(tick, line, BEAT) == point
    edited = replace_span(before, 850, 1670, None, [new(860, 50), new(990, 50), new(1661, 50)], grid=grid)
    assert [each[4] for each in sounding(edited.score)[1:]] == [860, 1000, 1661]


def test_keep_replace_and_add() -> None:
    bass = new(960, program=33, pitch=40)
    kept = keep_tracks(BAND, "piano", [bass])
    assert [each[2] for each in sounding(kept.score)] == [0, 0, 33]
    assert kept.removed == 3
    replaced = replace_tracks(BAND, "drums, choir", [new(480, program=128, pitch=38)], start=0, end=960)
    assert sorted(each[2] for each in sounding(replaced.score)) == [0, 0, 35, 128]
    assert sounding(replaced.score)[-1][:2] == (4, 9)
    added = add_tracks(BAND, "bass", [bass])
    assert (added.removed, added.added, len(sounding(added.score))) == (0, 1, 6)
    with pytest.raises(ValueError, match="'drums' was asked for, but a note is of program 33"):
        add_tracks(BAND, "drums", [bass])


def test_places_lead_to_edits() -> None:
    begin, end = bars(BAND, "1")
    assert replace_span(BAND, begin, end, None, []).removed == 5
    assert replace_span(BAND, *span(BAND, "0.5s", "1s"), None, []).removed == 0
