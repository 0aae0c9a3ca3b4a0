"""Other programs and other tempos for a span, by program changes and tempo events; behind it all is as it was."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from midillm_jax.errors import UserError
from midillm_jax.music.clock import tempo_map
from midillm_jax.music.edit_plan import TEMPO_BOUNDS, Amount
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.parts import Part, ScoreNote, ScoreNotes, is_drums
from midillm_jax.music.placement import merged
from midillm_jax.music.score import END_OF_TRACK, PROGRAM_CHANGE, SET_TEMPO, Event, Score, Track, meta, meta_data
from midillm_jax.music.terms import listed


class Rewriting:
    """Collects what becomes of a score's events, and gives the score with it."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self._messages: dict[int, dict[int, bytes]] = defaultdict(dict)
        self._dropped: dict[int, set[int]] = defaultdict(set)
        self._new: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
        self._set_up: dict[int, list[Event]] = defaultdict(list)

    def replace(self, track: int, index: int, message: bytes) -> None:
        """Another message for an event, at its time."""
        self._messages[track][index] = message

    def drop(self, track: int, *indices: int | None) -> None:
        """Events to take out; None is none."""
        self._dropped[track].update(index for index in indices if index is not None)

    def add(self, track: int, tick: int, message: bytes, order: int) -> None:
        """A new event; the order within its tick is one of ``placement.py``'s."""
        self._new[track].append((tick, order, message))

    def set_up(self, track: int, tick: int, message: bytes) -> None:
        """A new event before what sounds at its tick, but behind what is said there of the file and the track."""
        self._set_up[track].append(Event(tick, message))

    def score(self) -> Score:
        """The score with all that was asked for."""
        tracks = list(self._score.tracks)
        for track, messages in self._messages.items():
            events = list(tracks[track])
            for index, message in messages.items():
                events[index] = events[index]._replace(message=message)
            tracks[track] = tuple(events)
        tracks = [merged(track, self._dropped[number], self._new[number]) for number, track in enumerate(tracks)]
        for track, setups in self._set_up.items():
            for setup in setups:
                tracks[track] = _with_setup(tracks[track], setup)
        return dataclasses.replace(self._score, tracks=tuple(tracks))


def _with_setup(track: Track, setup: Event) -> Track:
    def is_behind(event: Event) -> bool:
        is_of_channel = event.message[0] < 0xF0
        return (event.tick, is_of_channel) >= (setup.tick, True) or event.message == END_OF_TRACK

    at = next((index for index, event in enumerate(track) if is_behind(event)), len(track))
    return (*track[:at], setup, *(event._replace(tick=max(event.tick, setup.tick)) for event in track[at:]))


def play_on(score: Score, music: ScoreNotes, start: int, end: int, parts: frozenset[Part], program: int) -> Score:
    """The score with the notes of some parts that begin in a span played on another program.

    A program change of theirs in the span becomes one to the new program. Where theirs was chosen before the span, the
    new one is chosen at its first tick, and where notes follow without a choice of their own, theirs again at its end.

    Raises:
        UserError: other parts' notes sound by the same program change, as several tracks of one channel do.
    """
    rewriting = Rewriting(score)
    for channel in sorted({part.channel for part in parts if not is_drums(part.channel)}):
        notes = [note for note in music.notes if note.part.channel == channel]
        for choice in _choices(score, music, channel, notes):
            chosen = [note for note in choice.notes if start <= note.onset < end]
            ours = [note for note in chosen if note.part in parts]
            if not ours or choice.program == program:
                continue
            if len(ours) < len(chosen):
                sharing = sorted({note.part.track + 1 for note in chosen})
                raise UserError(
                    f"{score.name}: tracks {listed(list(map(str, sharing)))} share channel {channel % 16 + 1}, so that "
                    f"{PROGRAM_NAMES[choice.program]} can only be changed in all of them; name them all"
                )
            message = bytes((PROGRAM_CHANGE | channel % 16, program))
            if choice.event is not None and choice.tick >= start:
                rewriting.replace(*choice.event, message)
            else:
                rewriting.set_up(ours[0].part.track, start, message)
            if after := [note for note in choice.notes if note.onset >= end]:
                message = bytes((PROGRAM_CHANGE | channel % 16, choice.program))
                rewriting.set_up(after[0].part.track, end, message)
    return rewriting.score()


class _Choice(NamedTuple):
    """A program of a channel for as long as it is in force."""

    program: int
    tick: int
    event: tuple[int, int] | None
    """Track, place in it; None for program 0, in force at first."""
    notes: list[ScoreNote]


def _choices(score: Score, music: ScoreNotes, channel: int, notes: list[ScoreNote]) -> Iterator[_Choice]:
    """A channel's programs in the order of time, as players merge tracks; ``notes`` are the channel's."""
    message = PROGRAM_CHANGE | channel % 16
    changes = [
        (event.tick, track, index, event.message[1])
        for track, events in enumerate(score.tracks)
        if music.ports[track] == channel // 16
        for index, event in enumerate(events)
        if event.message[0] == message
    ]
    changes.sort()
    ends = [change[:3] for change in changes] + [(float("inf"), 0, 0)]
    begins = [(-1, 0, 0), *ends]
    programs = [0, *(change[3] for change in changes)]
    for number, program in enumerate(programs):
        tick, track, index = begins[number]
        inside = [note for note in notes if begins[number] < (note.onset, note.part.track, note.on) < ends[number]]
        yield _Choice(program, int(tick), (track, index) if number else None, inside)


def at_tempo(score: Score, start: int, end: int, amount: Amount) -> Score:
    """The score with another tempo in a span: one for all of it, or each of its tempos more or less.

    The tempo at the span's end is set there anew, unless the file does so or ends.

    Raises:
        UserError: a tempo would be one that no file should have.
    """
    tempos, rewriting = tempo_map(score), Rewriting(score)
    found = [
        (track, index, event.tick, int.from_bytes(data[:3], "big"))
        for track, events in enumerate(score.tracks)
        for index, event in enumerate(events)
        if len(data := meta_data(event.message, SET_TEMPO) or b"") >= 3
    ]
    home = found[0][0] if found else 0
    before = [tempo for tick, tempo in zip(tempos.ticks, tempos.tempos, strict=True) if tick <= start][-1]
    for track, index, tick, tempo in found:
        if start <= tick < end and amount.kind == "to":
            rewriting.drop(track, index)
        elif start <= tick < end:
            rewriting.replace(track, index, _tempo(score, tempo, amount))
    if amount.kind == "to" or not any(tick == start for _, _, tick, _ in found):
        rewriting.set_up(home, start, _tempo(score, before, amount))
    if end < score.end_tick() and not any(tick == end for _, _, tick, _ in found):
        after = [tempo for tick, tempo in zip(tempos.ticks, tempos.tempos, strict=True) if tick <= end][-1]
        rewriting.set_up(home, end, meta(SET_TEMPO, after.to_bytes(3, "big")))
    return rewriting.score()


def _tempo(score: Score, microseconds: int, amount: Amount) -> bytes:
    """The tempo event for a tempo (microseconds of a quarter note) after an amount."""
    now = 60e6 / max(microseconds, 1)
    bpm = {"to": amount.value, "by": now + amount.value, "percent": now * amount.value / 100}[amount.kind]
    low, high = TEMPO_BOUNDS
    if not low <= bpm <= high:
        raise UserError(
            f"{score.name}: tempo {amount.text(' bpm')} makes {bpm:.0f} quarter notes a minute out of {now:.0f}; "
            f"keep within {low} and {high}"
        )
    return meta(SET_TEMPO, round(60e6 / bpm).to_bytes(3, "big"))
