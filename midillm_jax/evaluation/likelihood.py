"""Bits a note on held-out pieces, beside a unigram and a 5-gram model: how well a model foresees held-out music.

Every held-out note counts once. A piece is cut, from its start on, into windows as training lays them out (flag,
triples, rests, the SEPARATOR triple where the piece ends), each with the piece's caption in front. The model, the
unigram and the 5-gram (ngram.py) see the same windows; what is added up is the nats of all music targets, rests and
separators included, and what it is divided by is ln 2 and the notes that sound.

The unigram counts, for each slot by itself, the targets of the train split laid out in the same way, and adds one to
each id that the slot can hold where there are no controls: 10,000 onsets, 1,000 durations, or 16,512 notes and REST,
and SEPARATOR. The model's denominator is that of its slot-normalised training loss, which holds the control ids too:
that can only make the model look worse.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from midillm_jax.evaluation.intervals import Interval, bootstrap, is_better
from midillm_jax.music.amt import encode_notes
from midillm_jax.music.anticipation import pad, translate
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import (
    ANTICIPATION_TICKS,
    DURATION_OFFSET,
    MAX_DURATION_TICKS,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    NOTES,
    ONSET_OFFSET,
    REST,
    SEPARATOR,
)
from midillm_jax.text.prompt import Segment, music_segment

SLOTS = ("onset", "duration", "note")
SLOT_STARTS = (ONSET_OFFSET, DURATION_OFFSET, NOTE_OFFSET)
PLAIN_WIDTHS = (MAX_ONSET_TICKS, MAX_DURATION_TICKS, NOTES + 1)
"""Ids of each slot from its start on without controls and SEPARATOR; the note slot's last is REST."""


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a piece as the model sees it."""

    amt_ids: np.ndarray
    """int32 [3n] triples, rests and the closing SEPARATOR triple included."""
    closed: bool
    """Whether it ends with the SEPARATOR triple."""

    def segment(self, prompt: Sequence[int], text_vocab_size: int) -> Segment:
        """Prompt, flag and music, with the slot of every token."""
        music = self.amt_ids[:-3] if self.closed else self.amt_ids
        return music_segment(prompt, music, text_vocab_size=text_vocab_size, closed=self.closed, anticipated=False)


def cut(notes: NoteTable, triples: int) -> list[Window]:
    """A piece as consecutive windows of at most ``triples`` triples and 10,000 ticks; every note is in one of them."""
    events = encode_notes(notes)
    windows: list[Window] = []
    while len(events):
        first = int(events[0])
        # As in training: a long silence in front of a piece is an accident of the file.
        base = 0 if not windows and first <= ANTICIPATION_TICKS else first
        near = translate(events[: 3 * triples], -base)
        near = near[: 3 * int(np.searchsorted(near[0::3], MAX_ONSET_TICKS))]
        written = pad(near, int(near[-3]))
        # A REST may not open a piece.
        written = written[3 * int(np.argmax(written[2::3] != REST)) :][: 3 * triples]
        taken = sounding(written)
        closed = 3 * taken == len(events) and len(written) // 3 < triples
        if closed:
            written = np.concatenate([written, np.full(3, SEPARATOR, np.int32)])
        windows.append(Window(written, closed))
        events = events[3 * taken :]
    return windows


def slot_indices(amt_ids: np.ndarray) -> np.ndarray:
    """Each triple's place among its slots' plain ids, SEPARATOR behind them: int64 [n, 3]."""
    triples = np.asarray(amt_ids, np.int64).reshape(-1, 3)
    return np.where(triples == SEPARATOR, PLAIN_WIDTHS, triples - np.array(SLOT_STARTS))


def sounding(amt_ids: np.ndarray) -> int:
    """Notes among triples: neither rests nor separators."""
    return int(np.count_nonzero(np.asarray(amt_ids)[2::3] < REST))


class Unigram:
    """How often each id stands in its slot, whatever comes before it; one is added to every count."""

    def __init__(self) -> None:
        self._counts = [np.ones(width + 1) for width in PLAIN_WIDTHS]

    def add(self, amt_ids: np.ndarray) -> None:
        """Counts a window."""
        for slot, indices in enumerate(slot_indices(amt_ids).T):
            np.add.at(self._counts[slot], indices, 1)

    def nats(self, amt_ids: np.ndarray) -> np.ndarray:
        """Negative log-likelihood of a window by slot, float64 [3]."""
        return np.array(
            [
                np.sum(np.log(counts.sum()) - np.log(counts[indices]))
                for counts, indices in zip(self._counts, slot_indices(amt_ids).T, strict=True)
            ]
        )


@dataclasses.dataclass(frozen=True)
class PieceNats:
    """What one held-out piece cost."""

    piece_id: str
    name: str
    notes: int
    """Notes that sound."""
    model: tuple[float, float, float]
    """Nats by slot: onset, duration, note."""
    unigram: tuple[float, float, float]
    ngram: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Bits a note over all pieces, with intervals over pieces."""

    pieces: int
    notes: int
    model: Interval
    unigram: Interval
    better_by: Interval
    """Unigram minus model, piece by piece on the same draws."""
    wins: bool
    """Whether it beats the unigram by more than chance."""
    ngram: Interval
    better_than_ngram_by: Interval
    """5-gram minus model, likewise."""
    beats_ngram: bool
    model_by_slot: dict[str, float]
    unigram_by_slot: dict[str, float]
    ngram_by_slot: dict[str, float]

    def lines(self) -> tuple[str, str]:
        """The result beside the unigram, and beside the 5-gram."""
        model = f"bits a note on {self.pieces} unseen pieces: {self.model.numbers()}"
        return (
            f"{model}, unigram {self.unigram.numbers()}: {_verdict(self.wins, self.better_by)}",
            f"bits a note of a 5-gram on them: {self.ngram.numbers()}: the model is "
            f"{_verdict(self.beats_ngram, self.better_than_ngram_by)}",
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"lines": self.lines()}


def summarize(pieces: Sequence[PieceNats], seed: int) -> Likelihood:
    """Adds up the pieces; at least one, with at least one note."""
    notes = np.array([piece.notes for piece in pieces], np.float64)
    by_slot = np.array([(piece.model, piece.unigram, piece.ngram) for piece in pieces]) / np.log(2)
    model, unigram, ngram = by_slot.sum(2).T
    bits = np.stack([model, unigram, unigram - model, ngram, ngram - model], axis=1)
    intervals = bootstrap(lambda weights: weights @ bits / (weights @ notes)[:, None], len(pieces), seed)
    means = [dict(zip(SLOTS, row, strict=True)) for row in (by_slot.sum(0) / notes.sum()).tolist()]
    return Likelihood(
        pieces=len(pieces),
        notes=int(notes.sum()),
        model=intervals[0],
        unigram=intervals[1],
        better_by=intervals[2],
        wins=is_better(intervals[2], len(pieces)),
        ngram=intervals[3],
        better_than_ngram_by=intervals[4],
        beats_ngram=is_better(intervals[4], len(pieces)),
        model_by_slot=means[0],
        unigram_by_slot=means[1],
        ngram_by_slot=means[2],
    )


def _verdict(wins: bool, better_by: Interval) -> str:
    return f"better by {better_by.numbers()}" if wins else f"not better ({better_by.numbers()})"
