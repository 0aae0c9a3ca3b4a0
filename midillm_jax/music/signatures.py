"""Signs of failed music, read from the notes alone: loops, piled-up notes, silence, next to nothing.

Music that a model writes has no tempo map, so that nothing here asks for one: a loop's bar is whatever stretch of time
the notes themselves come back after. Onsets may be a tick or two off, as they are where a bar is no whole number of
ticks. ``benchmarks/signatures.py`` holds every threshold against real pieces and against made-up failures.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import TICKS_PER_SECOND

# Loops and silence: the tightest round value that rejects by itself no more than 1 in 200 of 1,543 real openings and
# 1 in 20 of any of their sources. Floods: a quarter above the fullest of these pieces, among which orchestras are few.
# docs/watching.md has the shares and the distributions.
LOOPING_SHARE = 0.5
"""Above this share of bars in one run of repeats, a piece loops. Of real openings half have 0, 99 in 100 below 0.4."""
MOST_TOGETHER = 48
"""More notes than this on one tick are a flood. A symphony's chord has up to 37; the grammar stops a model at 64."""
MOST_A_SECOND = 100.0
"""More notes a second than this, over the whole piece, are a flood. Real pieces have up to 80."""
LEAST_NOTES = 16
LEAST_SECONDS = 5.0
MOST_SILENCE = 0.4
"""Above this share of its time in which nothing sounds, a piece counts as empty. Real ones have up to 0.48."""
LONGEST_SILENCE = 5.0
"""Seconds; a longer gap between notes counts as empty too. 3 real openings in 1,543 have one."""

_SAME_BAR = 0.8
"""Jaccard index of two bars' notes from which one repeats the other; at 0.9, one wrong note in fifty hides a loop."""
_TOLERANCE = 3
"""Ticks by which the distance of two onsets may be off: each is rounded, and so is the bar."""
_SHORTEST_BAR, _LONGEST_BAR = 100, 1600
"""Ticks: from one bar of a fast waltz to eight of a slow march, in which loops of 1, 2, 4 and 8 bars lie."""
_LEAST_BARS = 4
_PERIODS_TRIED = 16


@dataclasses.dataclass(frozen=True)
class Signatures:
    """What was found in a piece. Times are from its first note on."""

    notes: int
    seconds: float
    """From the first note's onset to the last end."""
    loop_share: float
    """Bars in the longest run of bars that each repeat the one before, as a share of all bars."""
    loop_seconds: float
    """Length of those bars; 0 where nothing repeats."""
    most_together: int
    """Notes on the fullest tick."""
    notes_a_second: float
    """Over the time in which they begin, or over a second if that is less."""
    silent_share: float
    """Share of the time in which nothing sounds."""
    longest_silence: float
    """Seconds."""

    @property
    def looping(self) -> bool:
        """Most of the piece is one stretch played over and over."""
        return self.loop_share > LOOPING_SHARE

    @property
    def flooded(self) -> bool:
        """Notes are piled up beyond what any ensemble plays."""
        return self.most_together > MOST_TOGETHER or self.notes_a_second > MOST_A_SECOND

    @property
    def empty(self) -> bool:
        """Next to nothing is there, or there are holes in it."""
        return self.notes < LEAST_NOTES or self.seconds < LEAST_SECONDS or self.holey

    @property
    def holey(self) -> bool:
        """For much of the time, or for long at a stretch, nothing sounds."""
        return self.silent_share > MOST_SILENCE or self.longest_silence > LONGEST_SILENCE

    @property
    def rejected(self) -> bool:
        """Any of the three."""
        return self.looping or self.flooded or self.empty


def signatures(table: NoteTable, stretch: tuple[int, int] | None = None) -> Signatures:
    """The signs in a piece; one without notes is empty and nothing else.

    Args:
        table: the notes, of a stretch those that begin in it.
        stretch: the first tick and the first behind, where silence at both ends counts too; from the first onset to the
            last end if None.
    """
    if not len(table):
        length = 0 if stretch is None else stretch[1] - stretch[0]
        return Signatures(0, 0.0, 0.0, 0.0, 0, 0.0, float(length > 0), length / TICKS_PER_SECOND)
    begins, last = (int(table.onsets[end]) / TICKS_PER_SECOND for end in (0, -1))
    share, bar = longest_loop(table)
    silent, longest = _silence(table, stretch)
    return Signatures(
        notes=len(table),
        seconds=table.seconds() - begins,
        loop_share=share,
        loop_seconds=bar,
        most_together=int(np.unique(table.onsets, return_counts=True)[1].max()),
        notes_a_second=len(table) / max(last - begins, 1.0),
        silent_share=silent,
        longest_silence=longest,
    )


