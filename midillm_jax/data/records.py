"""One record of a shard: a piece of music, or a run of text tokens, as bytes.

Version 1. Numbers are unsigned and little-endian. Two building blocks:

- *column*, for a known number n of integers: one byte w (1..8), the smallest number of bytes that holds the largest
  item, then w planes of n bytes; plane k holds bits 8k..8k+7 of every item. (All low bytes stand together because
  they are alike, so the shard's compression finds them; and a plane is one numpy view.)
- *texts*, for a known number of strings: a column of their lengths in bytes, then their UTF-8 bytes end to end
  (file names that are not UTF-8 survive through ``surrogateescape``).

A piece:

    bytes 0..1    b"MP"
    byte  2       version, 1
    byte  3       0
    bytes 4..19   uint32 x 4: notes n, tempo changes k, meter changes m, captions c
    texts         3 + c strings: source, piece id, name, captions
    columns of n  onset minus the previous note's onset (10 ms ticks; the first counts from 0), duration ticks,
                  pitch 0..127, program 0..128, velocity 1..127
    columns of k  tick minus the previous tick, microseconds per beat
    columns of m  tick minus the previous tick, numerator, denominator

A run of text:

    bytes 0..1    b"MT"
    byte  2       version, 1
    byte  3       0
    bytes 4..7    uint32: tokens n
    texts         2 strings: source, name
    column of n   token ids of the tokenizer whose fingerprint the manifest names

Nothing here is compressed: the ArrayRecord file that holds the records does that (data/shards.py).
"""

import dataclasses

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import PITCHES

RECORD_VERSION = 1
_PIECE = b"MP"
_TEXT = b"MT"
_HEADER_BYTES = 4
_FEW_ITEMS = 8
"""Columns of so many items are packed without numpy."""
_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_PITCH_BITS = PITCHES.bit_length() - 1


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of music with what is known about it."""

    notes: NoteTable
    captions: tuple[str, ...]
    """Descriptions of the whole piece, any number of them."""
    source: str
    """Which data set it came from."""
    piece_id: str
    """Names the file that it came from, by content."""
    name: str
    """The original file's name, for messages."""


@dataclasses.dataclass(frozen=True)
class TextRecord:
    """Tokens of one document, without begin and end marks."""

    ids: np.ndarray
    """int32 [tokens]"""
    source: str
    name: str


def pack_piece(piece: Piece) -> bytes:
    """The bytes of a piece; the same piece always gives the same bytes.

    Raises:
        ValueError: onsets, tempo ticks or meter ticks that decrease, or a negative number.
    """
    table = piece.notes
    counts = [len(table.onsets), len(table.tempos), len(table.meters), len(piece.captions)]
    return b"".join(
        [
            _header(_PIECE),
            np.array(counts, "<u4").tobytes(),
            *_texts([piece.source, piece.piece_id, piece.name, *piece.captions]),
            _column(_steps(table.onsets)),
            _column(table.durations),
            _column(table.notes & (PITCHES - 1)),
            _column(table.notes >> _PITCH_BITS),
            _column(table.velocities),
            _column(_steps(table.tempos[:, 0])),
            _column(table.tempos[:, 1]),
            _column(_steps(table.meters[:, 0])),
            _column(table.meters[:, 1]),
            _column(table.meters[:, 2]),
        ]
    )


def unpack_piece(record: bytes) -> Piece:
    """The piece whose bytes these are.

    Raises:
        UserError: not a piece, another version, or cut short.
    """
    reader = _Reader(record, _PIECE)
    notes, tempos, meters, captions = reader.counts(4)
    source, piece_id, name, *texts = reader.texts(3 + captions)
    onsets = np.cumsum(reader.column(notes, "onsets"), dtype=np.int32)
    durations = reader.column(notes, "durations")
    pitches = reader.column(notes, "pitches")
    programs = reader.column(notes, "programs")
    velocities = reader.column(notes, "velocities").astype(np.uint8)
    tempo_ticks = np.cumsum(reader.column(tempos, "tempo ticks"), dtype=np.int64)
    tempo_map = np.stack([tempo_ticks, reader.column(tempos, "tempos")], axis=1)
    meter_ticks = np.cumsum(reader.column(meters, "meter ticks"), dtype=np.int32)
    meter_map = np.stack(
        [meter_ticks, reader.column(meters, "numerators"), reader.column(meters, "denominators")], axis=1
    )
    reader.finish()
    table = NoteTable(
        onsets=onsets,
        durations=durations.astype(np.int32),
        notes=(programs * PITCHES + pitches).astype(np.int32),
        velocities=velocities,
        tempos=tempo_map.astype(np.int64),
        meters=meter_map.astype(np.int32),
    )
    return Piece(notes=table, captions=tuple(texts), source=source, piece_id=piece_id, name=name)


