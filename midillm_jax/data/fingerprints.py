"""When two pieces are the same music: exactly, or nearly, whatever their key, tempo, loudness and instruments.

Nearly is measured on *shingles*: runs of seven pitched notes in playing order, told by the six intervals between them.
Intervals do not change when a piece is transposed, nor its order when it is played faster; a changed note changes the
seven runs that it is part of. Notes that begin within TOGETHER_TICKS of each other count as a chord and go from low to
high, so that rounding, and the unevenness of a human hand, do not shuffle them. Drums are left out.

A piece is looked at twice: as a whole (which survives when parts are given to other instruments) and each program by
itself (which survives when a part is added or left out). The similarity of two pieces is the larger Jaccard index of
these two sets of shingles: the share that both have of those that either has.

A piece with fewer than LEAST_SHINGLES different shingles says too little of itself, and is only compared exactly.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Hashable
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from midillm_jax.data.jobs import notes_digest
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES

INTERVALS = 6
"""Of a shingle. With fewer, tunes of one tradition begin to look alike; with more, fewer edits are seen through."""
TOGETHER_TICKS = 2
"""Notes at most 20 ms apart are a chord."""
LEAST_SHINGLES = 32
BANDS, ROWS = 24, 3
"""Of the index: with a similarity of 0.4 a pair is compared with probability 0.79, of 0.5 0.96, of 0.6 0.997."""
_MARGIN = 0.2
"""A pair whose similarity the sketches put this far below the threshold is not compared shingle by shingle: of those at
a threshold of 0.4 that is 1 in 6,000, of those at 0.1 nearly all."""
_SEED = 1
_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xD3A2646D)
"""Odd, one an interval: a shingle's number is the sum of its intervals times these, modulo 2**32."""

