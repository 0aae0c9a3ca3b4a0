"""From one record to a stretch of a row: which notes, which become controls, which caption, which tokens.

Everything is drawn here, when a record is read, from a generator seeded for that one visit, so a record is stored once
and seen differently each time. A stretch longer than the room that is left in a row can be cut there; what remains
becomes a stretch of its own, as if its first note had been drawn.
"""

import dataclasses
import logging
from typing import Protocol, Self

import numpy as np

from midillm_jax.config import DataConfig
from midillm_jax.data.shards import Piece, SplitReader
from midillm_jax.music import anticipation
from midillm_jax.music.amt import encode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import (
    ANTICIPATION_TICKS,
    CONTROL_OFFSET,
    DRUM_PROGRAM,
    MAX_DURATION_TICKS,
    MAX_GAP_TICKS,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    PITCHES,
    REST,
    TICKS_PER_SECOND,
)
from midillm_jax.text.prompt import Segment, lead, music_room, music_segment, prompt_ids, text_segment
from midillm_jax.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

LEAST_TRIPLES = 16
"""Music is not cut into stretches shorter than this, nor shown or scored behind a caption that leaves less room."""
LEAST_TEXT_TOKENS = 16
"""Nor is text."""
RECORD_BITS = 40
"""A record id holds the number of the record in its split in its low bits, the number of the folder above them."""


class Stretch(Protocol):
    """What is placed in a row as one segment, or cut in two."""

    @property
    def lead(self) -> int:
        """Padding tokens in front, so that onsets sit at row indices = 0 mod 3 if the padding begins at one."""

    @property
    def size(self) -> int:
        """Tokens in the row when placed whole, the padding in front included."""

    @property
    def offset(self) -> int:
        """How far into its example this stretch begins: notes or tokens."""

    @property
    def record_id(self) -> int:
        """Folder and record that it came from."""

    def segment(self) -> Segment:
        """The whole of it."""

    def cut(self, space: int) -> tuple[Segment, Self] | None:
        """A segment that fits in ``space`` tokens, padding in front included, and the rest; None if too short."""

    def after(self, offset: int) -> Self:
        """What :meth:`cut` left, given its offset."""


@dataclasses.dataclass(frozen=True)
class MusicLayout:
    """What all music of a run has in common."""

    text_vocab_size: int
    compat_flag: bool
    row_length: int
    prompt_weight: float