def pack_text(text: TextRecord) -> bytes:
    """The bytes of a run of text tokens."""
    count = np.array([len(text.ids)], "<u4").tobytes()
    return b"".join([_header(_TEXT), count, *_texts([text.source, text.name]), _column(text.ids)])


def unpack_text(record: bytes) -> TextRecord:
    """The run of text whose bytes these are.

    Raises:
        UserError: not a run of text, another version, or cut short.
    """
    reader = _Reader(record, _TEXT)
    (tokens,) = reader.counts(1)
    source, name = reader.texts(2)
    ids = reader.column(tokens, "token ids").astype(np.int32)
    reader.finish()
    return TextRecord(ids=ids, source=source, name=name)


def _header(magic: bytes) -> bytes:
    return magic + bytes([RECORD_VERSION, 0])


def _steps(ticks: np.ndarray) -> np.ndarray:
    steps = ticks.copy()  # the first counts from 0
    steps[1:] -= ticks[:-1]
    return steps


def _column(items: np.ndarray) -> bytes:
    if len(items) <= _FEW_ITEMS:
        return _short_column(items.tolist())
    # Ten columns of a few items a piece: what numpy takes to begin counts, and this begins soonest.
    largest = int(np.maximum.reduce(items.view(_UNSIGNED[items.itemsize])))  # a negative number is the largest of all
    if items.dtype.kind == "i" and largest >> (8 * items.itemsize - 1):
        raise ValueError(f"a record holds unsigned numbers that never step back, found {items.min()}")
    width = max(1, (largest.bit_length() + 7) // 8)
    planes = (items >> shift if shift else items for shift in range(0, 8 * width, 8))
    return b"".join([bytes((width,)), *(plane.astype(np.uint8).tobytes() for plane in planes)])  # the low byte of each


def _short_column(items: list[int]) -> bytes:
    """The same bytes; for a tempo or two, numpy's calls cost six times as much as this."""
    if items and min(items) < 0:
        raise ValueError(f"a record holds unsigned numbers that never step back, found {min(items)}")
    width = max(1, (max(items, default=0).bit_length() + 7) // 8)
    return bytes([width, *(item >> shift & 255 for shift in range(0, 8 * width, 8) for item in items)])


def _texts(texts: list[str]) -> list[bytes]:
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    return [_column(np.array([len(text) for text in encoded])), *encoded]


class _Reader:
    """Walks through a record's fields; every failure names the field."""

    def __init__(self, record: bytes, magic: bytes) -> None:
        wanted = "a piece" if magic == _PIECE else "text"
        if record[:2] != magic:
            raise UserError(f"a shard record begins with {record[:2]!r}, not {magic!r}: it does not hold {wanted}")
        if record[2:3] != bytes([RECORD_VERSION]):
            raise UserError(
                f"a shard record has version {list(record[2:3])}, this program reads version {RECORD_VERSION}: "
                "prepare the data again or use the program that wrote it"
            )
        self._record = record
        self._at = _HEADER_BYTES

    def counts(self, number: int) -> list[int]:
        return [int(count) for count in np.frombuffer(self._take(4 * number, "counts"), "<u4")]

    def column(self, items: int, field: str) -> np.ndarray:
        """Int64 or narrower [items]; a view of the record where one byte holds an item, widened otherwise."""
        width = self._take(1, field)[0]
        if not 1 <= width <= 8:
            raise UserError(
                f"a shard record gives {field} a width of {width} bytes, 1 to 8 were expected: it is damaged"
            )
        planes = np.frombuffer(self._take(width * items, field), np.uint8).reshape(width, items)
        total = planes[0].astype(np.int64 if width > 3 else np.int32)
        for plane in range(1, width):
            total |= planes[plane].astype(total.dtype) << (8 * plane)
        return total

    def texts(self, number: int) -> list[str]:
        lengths = self.column(number, "text lengths")
        joined = self._take(int(lengths.sum()), "texts")
        ends = np.cumsum(lengths).tolist()
        return [
            joined[start:end].decode("utf-8", "surrogateescape") for start, end in zip([0, *ends], ends, strict=False)
        ]

    def finish(self) -> None:
        if self._at != len(self._record):
            raise UserError(
                f"a shard record has {len(self._record) - self._at} bytes after its last field: it is damaged"
            )

    def _take(self, size: int, field: str) -> bytes:
        part = self._record[self._at : self._at + size]
        if len(part) != size:
            raise UserError(f"a shard record ends inside its {field} (byte {len(self._record)}): it is damaged")
        self._at += size
        return part
