"""What many pieces add up to: lengths, tempos, instruments, and how often each pitch, velocity, duration and gap is."""

import collections
import dataclasses

import numpy as np

from midillm_jax.data.shards import Piece
from midillm_jax.music.instruments import DRUM_NAMES
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, MAX_DURATION_TICKS, PITCHES, PROGRAMS

MAX_GAP = 1000
"""Onset gaps are counted up to 10 s."""
_PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclasses.dataclass
class Music:
    """What a sample of pieces adds up to."""

    notes: list[int] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    bpm: list[float] = dataclasses.field(default_factory=list)
    """Of each piece's main tempo (:func:`main_bpm`)."""
    tempo_changes: int = 0
    """Pieces with more than one tempo."""
    meters: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Pieces by their main meter (:func:`main_meter`)."""
    programs: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(PROGRAMS, np.int64))
    """Pieces that each program plays in."""
    parts: list[int] = dataclasses.field(default_factory=list)
    """Programs of each piece."""
    pitches: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(PITCHES, np.int64))
    """Notes of each pitch, drums left out."""
    velocities: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(128, np.int64))
    durations: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(MAX_DURATION_TICKS, np.int64))
    gaps: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(MAX_GAP + 1, np.int64))
    """Notes by the ticks since the note before; longer gaps count as MAX_GAP."""
    captions: list[int] = dataclasses.field(default_factory=list)
    """Captions of each piece."""
    words: list[int] = dataclasses.field(default_factory=list)
    """Words of each caption."""

    def add(self, piece: Piece) -> None:
        table = piece.notes
        self.notes.append(len(table))
        self.seconds.append(table.seconds())
        self.bpm.append(main_bpm(table))
        self.tempo_changes += len(np.unique(table.tempos[:, 1])) > 1
        self.meters[main_meter(table) or "not stated"] += 1
        programs = np.unique(table.notes // PITCHES)
        self.programs[programs] += 1
        self.parts.append(len(programs))
        pitched = table.notes[table.notes < DRUM_PROGRAM * PITCHES]
        self.pitches += np.bincount(pitched % PITCHES, minlength=PITCHES)
        self.velocities += np.bincount(table.velocities, minlength=128)
        self.durations += np.bincount(table.durations, minlength=MAX_DURATION_TICKS)
        self.gaps += np.bincount(np.minimum(np.diff(table.onsets), MAX_GAP), minlength=MAX_GAP + 1)
        self.captions.append(len(piece.captions))
        self.words += [len(caption.split()) for caption in piece.captions]

    def top_programs(self, count: int) -> list[int]:
        """The programs that play in most pieces."""
        order = np.argsort(-self.programs, kind="stable")[:count]
        return [int(program) for program in order if self.programs[program]]


def main_bpm(table: NoteTable) -> float:
    """Beats a minute of the tempo that is in force longest; 120 where the file says nothing."""
    return 60e6 / int(_longest(table.tempos, table)[0])


def main_meter(table: NoteTable) -> str:
    """The meter that is in force longest, such as 3/4; empty where the file says nothing."""
    return "/".join(map(str, _longest(table.meters, table))) if len(table.meters) else ""


def _longest(changes: np.ndarray, table: NoteTable) -> np.ndarray:
    """Of rows of a tick and what is in force from then on: what is in force longest, all its stretches together."""
    end = int((table.onsets + table.durations).max())
    lengths = np.diff(np.minimum(np.append(changes[:, 0], end), end))
    values, which = np.unique(changes[:, 1:], axis=0, return_inverse=True)
    return values[np.argmax(np.bincount(which.reshape(-1), lengths))]


def sound(program: int, pitch: int) -> str:
    """What a pitch is called: C4 is the middle C, number 60; a drum has its own name."""
    if program == DRUM_PROGRAM:
        return DRUM_NAMES.get(pitch, f"key {pitch}")
    return f"{_PITCH_NAMES[pitch % 12]}{pitch // 12 - 1}"