@dataclasses.dataclass(frozen=True)
class MusicStretch:
    """Notes of one piece with the prompt in front."""

    record_id: int
    offset: int
    prompt: list[int]
    events: np.ndarray
    """int32 [3n] notes to be predicted, onsets from any point."""
    controls: np.ndarray
    """int32 [3m] anticipated notes, as control ids, onsets from the same point."""
    written: np.ndarray
    """int32 [3t] what stands in the row: events, rests and controls, onsets from where the stretch begins."""
    ends: bool
    """Whether the piece ends with these events."""
    layout: MusicLayout
    whole: bool = True
    """Whether all events and controls are written. What a cut left may be more than a row holds, as controls were then
    held back that the first part had no room for; it loses its end."""

    @property
    def lead(self) -> int:
        return lead(len(self.prompt) + 1)

    @property
    def size(self) -> int:
        return self.lead + len(self.prompt) + 1 + len(self.written) + 3 * (self.ends and self.whole)

    def segment(self) -> Segment:
        return self._segment(self.written, self.ends and self.whole)

    def cut(self, space: int) -> tuple[Segment, "MusicStretch"] | None:
        room = (space - self.lead - len(self.prompt) - 1) // 3
        count = min(room, len(self.written) // 3 - LEAST_TRIPLES)
        if count < LEAST_TRIPLES:
            return None
        kept = self.written[: 3 * count]
        events = _count_events(kept)
        if events in (0, len(self.events) // 3):
            return None
        return self._segment(kept, False), self.after(self.offset + events)

    def after(self, offset: int) -> "MusicStretch":
        events = self.events[3 * (offset - self.offset) :]
        behind = anticipation.onsets(self.controls) >= events[0]
        controls = self.controls.reshape(-1, 3)[behind].reshape(-1)
        room = music_room(self.prompt, self.layout.row_length)
        written, whole = _fit(events, controls, int(events[0]), room, self.ends)
        if _count_events(written) == 0:
            written, whole = _fit(events, controls[:0], int(events[0]), room, self.ends)
        # Events and controls stay complete, so that going on from here or from the start, by the offset, is the same.
        return dataclasses.replace(self, offset=offset, events=events, controls=controls, written=written, whole=whole)

    def _segment(self, written: np.ndarray, closed: bool) -> Segment:
        anticipated = not self.layout.compat_flag and bool((written[2::3] >= CONTROL_OFFSET).any())
        return music_segment(
            self.prompt,
            written,
            text_vocab_size=self.layout.text_vocab_size,
            closed=closed,
            anticipated=anticipated,
            prompt_weight=self.layout.prompt_weight,
        )


@dataclasses.dataclass(frozen=True)
class TextStretch:
    """Tokens of one document; every stretch opens with begin-of-text, only the last closes with end-of-text."""

    record_id: int
    offset: int
    ids: np.ndarray
    """int32 [n]"""
    tokenizer: Tokenizer

    @property
    def lead(self) -> int:
        return 0

    @property
    def size(self) -> int:
        return len(self.ids) + 2

    def segment(self) -> Segment:
        return text_segment(self.ids, self.tokenizer)

    def cut(self, space: int) -> tuple[Segment, "TextStretch"] | None:
        count = min(space - 1, len(self.ids) - LEAST_TEXT_TOKENS)
        if count < LEAST_TEXT_TOKENS:
            return None
        whole = text_segment(self.ids[:count], self.tokenizer)
        open_ended = Segment(whole.tokens[:-1], whole.loss_weights[:-1], whole.slot[:-1])
        return open_ended, self.after(self.offset + count)

    def after(self, offset: int) -> "TextStretch":
        return dataclasses.replace(self, offset=offset, ids=self.ids[offset - self.offset :])


class MusicExamples:
    """Draws one window of a piece: ``examples(record, rng)`` -> :class:`MusicStretch`.

    Augmentation (caption dropout, transposition, stretching, anticipation) is for training; held-out music is shown as
    it is, with its caption unless the run trains without captions. A caption may name a key or a tempo, and so that
    what is heard is what it says, a piece shown with one is neither transposed nor stretched unless the run asks for
    it (``data.alter_captioned``). Which notes are told in advance changes nothing that is heard: anticipation is for
    all.

    A caption that leaves no room for music in a row is not shown: the piece is, with the longest of its captions that
    does, or else with none. The first such record is named in a warning, all of them are in ``long_captions``.
    """

    def __init__(
        self,
        reader: SplitReader,
        folder: int,
        data: DataConfig,
        tokenizer: Tokenizer,
        *,
        text_vocab_size: int,
        augment: bool,
    ) -> None:
        self._reader = reader
        self._folder = folder
        self._data = data
        self._tokenizer = tokenizer
        self._augment = augment
        self.long_captions: set[int] = set()
        """Records met so far whose caption, when drawn, left no room."""
        self._layout = MusicLayout(text_vocab_size, data.compat_flag, data.row_length, data.prompt_weight)

    def visits(self) -> np.ndarray:
        """int64 [records]: windows of each piece in one pass, so that long pieces count by their length."""
        if self._data.window_start == "piece":
            return np.ones(len(self._reader), np.int64)
        return -(-self._reader.lengths.astype(np.int64) // (self._data.row_length // 3))

    def __call__(self, record: int, rng: np.random.Generator) -> MusicStretch:
        piece = self._reader.piece(record)
        prompt = self._prompt(record, piece, rng)
        room = music_room(prompt, self._data.row_length)
        captioned = len(prompt) > 1
        alter = self._augment and (self._data.alter_captioned or not captioned)
        # Before the window is chosen: how much fits depends on the time between notes.
        table = _stretch(piece.notes, self._data.tempo_stretch, rng) if alter else piece.notes
        start, stop, base = _window(table.onsets, room, self._data.window_start == "random", rng)
        notes = encode_notes(_rows(table, start, stop))
        if alter:
            notes = _transpose(notes, self._data.transpose, rng)
        events, controls = self._anticipate(notes, rng) if self._augment else (notes, notes[:0])
        ends = stop == len(table)
        written, whole = _fit(events, controls, base, room, ends)
        # Gaps that controls left are filled with rests, so that less music may fit; none at all is no example.
        if _count_events(written) == 0:
            events, controls = notes, notes[:0]
            written, whole = _fit(events, controls, base, room, ends)
        return MusicStretch(
            record_id=record_id(self._folder, record),
            offset=0,
            prompt=prompt,
            events=events[: 3 * _count_events(written)],
            controls=controls,
            written=written,
            ends=ends and whole,
            layout=self._layout,
        )

    def _prompt(self, record: int, piece: Piece, rng: np.random.Generator) -> list[int]:
        prompt = prompt_ids(self._tokenizer, self._caption(piece.captions, rng))
        if music_room(prompt, self._data.row_length) >= LEAST_TRIPLES:
            return prompt
        if not self.long_captions:
            _log.warning(
                "%s: a caption of %s record %d (%s) takes %d tokens of a row of %d, which leaves no room for music: "
                "the piece is shown with another caption of its own that fits, or with none, as is every such piece "
                "of this folder; shorten the captions or raise data.row_length",
                *(self._reader.folder, self._reader.name, record, piece.name, len(prompt), self._data.row_length),
            )
        self.long_captions.add(record)
        prompts = (prompt_ids(self._tokenizer, caption) for caption in piece.captions)
        fitting = [ids for ids in prompts if music_room(ids, self._data.row_length) >= LEAST_TRIPLES]
        return max(fitting, key=len, default=prompt_ids(self._tokenizer, None))

    def _caption(self, captions: tuple[str, ...], rng: np.random.Generator) -> str | None:
        dropout = self._data.caption_dropout if self._augment or self._data.caption_dropout == 1 else 0.0
        shown = rng.random() >= dropout
        if not captions or not shown:
            return None
        return captions[int(rng.integers(len(captions)))]

    def _anticipate(self, notes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shares = self._data.anticipation
        drawn = rng.random()
        if drawn < shares.spans:
            ticks = round(shares.span_seconds * TICKS_PER_SECOND)
            return anticipation.split_spans(notes, rng, shares.span_rate, ticks)
        if drawn < shares.spans + shares.random:
            return anticipation.split_random(notes, rng)
        if drawn < shares.spans + shares.random + shares.instruments:
            playing = anticipation.programs(notes)
            if len(playing) > 1:
                chosen = rng.choice(playing, 1 + rng.integers(len(playing) - 1), replace=False)
                return anticipation.split_instruments(notes, chosen)
        return notes, notes[:0]


class TextExamples:
    """Reads one document: ``examples(record, rng)`` -> :class:`TextStretch`."""

    def __init__(self, reader: SplitReader, folder: int, tokenizer: Tokenizer) -> None:
        self._reader = reader
        self._folder = folder
        self._tokenizer = tokenizer

    def visits(self) -> np.ndarray:
        """int64 [records]: once each, since every token of a document is read."""
        return np.ones(len(self._reader), np.int64)

    def __call__(self, record: int, rng: np.random.Generator) -> TextStretch:
        text = self._reader.text(record)
        return TextStretch(record_id(self._folder, record), 0, text.ids, self._tokenizer)


def record_id(folder: int, record: int) -> int:
    """One number for a record: ``folder`` counts data.music and then data.text, ``record`` counts within the split."""
    return folder << RECORD_BITS | record


def split_record_id(number: int) -> tuple[int, int]:
    """Folder and record of a record id."""
    return number >> RECORD_BITS, number & ((1 << RECORD_BITS) - 1)


def _window(onsets: np.ndarray, room: int, random: bool, rng: np.random.Generator) -> tuple[int, int, int]:
    """First note, one past the last note, and the tick that counts as 0 of a window of at most ``room`` triples.

    A piece that fits is taken whole. Of a longer one the first note is drawn as if windows could hang over both ends,
    and those that would are moved inwards. So inner notes are seen equally often, the others at least as often, and
    the opening and the end, which a plain draw would hardly ever show, in as many windows as any part of their length.
    """
    count = len(onsets)
    length = int(onsets[-1])
    # A long silence in front is an accident of the file, and no control could be written across it.
    base = 0 if onsets[0] <= ANTICIPATION_TICKS else int(onsets[0])
    if count + length // MAX_GAP_TICKS + 1 <= room and length < MAX_ONSET_TICKS:
        return 0, count, base  # a short piece, whatever its rests: the long way comes to the same
    rests = np.maximum(np.diff(onsets) - 1, 0) // MAX_GAP_TICKS
    before = np.arange(count)  # triples written between the piece's first note and each note
    before[1:] += np.cumsum(rests)
    closing = 1
    fits_room = int(np.searchsorted(before, before[-1] + 1 + closing - room))
    fits_time = int(np.searchsorted(onsets, onsets[-1] - MAX_ONSET_TICKS, side="right"))
    last_start = max(fits_room, fits_time)
    start = 0
    if random and last_start > 0:
        notes = count - last_start
        start = min(max(int(rng.integers(1 - notes, count)), 0), last_start)
    base = base if start == 0 else int(onsets[start])
    stop = min(int(np.searchsorted(before, before[start] + room)), int(np.searchsorted(onsets, base + MAX_ONSET_TICKS)))
    return start, stop, base


def _rows(table: NoteTable, start: int, stop: int) -> NoteTable:
    """Some notes of a table, with their onsets as they are."""
    names = ("onsets", "durations", "notes", "velocities")
    return dataclasses.replace(table, **{name: getattr(table, name)[start:stop] for name in names})


def _stretch(table: NoteTable, largest: float, rng: np.random.Generator) -> NoteTable:
    """Makes all notes slower or faster by one factor, as likely the one as the other; the tempo map is left."""
    if largest == 0:
        return table
    factor = (1 + largest) ** rng.uniform(-1, 1)
    # Rounding keeps the order of onsets; some that were apart may now be together.
    onsets = np.rint(table.onsets * factor).astype(np.int32)
    durations = np.minimum(np.rint(table.durations * factor), MAX_DURATION_TICKS - 1).astype(np.int32)
    return dataclasses.replace(table, onsets=onsets, durations=durations)


def _transpose(notes: np.ndarray, largest: int, rng: np.random.Generator) -> np.ndarray:
    """Shifts all pitched notes by one number of semitones, drums by none, and no note out of 0..127."""
    if largest == 0:
        return notes
    shift = int(rng.integers(-largest, largest + 1))
    pitched = notes[2::3] < NOTE_OFFSET + DRUM_PROGRAM * PITCHES
    pitches = (notes[2::3][pitched] - NOTE_OFFSET) % PITCHES
    if not len(pitches):
        return notes
    shift = min(max(shift, -int(pitches.min())), PITCHES - 1 - int(pitches.max()))
    shifted = notes.copy()
    shifted[2::3] += np.int32(shift) * pitched
    return shifted


def _fit(events: np.ndarray, controls: np.ndarray, base: int, room: int, ends: bool) -> tuple[np.ndarray, bool]:
    """As many triples of what a row would hold as there is room for, and whether all are, with the closing one."""
    written = _weave(events, controls, base)
    if len(written) // 3 + ends <= room:
        return written, True
    return written[: 3 * room], False


def _weave(events: np.ndarray, controls: np.ndarray, base: int) -> np.ndarray:
    """What a row holds, flat: onsets counted from ``base``, rests in the gaps, controls ahead of their time."""
    events = anticipation.translate(events, -base)
    controls = anticipation.translate(controls, -base)
    ends = (int(events[-3]) if len(events) else 0, int(anticipation.onsets(controls[-3:])[0]) if len(controls) else 0)
    return anticipation.weave(events, controls, max(ends))


def _count_events(written: np.ndarray) -> int:
    return int(np.count_nonzero(written[2::3] < REST))
