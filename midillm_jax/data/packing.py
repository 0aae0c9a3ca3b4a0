"""Segments into rows.

Each stream packs by itself: it keeps a few examples at hand, opens a row with the oldest, adds the longest that still
fits, again and again, and cuts one to fill what is left; the rest of it waits with the others. Nothing is dropped and
rows are nearly full whatever the lengths.

Grain's own packers are not used because they pad instead (a corpus of pieces that each fill 60 % of a row would waste
40 %), and because their state is that of the input some rows ago, from which they pack again. Here the state is the
numbers of the examples at hand: a few hundred bytes, exact after every row.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from midillm_jax.data.windows import Stretch
from midillm_jax.music.vocab import NO_SLOT
from midillm_jax.text.prompt import Segment

PENDING_MUSIC = 16
"""Pieces at hand: enough that one of them fits, few enough that a stream's order stays its own."""
PENDING_TEXT = 1
"""Documents are cut anywhere, so they are packed in order."""

Batch = dict[str, np.ndarray]
"""Fields of :func:`empty_batch`."""


def empty_batch(rows: int, length: int) -> Batch:
    """A batch of padding.

    ``tokens``, ``segment_ids`` and ``positions`` int32, ``loss_weights`` float32, ``slot`` int8, ``record_ids``
    int64, all [rows, length]. Padding has token 0, segment 0, position 0, weight 0, slot -1 and record -1; segments
    of a row are numbered from 1, and positions count from 0 in each.
    """
    return {
        "tokens": np.zeros((rows, length), np.int32),
        "segment_ids": np.zeros((rows, length), np.int32),
        "positions": np.zeros((rows, length), np.int32),
        "loss_weights": np.zeros((rows, length), np.float32),
        "slot": np.full((rows, length), NO_SLOT, np.int8),
        "record_ids": np.full((rows, length), -1, np.int64),
    }


def _place(batch: Batch, row: int, start: int, segment: Segment, segment_id: int, record_id: int) -> int:
    """Writes a segment at index ``start`` of a row; returns the index behind it."""
    end = start + len(segment)
    batch["tokens"][row, start:end] = segment.tokens
    batch["segment_ids"][row, start:end] = segment_id
    batch["positions"][row, start:end] = np.arange(len(segment), dtype=np.int32)
    batch["loss_weights"][row, start:end] = segment.loss_weights
    batch["slot"][row, start:end] = segment.slot
    batch["record_ids"][row, start:end] = record_id
    return end


@dataclasses.dataclass(frozen=True)
class _Pending:
    """An example at hand, or what is left of one."""

    index: int
    stretch: Stretch
    size: int


def fresh_state() -> dict[str, Any]:
    """The state of a packer that has packed nothing."""
    return {"next": 0, "pending": []}


class RowPacker:
    """Fills rows from one endless, randomly accessible list of examples."""

    def __init__(self, example: Callable[[int], Stretch], capacity: int, pending: int) -> None:
        """``example(i)`` gives the i-th; ``capacity`` is the usable length of a row; ``pending`` how many are at hand.

        For music the capacity is a multiple of 3: every segment then ends on one, and the next may begin there.
        """
        self._example = example
        self._capacity = capacity
        self._size = pending
        self._next = 0
        self._pending: list[_Pending] = []

    def fill(self, batch: Batch, row: int) -> None:
        """Packs one row of an empty batch."""
        start = 0
        segment_id = 1
        while True:
            self._gather()
            space = self._capacity - start
            chosen = self._choose(space, oldest=start == 0)
            if chosen is None:
                break
            pending = self._pending.pop(chosen)
            start += pending.stretch.lead
            start = _place(batch, row, start, pending.stretch.segment(), segment_id, pending.stretch.record_id)
            segment_id += 1
        # The longest is the likeliest to be a window of a long piece, which loses nothing by being cut.
        for chosen in sorted(range(len(self._pending)), key=lambda at: -self._pending[at].size):
            pending = self._pending[chosen]
            parts = pending.stretch.cut(space)
            if parts is not None:
                segment, rest = parts
                self._pending[chosen] = _Pending(pending.index, rest, rest.size)
                start += pending.stretch.lead
                _place(batch, row, start, segment, segment_id, pending.stretch.record_id)
                break

    def get_state(self) -> dict[str, Any]:
        """Which example comes next, and [number, offset] of those at hand."""
        return {"next": self._next, "pending": [[pending.index, pending.stretch.offset] for pending in self._pending]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Reads the examples at hand again."""
        self._next = state["next"]
        self._pending = []
        for index, offset in state["pending"]:
            stretch = self._example(index)
            if offset:
                stretch = stretch.after(offset)
            self._pending.append(_Pending(index, stretch, stretch.size))

    def _gather(self) -> None:
        while len(self._pending) < self._size:
            stretch = self._example(self._next)
            self._pending.append(_Pending(self._next, stretch, stretch.size))
            self._next += 1

    def _choose(self, space: int, oldest: bool) -> int | None:
        """Which example to place whole: the oldest to open a row, so that none waits for ever, else the longest."""
        candidates = range(1) if oldest else range(len(self._pending))
        best, best_size = None, 0
        for at in candidates:
            size = self._pending[at].size
            if best_size < size <= space:
                best, best_size = at, size
        return best