class Loop(NamedTuple):
    """The longest run of equal bars."""

    share: float
    """Of all bars."""
    seconds: float
    """Of one bar; 0 where nothing repeats."""


def longest_loop(table: NoteTable) -> Loop:
    """The longest run of bars each like the one before (Jaccard index of their notes 0.8 or more).

    Bars of several lengths are tried: those after which most notes come back, from 1 s to 16 s, but at most a quarter
    of the piece, so that what is called a loop is heard four times.
    """
    found = Loop(0.0, 0.0)
    for bar in _periods(table):
        share = _repeating_share(table, bar)
        if share > found.share:
            found = Loop(share, bar / TICKS_PER_SECOND)
    return found


def _periods(table: NoteTable) -> list[float]:
    """Ticks after which notes come back, those at which most do first."""
    span = int(table.onsets[-1] - table.onsets[0]) + 1
    longest = min(_LONGEST_BAR, span // _LEAST_BARS)
    if longest < _SHORTEST_BAR:
        return []
    counts = _recurrences(table, longest + _TOLERANCE)
    width = 2 * _TOLERANCE + 1
    # Of the notes that a distance leaves room for.
    rate = np.convolve(counts, np.ones(width), "same") / (span - np.arange(len(counts)))
    rate[:_SHORTEST_BAR] = rate[longest + 1 :] = 0
    periods = []
    for _ in range(_PERIODS_TRIED):
        best = int(np.argmax(rate))
        if not rate[best]:
            break
        near = np.arange(best - _TOLERANCE, best + _TOLERANCE + 1)
        # A bar need not be a whole number of ticks.
        periods.append(float(near @ counts[near] / counts[near].sum()))
        rate[near] = 0
    return periods


def _recurrences(table: NoteTable, longest: int) -> np.ndarray:
    """int64 [longest + 1]: pairs of equal notes that begin so many ticks apart."""
    order = np.lexsort((table.onsets, table.notes))
    notes, onsets = table.notes[order], table.onsets[order]
    counts = np.zeros(longest + 1, np.int64)
    for ahead in range(1, len(notes)):
        apart = onsets[ahead:] - onsets[:-ahead]
        pairs = (notes[ahead:] == notes[:-ahead]) & (apart <= longest)
        if not pairs.any():
            break
        counts += np.bincount(apart[pairs], minlength=longest + 1)
    return counts


def _repeating_share(table: NoteTable, bar: float) -> float:
    """Bars of ``bar`` ticks in the longest run of those that repeat the one before, as a share of all bars."""
    # Set a little early, so that a downbeat a tick off stays in its bar.
    bars = ((table.onsets - table.onsets[0] + _TOLERANCE) / bar).astype(np.int64)
    sizes = np.bincount(bars)
    again = np.bincount(bars, weights=_repeats(table, round(bar)), minlength=len(sizes))
    before, here = sizes[:-1], sizes[1:]
    shared = np.minimum(again[1:], np.minimum(before, here))
    same = (here > 0) & (shared >= _SAME_BAR * (before + here - shared))
    # Runs lie between the bars that do not repeat.
    breaks = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
    return float((np.diff(breaks) - 1).max()) / len(sizes)


def _repeats(table: NoteTable, bar: int) -> np.ndarray:
    """bool [n]: whether the same note began ``bar`` ticks before."""
    keys = table.notes.astype(np.int64) << 32 | table.onsets
    ordered = np.sort(keys)
    first = np.searchsorted(ordered, keys - bar - _TOLERANCE)
    return ordered[np.minimum(first, len(ordered) - 1)] <= keys - bar + _TOLERANCE


def _silence(table: NoteTable, stretch: tuple[int, int] | None) -> tuple[float, float]:
    """Share of the time in which nothing sounds, and seconds of the longest gap."""
    ends = np.maximum.accumulate(table.onsets + table.durations)
    first, last = stretch or (int(table.onsets[0]), int(ends[-1]))
    gaps = np.maximum(np.append(table.onsets, last) - np.insert(ends, 0, first), 0)
    total = last - first
    return float(gaps.sum()) / max(total, 1), float(gaps.max(initial=0)) / TICKS_PER_SECOND
