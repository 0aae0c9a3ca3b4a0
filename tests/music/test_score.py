"""A file's events as they are, its clock, and places in it as people write them. Files are written byte by byte."""

import io

import mido
import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable, write_midi
from midillm_jax.music.score import Change, event_diff, read_score, write_score
from tests.music.files import END, ONE_NOTE, smf, timed, track

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
