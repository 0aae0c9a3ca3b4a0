"""Notes of a score out, others in; every other event of the file stays as it is and where it is.

What an edit adds stands in the span that it was given, but for the ends of notes that ring on, the name of a new track
and an end of track that they push back. Velocities, controllers, bends, program changes, tempos, markers and names of
the file are never changed: new notes on a channel of the file's are heard with its volume and bends.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from midillm_jax.music.clock import bar_map, tempo_map
from midillm_jax.music.grid import Grid
from midillm_jax.music.parts import Part, ScoreNotes, parts_named, programs_asked, read_notes
from midillm_jax.music.placement import Placement, TimedNote
from midillm_jax.music.score import Score
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, TICKS_PER_SECOND


class NewNote(NamedTuple):
    """A note to write into a score."""

    onset: float
    """Seconds from the beginning of the file."""
    duration: float
    """Seconds; every note gets one tick at least."""
    program: int
    """128 is the drum kit."""
    pitch: int
    velocity: int
    """1..127."""


@dataclasses.dataclass(frozen=True)
class Edited:
    """An edited score, and what became of the notes."""

    score: Score
    removed: int
    added: int
    moved: int
    """Of the new notes, those that begin where a note of the file's at their pitch ends, instead of before."""
    shortened: int
    """Of the new notes, those that end early, where their pitch is struck again."""
    omitted: int
    """New notes left out, as their pitch sounds on their channel already."""


def replace_span(
    score: Score,
    start: int,
    end: int | None,
    parts: frozenset[Part] | None,
    new_notes: Iterable[NewNote],
    *,
    grid: Grid | None = None,
    strength: float = 1.0,
    music: ScoreNotes | None = None,
) -> Edited:
    """The score with the notes that begin in a span replaced.

    A note that begins before the span and sounds into it is kept. A new note goes to the track and channel in which
    its program plays already, among several to one of ``parts``, then to the one whose own notes are nearest in pitch.
    Where its program is in force on none of its channels at that time, it gets a free channel (one without any events
    before one without notes; drums always channel 10) and in a file of type 1 a track of its own.

    One channel cannot sound a pitch twice. So a new note ends where the same pitch begins on its channel, begins where
    it ends if half of its length and the span are left then, and is omitted otherwise. Where the file leaves the pedal
    down for good, it is lifted before the first new note on its channel, unless notes of the file's follow there.

    Args:
        start: the first tick of the span.
        end: the first tick behind it; None for all that follows.
        parts: whose notes go; None for all, an empty set for none.
        new_notes: their onsets lie in the span, by a tick of the tokens (10 ms) at most beside it.
        grid: what onsets are moved to, lengths kept, but for those it would move out of the span; None moves none.
        strength: how far they are moved, 0 (not at all) to 1 (onto the grid).
        music: the score's notes, where they were read before.

    Raises:
        UserError: all channels of the file's ports are in use.
        ValueError: an onset is outside of the span, or a note has a number that MIDI has not.
    """
    music = music or read_notes(score)
    until = float("inf") if end is None else end
    removed = [note for note in music.notes if start <= note.onset < until and (parts is None or note.part in parts)]
    timed = _timed(score, new_notes, start, until, grid, strength)
    placement = Placement(score, music, removed, parts or frozenset(), {note.program for note in timed}, until)
    for note in timed:
        placement.add(note)
    placed = [note for _, note in placement.placed()]
    shortened = sum(note.shortened for note in placed)
    return Edited(placement.score(), len(removed), len(placed), placement.moved, shortened, placement.omitted)


def keep_tracks(
    score: Score, words: str, new_notes: Iterable[NewNote], *, grid: Grid | None = None, strength: float = 1.0
) -> Edited:
    """The score with the notes of the named parts and the new ones alone; see ``parts_named`` and ``replace_span``.

    Raises:
        UserError: a name fits nothing that plays, or there is no channel left.
    """
    music = read_notes(score)
    others = frozenset(note.part for note in music.notes) - parts_named(score, words, music)
    return replace_span(score, 0, None, others, new_notes, grid=grid, strength=strength)


def replace_tracks(
    score: Score,
    words: str,
    new_notes: Iterable[NewNote],
    *,
    start: int = 0,
    end: int | None = None,
    grid: Grid | None = None,
    strength: float = 1.0,
) -> Edited:
    """The score with the notes of the named parts replaced, in a span or all through; see ``replace_span``.

    Raises:
        UserError: a name fits nothing that plays, or there is no channel left.
    """
    return replace_span(score, start, end, parts_named(score, words), new_notes, grid=grid, strength=strength)


def add_tracks(
    score: Score, words: str, new_notes: Iterable[NewNote], *, grid: Grid | None = None, strength: float = 1.0
) -> Edited:
    """The score with notes of the named instruments added to all it has; see ``programs_asked``.

    Raises:
        UserError: a name is no instrument's, or there is no channel left.
        ValueError: a note is of another instrument.
    """
    programs, notes = programs_asked(words), list(new_notes)
    for note in notes:
        if note.program not in programs:
            raise ValueError(f"{words!r} was asked for, but a note is of program {note.program}")
    return replace_span(score, 0, None, frozenset(), notes, grid=grid, strength=strength)


def _timed(
    score: Score, notes: Iterable[NewNote], start: int, end: float, grid: Grid | None, strength: float
) -> list[TimedNote]:
    """The notes in ticks and on the grid, in the order of onsets, of equal ones the longest first."""
    tempos, bars = tempo_map(score), bar_map(score)
    first, last = tempos.seconds(start), float("inf") if end == float("inf") else tempos.seconds(int(end))
    timed: list[TimedNote] = []
    for note in notes:
        if not first - 1 / TICKS_PER_SECOND <= note.onset <= last + 1 / TICKS_PER_SECOND:
            raise ValueError(f"a note at {note.onset} s is outside of the span, {first} s to {last} s")
        _check(note)
        # Rounding to 10 ms may have put the onset before the first tick of the span, or behind its last.
        tick = int(min(max(tempos.tick(max(note.onset, 0)), start), end - 1))
        length = max(tempos.tick(max(note.onset, 0) + note.duration) - tick, 1)
        point = tick if grid is None else grid.nearest(tick, bars, score.ticks_per_beat)
        if start <= point < end:
            tick += round(strength * (point - tick))
        timed.append(TimedNote(tick, tick + length, note.program, note.pitch, note.velocity))
    return sorted(timed, key=lambda note: (note.on, -note.off))


def _check(note: NewNote) -> None:
    good = 0 <= note.program <= DRUM_PROGRAM and 0 <= note.pitch < PITCHES and 1 <= note.velocity < 128
    if not (good and note.duration >= 0):
        raise ValueError(f"{note} has a number that MIDI has not")
