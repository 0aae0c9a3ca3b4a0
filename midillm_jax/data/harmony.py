"""The chords of a piece and the progression that it repeats, from its notes alone.

Every bar is cut into whole beats in a few ways; each part takes the chord whose tones fit best what sounds in it, and
the way that fits best, less a price a part, is kept. This is template matching (T. Fujishima, "Realtime Chord
Recognition of Musical Sound", ICMC 1999) on notes in place of a spectrum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from midillm_jax.data.beats import Grid
from midillm_jax.data.tonality import Key, tuned
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import PITCHES

QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "dim": (0, 3, 6),
    "m7b5": (0, 3, 6, 10),
    "dim7": (0, 3, 6, 9),
    "aug": (0, 4, 8),
    "sus4": (0, 5, 7),
    "5": (0, 7),
}
"""Semitones above the root, by what a chord's name adds to its root."""
_SUFFIXES = tuple(QUALITIES)
_PRICES = {"7": 0.02, "m7": 0.03, "maj7": 0.03, "dim": 0.04, "m7b5": 0.04, "dim7": 0.05, "aug": 0.08, "sus4": 0.06, "5": 0.1}
"""What a quality has to fit better by than a major or a minor triad."""
_ROOT_IN_BASS = 0.15
_PART_PRICE = 0.12
"""What every further chord in a bar has to make good."""
_WEAK_BASS = 0.5
"""Weight of the bass of a part's later beats beside its first."""
_LEAST_FIT = 0.75
"""Cosine below which a part has no chord."""
_LEAST_OVERLAP = 0.1
"""Share of a beat that a note must sound to be its bass."""
_PERIODS = (3, 4, 5)
_MIN_SHARE = 0.5
"""Of the time that must have a chord for the piece to have a progression."""
_NO_CHORD = -1


@dataclass(frozen=True)
class Chord:
    """A chord: its root (pitch class) and what its name adds to the root."""

    root: int
    quality: str

    def name(self, key: Key | None) -> str:
        """ "Bbm7", the root as it is spelled in the key."""
        return _spelled(self.root, key) + self.quality


@dataclass(frozen=True)
class Progression:
    """Chords that follow one another, each unlike the one before."""

    chords: tuple[Chord, ...]
    occurrences: int
    """How often they do, without overlap."""


@dataclass(frozen=True)
class Harmony:
    """The chords of a piece, in order, each unlike the one before."""

    chords: tuple[Chord | None, ...]
    """None where nothing that sounds is a chord."""
    starts: tuple[float, ...]
    """Ticks of 10 ms."""
    share: float
    """Of the time, with a chord."""


def find_harmony(table: NoteTable, grid: Grid) -> Harmony:
    """Chords by the grid's bars and beats."""
    chroma, lowest = _beat_contents(table, grid)
    first, counts = np.unique(grid.bars, return_index=True, return_counts=True)[1:]
    parts = [_cut_bars(chroma, lowest, first[counts == size], int(size)) for size in np.unique(counts)]
    beats, chords = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(beats)
    starts, chords = grid.edges[beats[order]], chords[order]
    lengths = np.diff(starts, append=grid.edges[-1])
    share = float(lengths[chords != _NO_CHORD].sum() / max(lengths.sum(), 1.0))
    changes = np.append(True, chords[1:] != chords[:-1])
    return Harmony(tuple(map(_chord, chords[changes].tolist())), tuple(starts[changes].tolist()), share)


