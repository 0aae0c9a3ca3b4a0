"""What happens to one record: bytes in, a packed shard record or a reason out.

Pure functions of the record, so that any runner may call them anywhere and in any order (data/blocks.py).
"""

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Callable

import numpy as np

from midillm_jax.data.records import Piece, TextRecord, pack_piece, pack_text
from midillm_jax.data.sources import Record, decode_text
from midillm_jax.music.midi import MidiError, NoteTable, has_numba, read_midi
from midillm_jax.music.vocab import DURATION_OFFSET, NOTE_OFFSET, PITCHES, TICKS_PER_SECOND
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer

_COMPILE_FROM_BYTES = 4 * 2**20
"""Input from which compiling the MIDI reader pays; it takes a process half a second, the very first one five."""


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which pieces are left out. The paper's recipe: 100 notes, 10 s, 3,600 s, 16 programs; nothing by default."""

    min_notes: int = 0
    """Fewest notes of a piece."""
    min_seconds: float = 0.0
    """Earliest last onset of a piece."""
    max_seconds: float | None = None
    """Latest last onset of a piece."""
    max_programs: int | None = None
    """Most instruments of a piece; drums count as one."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one record."""

    digest: str
    """SHA-256 (hex) of the record's bytes, or of the reason why they could not be read."""
    packed: bytes | None = None
    """The shard record; None when the input was rejected."""
    length: int = 0
    """Notes or tokens."""
    group: str = ""
    """Decides the side of the split where the record names no group itself: equal music, or equal text, is equal."""
    reason: str = ""
    """Why it was rejected."""


Job = Callable[[Record], Outcome]
"""Can be pickled, as a dataclass with ``__call__`` can."""


@dataclasses.dataclass(frozen=True)
class MidiJob:
    """MIDI bytes to a packed piece."""

    filters: Filters
    compiled: bool
    """Whether to compile the reader first (half a second), which pays from a few hundred files on."""

    def __call__(self, record: Record) -> Outcome:
        if record.problem:
            return Outcome("", reason=record.problem)
        try:
            data = record.read()
        except OSError as error:
            return unreadable(error)
        digest = content_digest(data)
        try:
            notes = read_midi(data, compiled=self.compiled)
        except MidiError as error:
            return Outcome(digest, reason=str(error))
        if reason := filtered_out(notes, self.filters):
            return Outcome(digest, reason=reason)
        piece = Piece(notes, record.captions, record.source, piece_id(digest), record.name)
        return Outcome(digest, pack_piece(piece), len(notes), notes_digest(notes))


@dataclasses.dataclass(frozen=True)
class TextJob:
    """A document's bytes to packed token ids."""

    tokenizer: str
    """Path of the tokenizer; every process loads its own."""

    def __call__(self, record: Record) -> Outcome:
        if record.problem:
            return Outcome("", reason=record.problem)
        try:
            data = record.read()
        except OSError as error:
            return unreadable(error)
        digest = content_digest(data)
        try:
            text = decode_text(data)
        except ValueError as error:
            return Outcome(digest, reason=str(error))
        ids = cached_tokenizer(self.tokenizer).encode(text)
        if not ids:
            return Outcome(digest, reason="the tokenizer finds nothing in it")
        packed = pack_text(TextRecord(np.asarray(ids, np.int32), record.source, record.name))
        return Outcome(digest, packed, len(ids), piece_id(digest))


def compile_reader(size_bytes: int) -> bool:
    """Whether compiling the MIDI reader pays for so much input; says so where it would and numba is missing."""
    if size_bytes < _COMPILE_FROM_BYTES:
        return False
    if not has_numba():
        print(
            "numba is not installed, so files are read some twenty times slower; pip install 'midillm_jax[train]'",
            file=sys.stderr,
        )
        return False
    return True


def content_digest(data: bytes) -> str:
    """SHA-256 (hex) of a record's bytes."""
    return hashlib.sha256(data).hexdigest()


def piece_id(digest: str) -> str:
    """A piece's id: the beginning of its content's digest, so that equal files have equal ids wherever they lie."""
    return digest[:16]


def notes_digest(notes: NoteTable) -> str:
    """SHA-256 (hex) of what is played: onsets from the first one on, durations, pitches and programs.

    Files that differ only in velocities, ticks per beat, texts, silence in front or the order of notes that begin
    together have the same.
    """
    # Sorted as one number, which numpy does far faster than by three keys: onset, 15 bits of note, 10 of duration.
    key = notes.onsets.astype(np.int64)
    key -= key[:1].copy()
    key = (key << 25) | (notes.notes << 10) | notes.durations
    key.sort(kind="stable")  # runs that are sorted already are what this kind is fast at
    triples = np.empty((len(key), 3), "<i4")
    triples[:, 0] = key >> 25
    triples[:, 1] = (key & 1023) + DURATION_OFFSET
    triples[:, 2] = ((key >> 10) & 32767) + NOTE_OFFSET
    return hashlib.sha256(triples.tobytes()).hexdigest()


def filtered_out(notes: NoteTable, filters: Filters) -> str:
    """Why a piece is left out; empty when it is kept."""
    count, seconds = len(notes), int(notes.onsets[-1]) / TICKS_PER_SECOND
    if count < filters.min_notes:
        return f"has {count} notes, fewer than the filter's {filters.min_notes}"
    if seconds < filters.min_seconds:
        return f"ends after {seconds:.1f} s, before the filter's {filters.min_seconds:g} s"
    if filters.max_seconds is not None and seconds > filters.max_seconds:
        return f"ends after {seconds:.1f} s, beyond the filter's {filters.max_seconds:g} s"
    if filters.max_programs is not None:
        programs = int(np.count_nonzero(np.bincount(notes.notes // PITCHES)))
        if programs > filters.max_programs:
            return f"has {programs} instruments, more than the filter's {filters.max_programs}"
    return ""


@functools.cache
def cached_tokenizer(path: str) -> Tokenizer:
    """A process loads a tokenizer once, not once a document."""
    return load_tokenizer(path)


def unreadable(error: OSError) -> Outcome:
    """The outcome of a file that the system will not give."""
    reason = f"cannot be read: {error.strerror}"
    return Outcome(content_digest(reason.encode()), reason=reason)
