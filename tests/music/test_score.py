"""A file's events as they are, its clock, and places in it as people write them. Files are written byte by byte."""

import io

import mido
import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.clock import bar_map, bars, music_end, place, span, tempo_map
from midillm_jax.music.midi import NoteTable, read_midi, write_midi
from midillm_jax.music.score import Change, Event, event_diff, read_score, write_score
from tests.music.files import END, ONE_NOTE, meter, smf, tempo, timed, track

UNKNOWN = b"\xff\x60\x03abc"
ESCAPE = b"\xf7\x02\xf3\x01"


def test_every_kind_of_event_is_kept_as_it_is() -> None:
    messages = [
        b"\xff\x00\x02\x00\x01",
        b"\xff\x03\x05B\xe9la\xff",
        UNKNOWN,
        b"\xff\x51\x04\x07\xa1\x20\x00",  # a tempo of four bytes
        b"\xff\x59\x02\x09\x00",  # a key that does not exist
        b"\xff\x7f\x81\x00" + bytes(128),
        b"\xf0\x03\x7e\x7f\x01",  # the first packet of a longer message, without F7
        ESCAPE,
        b"\xff\x01\x80\x02hi",  # a length that is written longer than it need be
        b"\xb3\x40\x7f",
        b"\xe3\x00\x40",
        b"\xd3\x10",
        b"\xa3\x3c\x20",
        b"\xf2\x01\x02",
        b"\xff\x2f\x00",
        b"\x83\x3c\x00",  # behind the end of the track
    ]
    data = smf(track(*(b"\x83\x60" + message for message in messages)), form=0) + b"XFIHtrailing"
    score = read_score(data)
    assert [event.message for event in score.tracks[0]] == messages
    assert [event.tick for event in score.tracks[0]] == [480 * (i + 1) for i in range(len(messages))]
    assert write_score(score) == data


def test_running_status_is_spelled_out() -> None:
    running = track(b"\x00\x90\x3c\x64\x0a\x3e\x64", b"\x00\xff\x01\x02hi", b"\x83\x60\x3c\x00", END)
    score = read_score(smf(running))
    events = [(0, b"\x90\x3c\x64"), (10, b"\x90\x3e\x64"), (10, b"\xff\x01\x02hi"), (490, b"\x90\x3c\x00")]
    assert list(score.tracks[0][:-1]) == events
    assert read_score(write_score(score)) == score


