"""Structureness: whether stretches of a piece come back, at the time scales of a motif, a phrase and a section.

The structureness indicator of S.-L. Wu and Y.-H. Yang, "The Jazz Transformer on the Front Line", ISMIR 2020, section
4.4: the largest fitness of any segment whose length lies between two bounds. Fitness is that of M. Müller, N. Jiang and
P. Grosche, "A Robust Fitness Measure for Capturing Repetitions in Music Recordings", IEEE TASLP 21 (2013): how well and
how much of the piece a segment's repetitions explain, beyond itself.

They compute it from audio at 2 Hz with smoothed, transposition-invariant chroma; here it is taken from the notes, once
a second, as they are, so that values are not theirs: compare a model's with real music's under this definition.
"""

import dataclasses

import numpy as np

from midillm_jax.data.tonality import tuned
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import MAX_ONSET_TICKS, PITCHES, TICKS_PER_SECOND

_KEPT = 0.2
"""Share of the pairs of seconds, the most alike ones, that may be on a repetition's path."""
_PENALTY = -2.0
"""What stands for the others (Müller's)."""
_LEAST_SECONDS = 6
_SCALES = {"short": (3, 8), "medium": (8, 15), "long": (15, MAX_ONSET_TICKS // TICKS_PER_SECOND)}
"""Seconds from and to which segments last (Wu and Yang, to the end of what one window holds)."""


@dataclasses.dataclass(frozen=True)
class Structureness:
    """The indicator, 0 to 1: 0.75 where a piece is a segment played four times. None where it is too short for two."""

    short: float | None
    """Of segments of 3 to 8 seconds, but no longer than half of the piece."""
    medium: float | None
    """Of 8 to 15."""
    long: float | None
    """Of 15 and more."""


def structureness(notes: NoteTable) -> Structureness | None:
    """Of the first 100 seconds, as much as one window of the model holds; None under 6 s, or where nothing is tuned."""
    chroma = seconds_chroma(notes)
    if len(chroma) < _LEAST_SECONDS or not chroma.any():
        return None
    best = fitness(similarity(chroma))
    found = {
        scale: float(best[low - 1 : high].max()) if len(best) >= low else None for scale, (low, high) in _SCALES.items()
    }
    return Structureness(**found)


def seconds_chroma(notes: NoteTable) -> np.ndarray:
    """float64 [seconds, 12], rows of length 1 or 0: for how long each pitch class sounds in each whole second."""
    chosen = tuned(notes)
    if not chosen.any():
        return np.zeros((0, 12))
    first = int(notes.onsets[0])
    begins = (notes.onsets[chosen] - first).astype(np.int64)
    ends = begins + np.maximum(notes.durations[chosen], 1)
    classes = notes.notes[chosen] % PITCHES % 12
    length = max(min(int(ends.max()), MAX_ONSET_TICKS) // TICKS_PER_SECOND, 0)
    edges = np.arange(length)[:, None] * TICKS_PER_SECOND
    overlap = np.clip(np.minimum(ends, edges + TICKS_PER_SECOND) - np.maximum(begins, edges), 0, None)
    chroma = overlap @ np.eye(12)[classes]
    return chroma / np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-12)


def similarity(chroma: np.ndarray) -> np.ndarray:
    """float64 [N, N]: cosine of each two rows if it is among the highest fifth, else a penalty; 1 on the diagonal."""
    cosine = np.minimum(chroma @ chroma.T, 1.0)
    threshold = np.quantile(cosine, 1 - _KEPT)
    kept = np.where((cosine >= threshold) & (cosine > 0), cosine, _PENALTY)
    np.fill_diagonal(kept, 1.0)
    return kept


def fitness(similarities: np.ndarray) -> np.ndarray:
    """float64 [N // 2]: the largest fitness of any segment of 1, 2, ... N // 2 frames; longer ones cannot come back.

    For every segment the family of paths of most score is found by dynamic programming (steps of one frame in either
    direction or in both, and of two in one), for all segments of a length at a time.
    """
    longest = len(similarities) // 2
    return np.array([_fitness_of_length(similarities, length).max() for length in range(1, longest + 1)])


def _fitness_of_length(similarities: np.ndarray, length: int) -> np.ndarray:
    """float64 [starts]: harmonic mean of normalised score and coverage."""
    total = len(similarities)
    starts = total - length + 1
    # [N, starts, length]: similarities of every frame with those of each segment.
    segments = np.lib.stride_tricks.sliding_window_view(similarities, length, axis=1)
    # Of each cell's best family: score, cells on its paths, frames that they cover. A cell of the segment's last
    # column ends a path; the state beside the segment waits for the next.
    dead = np.zeros((3, starts, length))
    dead[0] = -np.inf
    before, earlier = dead, dead
    waiting = np.zeros((3, starts))
    for here in segments:
        cells = np.empty_like(dead)
        waiting = _best([waiting, before[:, :, -1]])
        cells[:, :, 0] = _added(waiting, here[:, 0], 1)
        # Predecessors: (n-1, m-1), (n-1, m-2), (n-2, m-1); each with the frames that the step newly covers.
        steps = [(before[:, :, :-1], 1), (_shifted(before), 1), (earlier[:, :, :-1], 2)]
        cells[:, :, 1:] = _best([_added(state, here[:, 1:], rows) for state, rows in steps])
        before, earlier = cells, before
    score, cells_on_paths, covered = _best([waiting, before[:, :, -1]])
    score = np.maximum(score - length, 0) / np.maximum(cells_on_paths, 1)
    coverage = np.maximum(covered - length, 0) / total
    return 2 * score * coverage / np.maximum(score + coverage, 1e-12)


def _shifted(state: np.ndarray) -> np.ndarray:
    """The predecessors two columns before each column but the first; the second column has none."""
    shifted = np.zeros_like(state[:, :, :-1])
    shifted[0] = -np.inf
    shifted[:, :, 1:] = state[:, :, :-2]
    return shifted


def _added(state: np.ndarray, gains: np.ndarray, rows: int) -> np.ndarray:
    return state + np.stack([gains, np.ones_like(gains), np.full_like(gains, rows)])


def _best(states: list[np.ndarray]) -> np.ndarray:
    """Of states [3, ...], at each place the one of most score."""
    best = states[0]
    for state in states[1:]:
        best = np.where(state[0] > best[0], state, best)
    return best
