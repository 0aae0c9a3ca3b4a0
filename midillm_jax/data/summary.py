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
    """Beats a minute at the start."""
    tempo_changes: int = 0
    """Pieces with more than one tempo."""
    meters: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Pieces by their first meter."""
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
        self.bpm.append(first_bpm(table))
        self.tempo_changes += len(np.unique(table.tempos[:, 1])) > 1
        meter = f"{table.meters[0, 1]}/{table.meters[0, 2]}" if len(table.meters) else "not stated"
        self.meters[meter] += 1
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


def first_bpm(table: NoteTable) -> float:
    """Beats a minute at the start; 120 where the file says nothing."""
    return 60e6 / int(table.tempos[0, 1])


def sound(program: int, pitch: int) -> str:
    """What a pitch is called: C4 is the middle C, number 60; a drum has its own name."""
    if program == DRUM_PROGRAM:
        return DRUM_NAMES.get(pitch, f"key {pitch}")
    return f"{_PITCH_NAMES[pitch % 12]}{pitch // 12 - 1}"