def test_a_file_that_mido_reads_alike_has_the_same_events() -> None:
    table = NoteTable(*(np.array(column) for column in ([0, 50, 50], [20, 30, 40], [60, 16420, 70], [90, 80, 70])))
    data = write_midi(table)
    for ours, theirs in zip(read_score(data).tracks, mido.MidiFile(file=io.BytesIO(data)).tracks, strict=True):
        ticks = np.cumsum([message.time for message in theirs]).tolist()
        assert [tuple(event) for event in ours] == [
            (tick, bytes(message.bytes())) for tick, message in zip(ticks, theirs, strict=True)
        ]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"RIFF" + smf(ONE_NOTE), "does not begin with a MIDI file's header"),
        (smf(ONE_NOTE)[:13], "does not begin with a MIDI file's header"),
        (b"MThd\x00\x00\x00\x05" + smf(ONE_NOTE)[8:], "header of 5 bytes"),
        (smf(ONE_NOTE, form=2), "is of type 2"),
        (smf(ONE_NOTE, ONE_NOTE, form=0), "2 tracks where one was expected"),
        (smf(ONE_NOTE, division=0xE728), "25 SMPTE frames a second"),
        (smf(ONE_NOTE, division=0), "0 ticks per beat"),
        (smf(ONE_NOTE, count=2), "track 2 of 2: found the end of the file"),
        (smf(b"XFIH\x00\x00\x00\x00", ONE_NOTE), "track 1 of 2: found chunk b'XFIH'"),
        (smf(ONE_NOTE)[:-2], "track 1 of 1: ends 2 bytes behind"),
        (smf(track(b"\x00\x3c\x40")), "no MIDI event at byte 0 of its 3"),
        (smf(track(END, b"\x00\x90\x3c\xc0")), "no MIDI event at byte 4 of its 8"),
        (smf(track(b"\x00\xf0\x01\xf7", b"\x00\x55\x01\xf7")), "no MIDI event at byte 4"),
        (smf(track(b"\x00\xf4")), "no MIDI event at byte 0"),
        (smf(track(b"\x00\xff\x03\x09short")), "no MIDI event at byte 0"),
        (smf(track(END, b"\x80")), "no MIDI event at byte 4"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^my song\.mid: .*{sentence}") as error:
        read_score(data, "my song.mid")
    assert str(error.value).endswith("export it as a MIDI file of type 1")


def test_an_event_that_moves_is_removed_and_added() -> None:
    before = read_score(smf(timed((0, b"\x90\x3c\x64"), (480, b"\x80\x3c\x00")), timed((0, b"\xc1\x05"))))
    after = read_score(smf(timed((0, b"\x90\x3c\x64"), (470, b"\x80\x3c\x00")), timed((0, b"\xc1\x05"))))
    off, end = b"\x80\x3c\x00", b"\xff\x2f\x00"
    assert event_diff(before, before) == []
    assert event_diff(before, after) == [
        *(Change(0, 470, message, True) for message in (off, end)),
        *(Change(0, 480, message, False) for message in (off, end)),
    ]


def test_order_within_a_tick_and_whole_tracks_count() -> None:
    one, two = b"\x90\x3c\x64", b"\x90\x40\x64"
    before = read_score(smf(timed((0, one), (0, two))))
    assert len(event_diff(before, read_score(smf(timed((0, two), (0, one)))))) == 2
    more = read_score(smf(timed((0, one), (0, two)), timed((5, one))))
    assert event_diff(before, more) == [Change(1, 5, one, True), Change(1, 5, b"\xff\x2f\x00", True)]
    assert event_diff(more, before) == [change._replace(added=False) for change in event_diff(before, more)]
    with pytest.raises(ValueError, match="480 and 96"):
        event_diff(before, read_score(smf(ONE_NOTE, division=96)))


def test_seconds_follow_the_tempos_of_all_tracks() -> None:
    # Half a second a beat; from beat 2 on a whole one; from beat 4 on a quarter.
    score = read_score(smf(timed((0, meter(4, 4)), (960, tempo(1_000_000))), timed((1920, tempo(250_000)))))
    clock = tempo_map(score)
    ticks = [0, 480, 960, 1440, 1920, 2400]
    assert [clock.seconds(tick) for tick in ticks] == [0, 0.5, 1, 2, 3, 3.25]
    assert [clock.tick(seconds) for seconds in (0, 0.5, 1, 2, 3, 3.25)] == ticks
    assert clock.tick(1.0009) == 960  # 2.08 ms a tick there
    assert all(clock.tick(clock.seconds(tick)) == tick for tick in range(3000))


def test_of_tempos_at_one_tick_the_last_counts_and_none_at_0_is_120_bpm() -> None:
    score = read_score(smf(timed((480, tempo(250_000))), timed((480, tempo(1_000_000)))))
    assert tempo_map(score).seconds(960) == 1.5


def test_time_that_stands_still_has_a_last_tick() -> None:
    clock = tempo_map(read_score(smf(timed((480, tempo(0)), (960, tempo(500_000))))))
    assert (clock.seconds(480), clock.seconds(960), clock.seconds(1440)) == (0.5, 0.5, 1)
    assert clock.tick(0.5) == 960


def test_seconds_are_those_that_the_tokenizer_hears() -> None:
    data = smf(
        timed((0, tempo(123_457)), (777, tempo(654_321))), timed((700, b"\x90\x3c\x64"), (5000, b"\x80\x3c\x00"))
    )
    table = read_midi(data)
    clock = tempo_map(read_score(data))
    assert round(100 * clock.seconds(700)) == table.onsets[0]
    assert round(100 * (clock.seconds(5000) - clock.seconds(700))) == table.durations[0]


def starts(*meters: tuple[int, bytes], last: int = 8) -> dict[int, int]:
    """Bar -> first tick, of bars that a file with these time signatures has."""
    bar = bar_map(read_score(smf(timed(*meters))))
    assert all(bar.bar(bar.start(n)) == n for n in range(bar.numbers[0], last))
    assert all(bar.bar(bar.start(n) - 1) == n - 1 for n in range(bar.numbers[0] + 1, last))
    return {n: bar.start(n) for n in range(bar.numbers[0], last)}


def test_bars_are_of_four_beats_unless_said() -> None:
    assert starts(last=4) == {1: 0, 2: 1920, 3: 3840}


def test_bars_follow_their_meters() -> None:
    changes = (0, meter(3, 4)), (2880, meter(6, 8)), (4320, meter(7, 16)), (5160, meter(2, 2))
    assert starts(*changes, last=7) == {1: 0, 2: 1440, 3: 2880, 4: 4320, 5: 5160, 6: 7080}


def test_a_meter_begins_a_bar_even_in_the_middle_of_one() -> None:
    assert starts((0, meter(4, 4)), (2400, meter(3, 4)), last=5) == {1: 0, 2: 1920, 3: 2400, 4: 3840}


def test_a_meter_said_again_changes_nothing() -> None:
    assert starts((0, meter(4, 4)), (2400, meter(4, 4)), last=4) == {1: 0, 2: 1920, 3: 3840}


@pytest.mark.parametrize(
    "pickup",
    [
        pytest.param(((0, meter(1, 4)), (480, meter(4, 4))), id="a short first bar"),
        pytest.param(((0, meter(4, 4)), (480, meter(3, 4))), id="a first bar cut short"),
    ],
)
def test_a_pickup_is_bar_0(pickup: tuple[tuple[int, bytes], ...]) -> None:
    assert list(starts(*pickup, last=2).items()) == [(0, 0), (1, 480)]


def test_two_bars_of_a_shorter_meter_are_no_pickup() -> None:
    assert starts((0, meter(1, 4)), (960, meter(4, 4)), last=4) == {1: 0, 2: 480, 3: 960}


def test_a_first_bar_that_is_not_shorter_than_the_next_is_no_pickup() -> None:
    assert starts((0, meter(4, 4)), (1920, meter(3, 4)), last=4) == {1: 0, 2: 1920, 3: 3360}
    assert starts((0, meter(6, 8)), (1440, meter(3, 4)), last=4) == {1: 0, 2: 1440, 3: 2880}


def test_bars_that_are_not_whole_ticks_do_not_drift() -> None:
    bar = bar_map(read_score(smf(timed((0, meter(5, 32))), division=1)))  # 0.625 ticks, but never less than one
    assert [bar.start(n) for n in (1, 2, 3)] == [0, 1, 2]
    bar = bar_map(read_score(smf(timed((0, meter(5, 16))), division=10)))  # 12.5 ticks
    assert [bar.start(n) for n in (1, 2, 3, 4, 81)] == [0, 12, 25, 38, 1000]
    assert [bar.bar(tick) for tick in (11, 12, 24, 25, 37, 38, 999, 1000)] == [1, 2, 2, 3, 3, 4, 80, 81]


SONG = read_score(smf(timed((0, meter(4, 4)), (0, tempo(500_000)), (8 * 1920 - 100, b"\x80\x3c\x00"))), "song.mid")
"""Eight bars of two seconds; its last event is in the eighth."""


@pytest.mark.parametrize(
    ("text", "tick"),
    [
        ("0s", 0),
        ("3s", 2880),
        (" 1.5 S ", 1440),
        (".5s", 480),
        ("2 seconds", 1920),
        ("0:03", 2880),
        ("0:03.5", 3360),
        ("bar 1", 0),
        ("Bar 8", 7 * 1920),
        ("bar9", 8 * 1920),
        ("16s", 8 * 1920),
    ],
)
def test_places(text: str, tick: int) -> None:
    assert place(SONG, text) == tick


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("30", "'30' is no place; write seconds"),
        ("", "'' is no place"),
        ("-3s", "is no place"),
        ("0:75", "is no place"),
        ("beat 3", "is no place"),
        ("bar 0", "names bar 0, but the first is bar 1"),
        ("bar 10", "beyond its end; it has bars 1 to 8, which take 16.0 seconds"),
        ("16.1s", "beyond its end"),
        ("99999999999:00", "beyond its end"),
    ],
)
def test_places_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^song\.mid: .*{sentence}"):
        place(SONG, text)


