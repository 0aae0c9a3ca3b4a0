"""Held-out pieces that nearly are a piece of the train split, though neither their notes nor their captions are equal.

The same music in another key, tempo or instrumentation (data/fingerprints.py), by the threshold of ``prepare dedupe``:
what was learned by heart is not foreseen.
"""

from collections.abc import Callable, Sequence

from midillm_jax.data.fingerprints import Index, fingerprint
from midillm_jax.data.shards import Piece, SplitReader

THRESHOLD = 0.4
"""Least share of shingles that two pieces have in common."""
_REPORT_EVERY = 64


def find(train: SplitReader, pieces: Sequence[Piece], report: Callable[[int, int], None]) -> tuple[bool, ...]:
    """Whether each piece has a near duplicate in the train split.

    Args:
        train: the split; every piece of it is read once.
        pieces: held-out ones.
        report: called now and then with pieces compared, and of how many.
    """
    index: Index[int] = Index(THRESHOLD, lambda record: fingerprint(train.piece(record).notes))
    for record in range(len(train)):
        index.add(record, fingerprint(train.piece(record).notes))
        if record % _REPORT_EVERY == 0:
            report(record, len(train))
    return tuple(index.find(fingerprint(piece.notes)) is not None for piece in pieces)
