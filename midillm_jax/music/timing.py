"""Tempo, bars and loudness for music that has none: what a model writes are notes at times, and nothing else.

A file without them opens in a sequencer at 120 beats a minute, with no note on a line. So the beat is looked for in the
onsets (music/rhythm.py), its place by where the strong notes fall, the bars by the same. Where the notes keep to no
beat that can be heard, the file says nothing of one. Notes stay in their places to one another; the piece begins
with the bar of its first note.
"""

import dataclasses

import numpy as np

from midillm_jax.music import dynamics
from midillm_jax.music.midi import NoteTable, write_midi
from midillm_jax.music.rhythm import COMPOUND, TRIPLE, find_rhythm
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, TICKS_PER_SECOND

_DIVISIONS = (4, 3)
"""Parts of a beat on which onsets gather, if it is one."""
_KEPT = 0.35
"""Least concentration of onsets on one of them: random onsets are at 0, notated music at 0.5 to 1."""
_NEAR_TICKS = 4
"""An onset this many ticks off a beat belongs to it."""
_BEATS = {TRIPLE: 3, COMPOUND: 2}
"""Beats of a bar; four of the others."""
_METERS = {TRIPLE: (3, 4), COMPOUND: (6, 8)}
_SAME_TEMPO = 0.02
_KICKS = (35, 36)
_CRASHES = (49, 57)
_LOW = 48


@dataclasses.dataclass(frozen=True)
class Pulse:
    """Beats of one length from end to end, gathered in bars."""

    beat: float
    """Ticks of 10 ms."""
    first: float
    """Tick of a bar line, from 0 to a bar's length."""
    beats: int
    """Of a bar."""
    meter: tuple[int, int]
    """As a time signature."""

    @property
    def microseconds(self) -> int:
        """Of a quarter note."""
        quarters = 1.5 if self.meter[1] == 8 else 1.0
        return round(self.beat * 1e6 / TICKS_PER_SECOND / quarters)


def find_pulse(table: NoteTable) -> Pulse | None:
    """The beats and bars that the notes keep to; None if they keep to none."""
    rhythm = find_rhythm(table)
    if rhythm is None:
        return None
    beat = 60 * TICKS_PER_SECOND / rhythm.bpm
    weights = _weights(table)
    turns = 2j * np.pi * table.onsets / beat
    kept = {division: np.average(np.exp(division * turns), weights=weights) for division in _DIVISIONS}
    division = max(kept, key=lambda each: abs(kept[each]))
    if abs(kept[division]) < _KEPT:
        return None
    # Where the parts lie, then which of them is the beat, then which beat begins a bar.
    part = beat / division
    offset = float(np.angle(kept[division])) / (2 * np.pi) * part
    beats = _BEATS.get(rhythm.meter, 4)
    place = _strongest(table.onsets - offset, weights, part, division)
    offset += place * part
    offset += _strongest(table.onsets - offset, weights, beat, beats) * beat
    return Pulse(beat, offset % (beat * beats), beats, _METERS.get(rhythm.meter, (4, 4)))


def _weights(table: NoteTable) -> np.ndarray:
    """How much a note says where beats and bars begin, float64 [n]: long and low ones, kicks and crashes more."""
    programs, pitches = table.notes // PITCHES, table.notes % PITCHES
    drums = programs == DRUM_PROGRAM
    found = 1 + np.minimum(table.durations, 2 * TICKS_PER_SECOND) / TICKS_PER_SECOND
    found = np.where(drums, 1.0, found + (pitches < _LOW))
    return found + 2.0 * (drums & np.isin(pitches, _KICKS)) + 3.0 * (drums & np.isin(pitches, _CRASHES))


def _strongest(onsets: np.ndarray, weights: np.ndarray, step: float, count: int) -> int:
    """Which of ``count`` places, a step apart and repeating, gathers the most weight of the onsets near them."""
    at = np.rint(onsets / step)
    near = np.abs(onsets - at * step) <= _NEAR_TICKS
    gathered = np.bincount(at[near].astype(np.int64) % count, weights=weights[near], minlength=count)
    return int(gathered.argmax())


def played(table: NoteTable, seed: int = 0, bpm: float | None = None) -> NoteTable:
    """The notes with the tempo, bars and velocities that suit them; see the module, and music/dynamics.py.

    Onsets move alike, so that the bar of the first note begins the piece; nothing else of a note changes. ``bpm``
    is what the tempo is known to be, in quarter notes a minute; it counts where it agrees with what is heard, which
    rounded onsets put a little off.
    """
    pulse = find_pulse(table) if len(table) else None
    weights, timed = None, table
    if pulse is not None:
        quarter = pulse.microseconds
        if bpm is not None and abs(60e6 / bpm / quarter - 1) < _SAME_TEMPO:
            quarter = round(60e6 / bpm)
            pulse = dataclasses.replace(pulse, beat=pulse.beat * quarter / pulse.microseconds)
        bar = pulse.beat * pulse.beats
        # The bar line at or before the first note becomes the beginning.
        before = (float(table.onsets[0]) + _NEAR_TICKS - pulse.first) // bar
        start = pulse.first + before * bar
        onsets = table.onsets + np.int32(round(-start))
        early = min(int(onsets[0]), 0)
        position = (table.onsets - start) / pulse.beat
        on_beat = np.abs(position - np.rint(position)) * pulse.beat <= _NEAR_TICKS
        weights = on_beat.astype(np.int64) * (1 + (np.rint(position) % pulse.beats == 0))
        timed = dataclasses.replace(
            table,
            onsets=(onsets - early).astype(np.int32),
            tempos=np.array([[0, quarter]], np.int64),
            meters=np.array([[0, *pulse.meter]], np.int32),
        )
    levels = np.full(len(table), dynamics.DEFAULT_LEVEL)
    return dataclasses.replace(timed, velocities=dynamics.velocities(table.onsets, table.notes, levels, weights, seed))


def midi_file(table: NoteTable, seed: int = 0, bpm: float | None = None) -> bytes:
    """The notes of a new piece as a file with tempo, bars and velocities; see :func:`played`."""
    return write_midi(played(table, seed, bpm))
