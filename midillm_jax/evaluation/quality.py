"""What can be said about music without a caption, and how near a set of pieces comes to a set of references.

Measures are MusPy's (H.-W. Dong et al., "MusPy: A Toolkit for Symbolic Music Generation", ISMIR 2020) by their
published definitions, on steps of 10 ms; where bars are needed, they are those that are heard
(:mod:`~midillm_jax.music.rhythm`), since notes without a file carry none. None of them is better the higher or
the lower it is: they are read beside real music's, by the area that two distributions share.
"""

import bz2
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from midillm_jax.evaluation.intervals import Interval, bootstrap
from midillm_jax.evaluation.structure import Structureness, structureness
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.rhythm import COMPOUND, DUPLE, TRIPLE, Rhythm, find_rhythm
from midillm_jax.music.signatures import signatures
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, TICKS_PER_SECOND

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_BAR = {DUPLE: (4, 16), TRIPLE: (3, 12), COMPOUND: (2, 12)}
"""Of each kind of meter: the beats that are taken for a bar, and the places in it, four or six a beat."""
_GRID = 512
"""Points at which densities are compared."""
_REACH = 4.0
"""Bandwidths beyond the outermost values that densities are followed."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """Measures of a piece; None where it has nothing to measure."""

    pitch_class_entropy: float | None
    """Bits, 0 to log2(12) = 3.58, of the notes' pitch classes, drums left out."""
    scale_consistency: float | None
    """Share of the notes, drums left out, in the major or natural minor scale that holds most of them."""
    groove_consistency: float | None
    """1 minus the share of places in which onsets of neighbouring bars differ."""
    polyphony: float | None
    """Pitches that sound at a time, where any does, drums left out."""
    polyphony_rate: float | None
    """Share of the time in which two pitches or more sound. MusPy 0.5.0's code counts three or more."""
    empty_share: float | None
    """Share of the time, not of beats as in MusPy, in which nothing sounds."""
    compression_ratio: float | None
    structureness: Structureness | None


def measure(notes: NoteTable) -> Quality:
    """All measures of a piece."""
    if not len(notes):
        return Quality(*(None,) * len(dataclasses.fields(Quality)))
    chords = sounding_pitches(notes)
    return Quality(
        pitch_class_entropy=pitch_class_entropy(notes),
        scale_consistency=scale_consistency(notes),
        groove_consistency=groove_consistency(notes, find_rhythm(notes)),
        polyphony=float(chords.sum() / np.count_nonzero(chords)) if chords.any() else None,
        polyphony_rate=float(np.count_nonzero(chords >= 2) / len(chords)) if chords.any() else None,
        empty_share=signatures(notes).silent_share,
        compression_ratio=compression_ratio(notes),
        structureness=structureness(notes),
    )


