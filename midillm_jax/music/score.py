"""A Standard MIDI File as its events, so that a file can be edited and all that was not edited stays as it was.

``midi.py`` reads a file as the published checkpoints' tokenizer does; this module reads it as its owner's. mido is not
used, as it does not keep all of a file: an unknown meta event loses its delta time, an F7 packet comes back as F0, a
tempo of more than three bytes is shortened, a key that does not exist is refused.

Source: Standard MIDI Files 1.0 (MMA, RP-001).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from midillm_jax.errors import UserError

END_OF_TRACK = b"\xff\x2f\x00"
NOTE_OFF, NOTE_ON, CONTROL_CHANGE, PROGRAM_CHANGE = 0x80, 0x90, 0xB0, 0xC0
META, TRACK_NAME, PORT, SET_TEMPO, TIME_SIGNATURE = 0xFF, 0x03, 0x21, 0x51, 0x58
_DATA_BYTES = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1, 0xF6: 0, 0xF8: 0, 0xFA: 0, 0xFB: 0, 0xFC: 0, 0xFE: 0}
_SAVE_AGAIN = "open it in a sequencer or notation program and export it as a MIDI file of type 1"


class Event(NamedTuple):
    """What stands in a track at a time."""

    tick: int
    """Since the beginning of the file."""
    message: bytes
    """As in the file, its status byte always given; of meta and system exclusive events the length too."""


Track = tuple[Event, ...]


@dataclasses.dataclass(frozen=True)
class Score:
    """A file of type 0 or 1."""

    name: str
    """What errors call it."""
    form: int
    """0: all in one track; 1: tracks that sound together."""
    ticks_per_beat: int
    """Ticks of a quarter note, 1..32767."""
    tracks: tuple[Track, ...]
    """Ticks do not decrease within a track."""
    trailing: bytes = b""
    """What stands behind the last track, such as chunks of a maker's own."""

    def end_tick(self) -> int:
        """When the last event of any track is due."""
        return max((track[-1].tick for track in self.tracks if track), default=0)


def read_score(data: bytes, name: str = "the file") -> Score:
    """The score of a file's bytes.

    Raises:
        UserError: the bytes are no MIDI file of type 0 or 1, are damaged, or count SMPTE frames instead of beats.
    """
    if data[:4] != b"MThd" or len(data) < 14:
        raise UserError(f"{name}: does not begin with a MIDI file's header (MThd); {_SAVE_AGAIN}")
    length = int.from_bytes(data[4:8], "big")
    form, count, division = (int.from_bytes(data[at : at + 2], "big") for at in (8, 10, 12))
    if length < 6 or form > 1:
        found = f"is of type {form}" if length >= 6 else f"has a header of {length} bytes instead of 6"
        raise UserError(f"{name}: {found}; only types 0 and 1 can be edited: {_SAVE_AGAIN}")
    if division == 0 or division >= 0x8000:
        found = "0 ticks per beat" if division == 0 else f"{256 - (division >> 8)} SMPTE frames a second"
        raise UserError(f"{name}: its clock counts {found}, not ticks per beat, so it has no bars; {_SAVE_AGAIN}")
    if form == 0 and count != 1:
        raise UserError(f"{name}: is of type 0 but has {count} tracks where one was expected; {_SAVE_AGAIN}")
    at = 8 + length
    tracks: list[Track] = []
    for number in range(1, count + 1):
        where = f"{name}: track {number} of {count}"
        if data[at : at + 4] != b"MTrk":
            found = f"chunk {data[at : at + 4]!r}" if data[at:] else "the end of the file"
            raise UserError(f"{where}: found {found} at byte {at}, expected MTrk; {_SAVE_AGAIN}")
        begin, length = at + 8, int.from_bytes(data[at + 4 : at + 8], "big")
        at = begin + length
        if at > len(data):
            raise UserError(f"{where}: ends {at - len(data)} bytes behind the end of the file; {_SAVE_AGAIN}")
        tracks.append(tuple(_events(data[begin:at], where)))
    return Score(name, form, division, tuple(tracks), data[at:])


def _events(body: bytes, where: str) -> Iterator[Event]:
    """The events of a track chunk. Running status lasts across meta events, as many programs write it."""
    at = tick = running = 0
    while at < len(body):
        begin = at
        try:
            delta, at = _number(body, at)
            tick += delta
            status = body[at] if body[at] >= 0x80 else running
            at += body[at] >= 0x80
            if status != META:
                running = status if status < 0xF0 else 0
            end = _end(body, at, status)
        except (IndexError, KeyError):
            raise UserError(
                f"{where} holds no MIDI event at byte {begin} of its {len(body)}, where one was expected; {_SAVE_AGAIN}"
            ) from None
        yield Event(tick, bytes((status,)) + body[at:end])
        at = end


