"""Where new notes go in a score: which track and channel, beside which of its own notes. ``edit.py`` says the rules."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

from midillm_jax.errors import UserError
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.midi import DRUM_CHANNEL, NOTE_OFF_VELOCITY
from midillm_jax.music.parts import Part, ScoreNote, ScoreNotes, is_drums
from midillm_jax.music.score import (
    CONTROL_CHANGE,
    END_OF_TRACK,
    NOTE_OFF,
    NOTE_ON,
    PORT,
    PROGRAM_CHANGE,
    TRACK_NAME,
    Event,
    Score,
    Track,
    meta,
)
from midillm_jax.music.vocab import DRUM_PROGRAM

_SUSTAIN, _PEDAL_DOWN = 0x40, 64
OFFS, OWN, SETUP, ONS = range(4)
"""Order within a tick: new note-offs, the file's own events, what new notes need, new note-ons."""
_NEVER = float("inf")


@dataclasses.dataclass
class TimedNote:
    """A new note in ticks, as long as there is room for it."""

    on: int
    off: int
    program: int
    pitch: int
    velocity: int
    shortened: bool = False


class Placement:
    """Takes new notes in the order in which they begin, and gives the score with them."""

    def __init__(
        self,
        score: Score,
        music: ScoreNotes,
        removed: list[ScoreNote],
        preferred: frozenset[Part],
        programs: set[int],
        end: float,
    ) -> None:
        """``preferred`` parts get notes before others of their program; ``programs`` are all that will be asked for.

        No note begins at ``end`` or later.
        """
        self._score, self._preferred, self._programs, self._end = score, preferred, programs, end
        self._forced = {channel: list(changes) for channel, changes in music.programs.items()}
        self._ports = list(music.ports)
        gone = set(removed)
        self._kept = [note for note in music.notes if note not in gone]
        self._dropped: dict[int, set[int]] = defaultdict(set)
        for note in removed:
            self._dropped[note.part.track].update(index for index in (note.on, note.off) if index is not None)
        self._lanes: dict[int, dict[Part, list[int]]] = defaultdict(dict)
        """Program -> where it plays -> the pitches of its own notes there."""
        for note in music.notes:
            self._lanes[note.part.program].setdefault(note.part, []).append(note.pitch)
        self._busy: dict[tuple[int, int], list[tuple[int, float, int]]] = defaultdict(list)
        """(channel, pitch) -> (tick, end, track) of what the file keeps there; a stray off takes no time."""
        for note in self._kept:
            end = _NEVER if note.end is None else note.end
            self._busy[note.part.channel, note.pitch].append((note.onset, end, note.part.track))
        for channel, pitch, tick in music.stray_offs:
            self._busy[channel, pitch].append((tick, tick, -1))
        self._new: set[Part] = set()
        self._new_tracks: list[Track] = []
        """Their beginnings and ends; they follow the score's."""
        self._setup: dict[int, list[Event]] = defaultdict(list)
        self._placed: dict[Part, dict[int, list[TimedNote]]] = defaultdict(lambda: defaultdict(list))
        """Where -> pitch -> notes in the order in which they begin."""
        self._lifted: set[int] = set()
        self.moved = self.omitted = 0

    def add(self, note: TimedNote) -> None:
        """Finds a place for a note.

        Raises:
            UserError: there is no channel left for its program.
        """
        lanes = self._lanes_for(note)
        if not lanes:
            lanes = [self._new_lane(note)]
        fits = [(lane, self._fit(lane, note)) for lane in lanes]
        lane, room = next(((lane, room) for lane, room in fits if room == (note.on, note.off)), fits[0])
        if room is None:
            self.omitted += 1
            return
        placed = self._placed[lane][note.pitch]
        if placed and placed[-1].on >= room[0]:
            self.omitted += 1
            return
        if placed and placed[-1].off > room[0]:
            placed[-1].off, placed[-1].shortened = room[0], True
        self.moved += room[0] != note.on
        placed.append(dataclasses.replace(note, on=room[0], off=room[1], shortened=room[1] != note.off))
        self._lift_pedal(lane, room[0])

    def _lanes_for(self, note: TimedNote) -> list[Part]:
        """Where the file plays the note's program when it begins, the best first."""

        def rank(lane: Part) -> tuple[bool, bool, bool, float, Part]:
            pitches = self._lanes[note.program][lane]
            foreign = note.program == DRUM_PROGRAM and note.pitch not in pitches
            distance = abs(sum(pitches) / len(pitches) - note.pitch)
            return lane in self._new, lane not in self._preferred, foreign, distance, lane

        return sorted((lane for lane in self._lanes[note.program] if self._in_force(lane, note.on)), key=rank)

    def _in_force(self, lane: Part, tick: int) -> bool:
        if is_drums(lane.channel):
            return True
        return next(program for at, program in reversed(self._forced[lane.channel]) if at <= tick) == lane.program

    def _new_lane(self, note: TimedNote) -> Part:
        drums = 16 * min(self._ports, default=0) + DRUM_CHANNEL
        channel = drums if note.program == DRUM_PROGRAM else self._free_channel(note)
        track = self._new_track(PROGRAM_NAMES[note.program], channel // 16) if self._score.form else 0
        if not is_drums(channel):
            self._forced[channel].append((note.on, note.program))
            self._setup[track].append(Event(note.on, bytes((PROGRAM_CHANGE | channel % 16, note.program))))
        lane = Part(track, channel, note.program)
        self._lanes[note.program][lane] = [note.pitch]
        self._new.add(lane)
        return lane

    def _new_track(self, name: str, port: int) -> int:
        heading = [meta(TRACK_NAME, name.encode())] + ([meta(PORT, bytes((port,)))] if port else [])
        self._new_tracks.append(tuple(Event(0, message) for message in (*heading, END_OF_TRACK)))
        return len(self._score.tracks) + len(self._new_tracks) - 1

    def _free_channel(self, note: TimedNote) -> int:
        used = {channel for channel, event in self._events() if event.message[0] < 0xF0}
        sounding = {kept.part.channel for kept in self._kept}
        sounding |= {lane.channel for program in self._programs for lane in self._lanes[program]}
        free = [at for at, changes in self._forced.items() if at not in sounding and changes[-1][0] <= note.on]
        if free:
            return min(free, key=lambda channel: (channel in used, channel))
        raise UserError(
            f"{self._score.name}: has no channel left for {PROGRAM_NAMES[note.program]}, all are in use; take an "
            "instrument out of it, or ask for fewer new ones"
        )

    def _events(self) -> Iterable[tuple[int, Event]]:
        """The score's events with the channels they are on, if they are on any."""
        for port, track in zip(self._ports, self._score.tracks, strict=True):
            yield from ((16 * port + (event.message[0] & 0x0F), event) for event in track)

    def _fit(self, lane: Part, note: TimedNote) -> tuple[int, int] | None:
        """When a note can sound beside those that the file keeps of its pitch on its channel."""
        found = room(self._busy.get((lane.channel, note.pitch), ()), lane.track, note.on, note.off, self._end)
        return found and (found[0], int(found[1]))

    def _lift_pedal(self, lane: Part, tick: int) -> None:
        """Lifts a pedal that would hold all new notes of a channel, as the file never does."""
        if lane.channel in self._lifted:
            return
        self._lifted.add(lane.channel)
        pedal = bytes((CONTROL_CHANGE | lane.channel % 16, _SUSTAIN))
        moves = [event for at, event in self._events() if at == lane.channel and event.message[:2] == pedal]
        moves.sort(key=lambda event: event.tick)
        follows = any(note.part.channel == lane.channel and note.onset >= tick for note in self._kept)
        if moves and moves[-1].tick <= tick and moves[-1].message[2] >= _PEDAL_DOWN and not follows:
            self._setup[lane.track].append(Event(tick, pedal + b"\0"))

    def placed(self) -> list[tuple[Part, TimedNote]]:
        """The notes that have found a place, and which."""
        return [(lane, note) for lane, at in self._placed.items() for notes in at.values() for note in notes]

    def score(self) -> Score:
        """The score without what was removed and with what was placed."""
        new: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
        for track, events in self._setup.items():
            new[track] += [(tick, SETUP, message) for tick, message in events]
        for lane, note in self.placed():
            on = bytes((NOTE_ON | lane.channel % 16, note.pitch, note.velocity))
            off = bytes((NOTE_OFF | lane.channel % 16, note.pitch, NOTE_OFF_VELOCITY))
            new[lane.track] += [(note.on, ONS, on), (note.off, OFFS, off)]
        tracks = (*self._score.tracks, *self._new_tracks)
        return dataclasses.replace(
            self._score,
            tracks=tuple(merged(track, self._dropped[number], new[number]) for number, track in enumerate(tracks)),
        )


def room(
    others: Iterable[tuple[int, float, int]], track: int, on: int, off: float, limit: float
) -> tuple[int, float] | None:
    """When a note of a track can sound beside others of its pitch on its channel, given as (begin, end, track).

    It ends where one of them begins, and begins where one ends, if half of its length is left then and it is before the
    limit. None if there is no room.
    """
    begin, end = on, off
    for tick, until, of in sorted(others):
        # Another track's events at the same tick may come before or behind ours.
        guard = 0 if of in (track, -1) else 1
        if tick - guard <= begin < until + guard:
            if until + guard > on + (off - on) / 2:
                return None
            begin = int(until) + guard
        elif begin < tick - guard < end:
            end = tick - guard
    return (begin, end) if begin < min(end, limit) else None


def merged(track: Track, dropped: set[int], new: list[tuple[int, int, bytes]]) -> Track:
    """A track without some of its events and with new ones (tick, order within it, message) before its end."""
    if not dropped and not new:
        return track
    end = next((index for index, event in enumerate(track) if event.message == END_OF_TRACK), len(track))
    own = [(event.tick, OWN, event.message) for index, event in enumerate(track[:end]) if index not in dropped]
    head = [Event(tick, message) for tick, _, message in sorted([*own, *new], key=lambda event: event[:2])]
    last = head[-1].tick if new else 0
    rest = (event for index, event in enumerate(track[end:], end) if index not in dropped)
    return (*head, *(event._replace(tick=max(event.tick, last)) for event in rest))