def pitch_class_counts(notes: NoteTable) -> np.ndarray:
    """int64 [12]: notes of each pitch class, C first, drums left out."""
    pitched = notes.notes[notes.notes // PITCHES != DRUM_PROGRAM]
    return np.bincount(pitched % PITCHES % 12, minlength=12)


def pitch_class_entropy(notes: NoteTable) -> float | None:
    """Shannon entropy, in bits, of how the notes divide among pitch classes (S.-L. Wu and Y.-H. Yang, ISMIR 2020)."""
    counts = pitch_class_counts(notes)
    if not counts.any():
        return None
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no negative zero


def scale_consistency(notes: NoteTable) -> float | None:
    """The largest share of notes in any of 24 scales (O. Mogren, "C-RNN-GAN", 2016)."""
    counts = pitch_class_counts(notes)
    if not counts.any():
        return None
    inside = [np.roll(counts, -root)[list(scale)].sum() for scale in _SCALES.values() for root in range(12)]
    return float(max(inside) / counts.sum())


def groove_consistency(notes: NoteTable, rhythm: Rhythm | None) -> float | None:
    """1 minus the mean Hamming distance of neighbouring bars' onsets, each bar a row of places with and without one.

    S.-L. Wu and Y.-H. Yang, ISMIR 2020, between neighbours as in MusPy. Bars are counted from the first onset, as long
    as the heard beat and kind of meter make them; None where no rhythm is heard or there is no second bar.
    """
    if rhythm is None:
        return None
    beats, places = _BAR[rhythm.meter]
    step = beats * 60 * TICKS_PER_SECOND / rhythm.bpm / places
    steps = np.round((notes.onsets - notes.onsets[0]) / step).astype(np.int64)
    bars = int(steps.max()) // places + 1
    if bars < 2:
        return None
    grid = np.zeros(bars * places, bool)
    grid[steps] = True
    patterns = grid.reshape(bars, places)
    return 1 - float((patterns[1:] != patterns[:-1]).mean())


def sounding_pitches(notes: NoteTable) -> np.ndarray:
    """int64 [ticks]: different pitches that sound, drums left out, from the first onset of any note to the last end."""
    first = int(notes.onsets[0])
    length = int((notes.onsets + np.maximum(notes.durations, 1)).max()) - first
    pitched = notes.notes // PITCHES != DRUM_PROGRAM
    # Each pitch on a stretch of its own, so that one running maximum finds where it stops sounding.
    offsets = (notes.notes[pitched] % PITCHES).astype(np.int64) * (length + 1)
    begins = offsets + notes.onsets[pitched] - first
    ends = begins + np.maximum(notes.durations[pitched], 1)
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    if not len(begins):
        return np.zeros(length, np.int64)
    new = np.append(True, begins[1:] > ends[:-1])
    starts = np.bincount(begins[new] % (length + 1), minlength=length + 1)
    stops = np.bincount(ends[np.append(new[1:], True)] % (length + 1), minlength=length + 1)
    return np.cumsum(starts - stops)[:length]


def compression_ratio(notes: NoteTable) -> float:
    """Bytes of the notes as numbers of two bytes, divided by what bzip2 leaves of them: repetition makes it high.

    The numbers are those of the model's tokens, but for onsets, of which the distance to the one before is taken, so
    that what is played again is written again. Text2midi's compression ratio is another, by patterns (COSIATEC).
    """
    gaps = np.minimum(np.diff(notes.onsets, prepend=notes.onsets[0]), np.iinfo(np.uint16).max)
    plain = np.stack([gaps, notes.durations, notes.notes], axis=1).astype("<u2").tobytes()
    return len(plain) / len(bz2.compress(plain))


def overlapped_area(first: np.ndarray, second: np.ndarray) -> float:
    """The area under both of two densities, 1 where they are the same, 0 where they do not meet.

    L.-C. Yang and A. Lerch, "On the evaluation of generative models in music", Neural Computing and Applications 32
    (2020), section 4.2: Gaussian kernels with bandwidths by Scott's rule. There it is taken of distances between
    pieces; here of the measures themselves. Values that are all alike get the other set's bandwidth.
    """
    grid, (kernels, others) = _kernels(first, second)
    return float(_shared(kernels.mean(1), others.mean(1), grid))


def _kernels(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Points [G] of a grid, and each set's kernels [G, n] on it."""
    values = [np.asarray(each, np.float64) for each in (first, second)]
    widths = [each.std(ddof=1) * len(each) ** -0.2 if len(each) > 1 else 0.0 for each in values]
    least = max(widths) or 1e-3 * max(1.0, abs(float(values[0][0])))
    widths = [width or least for width in widths]
    low = min(each.min() for each in values) - _REACH * max(widths)
    high = max(each.max() for each in values) + _REACH * max(widths)
    grid = np.linspace(low, high, _GRID)
    kernels = [
        np.exp(-0.5 * ((grid[:, None] - each) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        for each, width in zip(values, widths, strict=True)
    ]
    return grid, kernels


def _shared(first: np.ndarray, second: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Area under both densities [..., G]; each is first made to have the area 1 on the grid."""
    first, second = (each / np.trapezoid(each, grid)[..., None] for each in (first, second))
    return np.trapezoid(np.minimum(first, second), grid)


@dataclasses.dataclass(frozen=True)
class Nearness:
    """One measure of generated pieces beside that of references."""

    name: str
    pieces: int
    references: int
    mean: Interval
    reference_mean: float
    overlap: Interval
    """Overlapped area; resampled over the generated pieces, at their bandwidth, while the references stay."""


def summary(generated: Sequence[Quality], references: Sequence[Quality], seed: int) -> tuple[Nearness, ...]:
    """Every measure that both sets have, those of structureness by time scale."""
    names = dict.fromkeys(name for each in (*generated, *references) for name in values(each))
    found = []
    for name in names:
        mine, theirs = (
            np.array([every[name] for each in pieces if name in (every := values(each))], np.float64)
            for pieces in (generated, references)
        )
        if len(mine) and len(theirs):
            found.append(_nearness(name, mine, theirs, seed))
    return tuple(found)


def _nearness(name: str, mine: np.ndarray, theirs: np.ndarray, seed: int) -> Nearness:
    overlaps = resampled_overlap(mine, theirs)

    def scores(weights: np.ndarray) -> np.ndarray:
        return np.stack([weights @ mine / len(mine), overlaps(weights)], axis=1)

    mean, overlap = bootstrap(scores, len(mine), seed)
    return Nearness(name, len(mine), len(theirs), mean, float(theirs.mean()), overlap)


def resampled_overlap(mine: np.ndarray, theirs: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The overlapped area as a function of how often each of ``mine`` is drawn, float64 [R, n] -> [R].

    The bandwidths are those of every value drawn once.
    """
    grid, (kernels, reference_kernels) = _kernels(mine, theirs)
    density = reference_kernels.mean(1)
    return lambda weights: _shared(weights @ kernels.T, density, grid)


def values(quality: Quality) -> dict[str, float]:
    """The measures that a piece has, by name."""
    flat: dict[str, Any] = dataclasses.asdict(quality)
    scales = flat.pop("structureness") or {}
    flat |= {f"structureness_{name}": value for name, value in scales.items()}
    return {name: value for name, value in flat.items() if value is not None}