def _end(body: bytes, at: int, status: int) -> int:
    """Where the message ends whose data begin at ``at``; IndexError or KeyError where there is none."""
    if status in (META, 0xF0, 0xF7):
        length, at = _number(body, at + (status == META))
        end = at + length
    else:
        end = at + (_SYSTEM_DATA_BYTES[status] if status >= 0xF0 else _DATA_BYTES[status & 0xF0])
        if not body[at:end].isascii():  # data bytes are below 0x80
            raise IndexError(at)
    if end > len(body):
        raise IndexError(end)
    return end


def _number(body: bytes, at: int) -> tuple[int, int]:
    """A variable-length number, and where it ends."""
    value = 0
    while True:
        byte = body[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            return value, at


def variable_length(value: int) -> bytes:
    """A number of at least 0 as MIDI files write delta times and lengths."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def write_score(score: Score) -> bytes:
    """The file of a score. Reading it gives the same score; every event has its status byte, none is running."""
    header = b"".join(value.to_bytes(2, "big") for value in (score.form, len(score.tracks), score.ticks_per_beat))
    chunks = [b"MThd\x00\x00\x00\x06" + header]
    for track in score.tracks:
        ticks = [0, *(event.tick for event in track)]
        deltas = (variable_length(after - before) for before, after in itertools.pairwise(ticks))
        body = b"".join(delta + event.message for delta, event in zip(deltas, track, strict=True))
        chunks.append(b"MTrk" + len(body).to_bytes(4, "big") + body)
    return b"".join(chunks) + score.trailing


def meta(kind: int, data: bytes) -> bytes:
    """The message of a meta event."""
    return bytes((META, kind)) + variable_length(len(data)) + data


def meta_data(message: bytes, kind: int) -> bytes | None:
    """What a meta event of that kind holds; None for any other message."""
    if message[0] != META or message[1] != kind:
        return None
    length, at = _number(message, 2)
    return message[at : at + length]


class Change(NamedTuple):
    """An event that one of two scores has and the other has not."""

    track: int
    """From 0."""
    tick: int
    message: bytes
    added: bool
    """Else removed."""


def event_diff(before: Score, after: Score) -> list[Change]:
    """What was added and removed, track by track, in the order of ticks; empty if all events are the same.

    Within a tick the order of events counts, as it does to a synthesizer. Tracks are compared by their number; where
    one score has more, the other's are empty.

    Raises:
        ValueError: the ticks of the two are not of the same length.
    """
    if before.ticks_per_beat != after.ticks_per_beat:
        raise ValueError(f"{before.ticks_per_beat} and {after.ticks_per_beat} ticks per beat cannot be compared")
    changes: list[Change] = []
    for number, (old, new) in enumerate(itertools.zip_longest(before.tracks, after.tracks, fillvalue=())):
        old_at, new_at = _by_tick(old), _by_tick(new)
        for tick in sorted(old_at.keys() | new_at.keys()):
            was, is_ = old_at.get(tick, []), new_at.get(tick, [])
            if was != is_:
                changes += _changes(number, tick, was, is_)
    return changes


def _by_tick(track: Sequence[Event]) -> dict[int, list[bytes]]:
    messages: dict[int, list[bytes]] = {}
    for tick, message in track:
        messages.setdefault(tick, []).append(message)
    return messages


def _changes(track: int, tick: int, was: list[bytes], is_: list[bytes]) -> Iterator[Change]:
    """The fewest removals and additions that make one list of messages the other."""
    # common[i][k]: messages that was[i:] and is_[k:] have in common, in order.
    common = [[0] * (len(is_) + 1) for _ in range(len(was) + 1)]
    for i, k in itertools.product(reversed(range(len(was))), reversed(range(len(is_)))):
        same = was[i] == is_[k]
        common[i][k] = common[i + 1][k + 1] + 1 if same else max(common[i + 1][k], common[i][k + 1])
    i = k = 0
    while i < len(was) or k < len(is_):
        if i < len(was) and k < len(is_) and was[i] == is_[k]:
            i, k = i + 1, k + 1
        elif k == len(is_) or (i < len(was) and common[i + 1][k] >= common[i][k + 1]):
            yield Change(track, tick, was[i], False)
            i += 1
        else:
            yield Change(track, tick, is_[k], True)
            k += 1