def _chord(number: int) -> Chord | None:
    return None if number == _NO_CHORD else Chord(number % 12, _SUFFIXES[number // 12])


def _beat_contents(table: NoteTable, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """float64 [beats, 12], ticks for which each pitch class sounds; int64 [beats], the lowest one, or -1."""
    chosen = tuned(table)
    begins = table.onsets[chosen].astype(np.float64)
    ends = begins + np.maximum(table.durations[chosen], 1)
    pitches = (table.notes[chosen] % PITCHES).astype(np.int64)
    last = len(grid.bars) - 1
    first = np.clip(np.searchsorted(grid.edges, begins, side="right") - 1, 0, last)
    final = np.clip(np.searchsorted(grid.edges, ends, side="left") - 1, first, last)
    spans = final - first + 1
    note = np.repeat(np.arange(len(begins)), spans)
    beat = first[note] + np.arange(len(note)) - np.repeat(np.cumsum(spans) - spans, spans)
    lower, upper = grid.edges[beat], grid.edges[beat + 1]
    overlap = np.maximum(np.minimum(ends[note], upper) - np.maximum(begins[note], lower), 0)
    chroma = np.bincount(12 * beat + pitches[note] % 12, weights=overlap, minlength=12 * (last + 1)).reshape(-1, 12)
    lowest = np.full(last + 1, PITCHES)
    heard = overlap >= _LEAST_OVERLAP * (upper - lower)
    np.minimum.at(lowest, beat[heard], pitches[note][heard])
    return chroma, np.where(lowest < PITCHES, lowest % 12, -1)


def _cut_bars(chroma: np.ndarray, lowest: np.ndarray, first: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the bars that begin at the beats ``first`` and have ``size`` beats: first beats, chord numbers."""
    beats = first[:, None] + np.arange(size)
    bar_chroma = chroma[beats]
    mass = np.maximum(bar_chroma.sum((1, 2)), 1e-9)
    best = np.full(len(first), -np.inf)
    ways = [_fit(bar_chroma, lowest[beats], way) for way in _ways(size)]
    for number, (way, (_, fits, masses)) in enumerate(zip(_ways(size), ways, strict=True)):
        total = (fits * masses).sum(1) / mass - _PART_PRICE * (len(way) - 1)
        better = total > best
        best[better] = total[better]
        chosen = np.where(better, number, chosen) if number else np.zeros(len(first), np.int64)
    starts, chords = [], []
    for number, (way, (numbers, _, _)) in enumerate(zip(_ways(size), ways, strict=True)):
        mine = chosen == number
        starts.append((first[mine, None] + np.array(way)).ravel())
        chords.append(numbers[mine].ravel())
    return np.concatenate(starts), np.concatenate(chords)


def _ways(size: int) -> list[tuple[int, ...]]:
    """Ways to cut a bar of ``size`` beats, each as its parts' first beats."""
    ways = [(0,)]
    if size % 2 == 0 and size > 2:
        ways.append((0, size // 2))
    if size == 3:
        ways += [(0, 2), (0, 1)]
    if size > 1:
        ways.append(tuple(range(size)))
    return ways


def _fit(chroma: np.ndarray, lowest: np.ndarray, way: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each part [bars, parts]: the number of the chord that fits best, how well, and ticks sounding in it."""
    bars, size = lowest.shape
    sounding = np.add.reduceat(chroma, way, axis=1)
    weights = np.full(size, _WEAK_BASS)
    weights[list(way)] = 1.0
    bass = np.add.reduceat((lowest[:, :, None] == np.arange(12)) * weights[:, None], way, axis=1)
    bass /= np.maximum(bass.sum(2, keepdims=True), 1e-9)
    masses = sounding.sum(2)
    shape = np.sqrt(sounding)
    shape /= np.maximum(np.linalg.norm(shape, axis=2, keepdims=True), 1e-9)
    cosines = shape @ _TEMPLATES.T
    scores = cosines - _QUALITY_PRICES + _ROOT_IN_BASS * np.tile(bass, len(QUALITIES))
    numbers = scores.argmax(2)
    fits = np.take_along_axis(scores, numbers[..., None], 2)[..., 0]
    cosine = np.take_along_axis(cosines, numbers[..., None], 2)[..., 0]
    enough = (cosine >= _LEAST_FIT) & (np.count_nonzero(sounding, 2) >= 2)
    return np.where(enough, numbers, _NO_CHORD), fits, masses


def _templates() -> np.ndarray:
    """float64 [12 * qualities, 12], each row of length 1; the root turns fastest."""
    rows = np.zeros((len(QUALITIES), 12, 12))
    for number, tones in enumerate(QUALITIES.values()):
        for root in range(12):
            rows[number, root, [(root + tone) % 12 for tone in tones]] = 1 / np.sqrt(len(tones))
    return rows.reshape(-1, 12)


_TEMPLATES = _templates()
_QUALITY_PRICES = np.repeat([_PRICES.get(quality, 0.0) for quality in QUALITIES], 12)


def find_progression(chords: Sequence[Chord | None]) -> Progression | None:
    """The three to five chords that come round most, two where they alternate; all of a piece that has few.

    Of two runs the one that covers more of the piece counts, then the longer, then the earlier. None where nothing
    comes twice.
    """
    known = [chord for chord in chords if chord is not None]
    counts: dict[tuple[Chord | None, ...], int] = {}
    ends: dict[tuple[Chord | None, ...], int] = {}
    for length in _PERIODS:
        for start in range(len(chords) - length + 1):
            run = tuple(chords[start : start + length])
            if start >= ends.get(run, 0) and None not in run:
                counts[run] = counts.get(run, 0) + 1
                ends[run] = start + length
    run = max(counts, key=lambda run: (counts[run] * len(run), len(run)), default=())
    if counts.get(run, 0) >= 2:
        if run[:2] == run[2:4] or (run[0] == run[2] and len(run) == 3):
            run = run[:2]
            counts[run] = sum(tuple(chords[at : at + 2]) == run for at in range(len(chords) - 1))
        return Progression(tuple(chord for chord in run if chord is not None), counts[run])
    if 2 <= len(known) == len(chords) <= max(_PERIODS):
        return Progression(tuple(known), 1)
    return None


_LETTERS = "FCGDAEB"
_SHARPEST_ABOVE = 6
"""Fifths above the tonic of the sharpest note that a key spells (its raised fourth); the flattest lies five below."""


def _spelled(pitch_class: int, key: Key | None) -> str:
    """A note's name along the line of fifths, as near as can be to the key's tonic."""
    tonic = 0 if key is None else _fifths(key)
    place = (7 * pitch_class - tonic + 5) % 12 - 5 + tonic
    turn, letter = divmod(place + 1, 7)
    return _LETTERS[letter] + ("#" * turn if turn >= 0 else "b" * -turn)


def _fifths(key: Key) -> int:
    """Where the tonic, as the key's name spells it, stands on the line of fifths; C is 0."""
    name = key.name.split()[0]
    return _LETTERS.index(name[0]) - 1 + 7 * (name.count("#") - name[1:].count("b"))