Place = TypeVar("Place", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What a piece is compared by."""

    digest: str
    """Equal for pieces that play the same notes (:func:`~midillm_jax.data.jobs.notes_digest`)."""
    whole: np.ndarray
    """uint32 [shingles], sorted, each once."""
    by_program: np.ndarray
    """The same, of each program by itself; those of a piece for one instrument are ``whole``."""

    def views(self) -> tuple[np.ndarray, ...]:
        """The sets that say enough, each once."""
        sets = (self.whole,) if self.by_program is self.whole else (self.whole, self.by_program)
        return tuple(view for view in sets if len(view) >= LEAST_SHINGLES)

    @functools.cached_property
    def sketches(self) -> tuple[Any, ...]:
        """A MinHash of each view."""
        return tuple(_minhash(view) for view in self.views())

    @property
    def minima(self) -> np.ndarray:
        """uint32 [views, BANDS * ROWS]: what the sketches hold."""
        return np.array([sketch.hashvalues for sketch in self.sketches], np.uint32).reshape(-1, BANDS * ROWS)


def fingerprint(notes: NoteTable) -> Fingerprint:
    """The fingerprint of a piece."""
    pitched = notes.notes < PITCHES * DRUM_PROGRAM
    onsets = notes.onsets[pitched].astype(np.int64)
    programs, pitches = np.divmod(notes.notes[pitched].astype(np.int64), PITCHES)
    whole = _shingles(onsets, pitches, np.zeros_like(programs))
    alone = bool((programs == programs[:1]).all())
    return Fingerprint(notes_digest(notes), whole, whole if alone else _shingles(onsets, pitches, programs))


def similarity(one: Fingerprint, other: Fingerprint) -> float:
    """0 to 1: the larger of the two views' Jaccard indices, of those views that say enough on both sides."""
    pairs = ((one.whole, other.whole), (one.by_program, other.by_program))
    enough = [pair for pair in pairs if min(map(len, pair)) >= LEAST_SHINGLES]
    return max((_jaccard(*pair) for pair in enough), default=0.0)


@dataclasses.dataclass(frozen=True)
class Match(Generic[Place]):
    """The piece that another one equals."""

    place: Place
    reason: Literal["exact", "near"]
    similarity: float


class Index(Generic[Place]):
    """Pieces that others are compared with; which ones are like a given one, MinHash guesses and the notes decide.

    Which pairs are compared follows from the shingles by fixed hashes, so the same pieces give the same answers.
    """

    def __init__(self, threshold: float, read: Callable[[Place], Fingerprint]) -> None:
        """Similar is what reaches ``threshold``; ``read`` gives the fingerprint of a piece once more, by its place."""
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._read = read
        self._places: list[Place] = []
        self._exact: dict[bytes, int] = {}
        self._near = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._sketches: list[np.ndarray] = []
        self.compared = 0
        """Pairs whose shingles were compared one by one."""

    def __len__(self) -> int:
        return len(self._places)

    def add(self, place: Place, piece: Fingerprint) -> None:
        """Keeps a piece; of several that match, the one added first is found."""
        number = len(self._places)
        self._places.append(place)
        self._sketches.append(piece.minima)
        self._exact.setdefault(_key(piece), number)
        for side, sketch in enumerate(piece.sketches):
            self._near.insert(2 * number + side, sketch, check_duplication=False)

    def find(self, piece: Fingerprint, among: int | None = None) -> Match[Place] | None:
        """The first piece that plays the same notes, else the first that is similar enough.

        ``among`` looks at that many of the pieces added, the first ones; None at all of them.
        """
        among = len(self) if among is None else among
        same = self._exact.get(_key(piece), among)
        if same < among:
            return Match(self._places[same], "exact", 1.0)
        near = {key // 2 for sketch in piece.sketches for key in self._near.query(sketch)}
        for number in sorted(near):
            if number >= among:
                break
            if _estimate(piece.minima, self._sketches[number]) < self._threshold - _MARGIN:
                continue
            self.compared += 1
            found = similarity(piece, self._read(self._places[number]))
            if found >= self._threshold:
                return Match(self._places[number], "near", found)
        return None


def _key(piece: Fingerprint) -> bytes:
    return bytes.fromhex(piece.digest)[:16]


def _shingles(onsets: np.ndarray, pitches: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Numbers of the runs of INTERVALS intervals within each part, uint32, sorted, each once."""
    if len(onsets) <= INTERVALS:
        return np.zeros(0, np.uint32)
    # One integer a note sorts far faster than columns: part from bit 40 on, onset from bit 7 on, pitch below.
    notes = np.sort(parts << 40 | onsets << 7 | pitches)
    chords = np.concatenate([[0], np.cumsum(np.diff(notes >> 7) > TOGETHER_TICKS)])
    notes = np.sort(notes >> 40 << 40 | chords << 7 | (notes & 127))
    intervals = np.diff(notes & 127).astype(np.uint32)  # a step down wraps around, which is as good a number
    count = len(intervals) - INTERVALS + 1
    numbers = np.zeros(count, np.uint32)
    for step, multiplier in enumerate(_MULTIPLIERS):
        numbers += intervals[step : step + count] * np.uint32(multiplier)
    part = notes >> 40
    numbers = np.sort(numbers[part[:count] == part[INTERVALS:]])
    return numbers[np.diff(numbers, prepend=~numbers[:1]) != 0]  # np.unique hashes, which is many times slower


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _estimate(one: np.ndarray, other: np.ndarray) -> float:
    """What two pieces' sketches say of their similarity; of the views, those that are most alike."""
    return float((one[:, None] == other[None]).mean(axis=2).max())


def _minhash(view: np.ndarray) -> Any:
    from datasketch import MinHash

    # The shingles are numbers already, so the library's hash of each (a SHA-1) is left out; it mixes them itself.
    sketch = MinHash(BANDS * ROWS, _SEED, hashfunc=operator.index, permutations=_permutations(), scheme="affine32")
    sketch.update_batch(view.tolist())
    return sketch


@functools.cache
def _permutations() -> Any:
    from datasketch import MinHash

    return MinHash(BANDS * ROWS, _SEED, scheme="affine32").permutations