def test_spans() -> None:
    assert span(SONG, "2s", "bar 3") == (1920, 3840)
    assert bars(SONG, "2-3") == bars(SONG, "bars 2 \u2013 3") == (1920, 5760)
    assert bars(SONG, "8") == (7 * 1920, 8 * 1920)
    assert music_end(SONG) == 8 * 1920


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: span(SONG, "3s", "2s"), "between '3s' and '2s' is nothing"),
        (lambda: span(SONG, "2s", "bar 2"), "is nothing"),
        (lambda: bars(SONG, "9-16"), "'9-16' is beyond its end"),
        (lambda: bars(SONG, "7-9"), "beyond its end"),
        (lambda: bars(SONG, "3-2"), "end before they begin"),
        (lambda: bars(SONG, "two"), "names no bars"),
        (lambda: bars(SONG, "0-2"), "the first is bar 1"),
    ],
)
def test_spans_that_are_none(call, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^song\.mid: .*{sentence}"):
        call()


def test_a_file_that_ends_on_a_bar_line_ends_with_the_bar_before() -> None:
    score = read_score(smf(timed((1920, b"\x80\x3c\x00"))))
    assert music_end(score) == 1920
    assert music_end(read_score(smf(timed()))) == 1920  # nothing at all: one bar
    assert score.tracks[0][-1] == Event(1920, b"\xff\x2f\x00")
