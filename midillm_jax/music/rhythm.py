"""The beat and the kind of meter that are heard in notes which carry neither: by autocorrelation of their onsets.

Music that a model writes has no tempo map. The beat is the lag at which onsets come back most, under a listener's
preference for two beats a second: D. Ellis, "Beat Tracking by Dynamic Programming", Journal of New Music Research 36
(2007), section 3.2, with its published constants, on notes in place of audio; a lag's first four multiples count with
it. Whether beats are parted in two or three and gathered in two or three is read off the same curve, as in J. Brown,
"Determination of the meter of musical scores by autocorrelation", JASA 94 (1993).

``benchmarks/control.py`` measures both where the truth is known. The tempo is the composer's in about five pieces of
six of the full band and two of three of the small one, whose pieces last some ten seconds; on notated real music in
about half, and in four of five up to a factor of 2 or 3, which ears disagree on too. The meter is right in four pieces
of five of the bands, but on real pieces no more often than calling every one duple would be: there its score says
little.
"""

import dataclasses

import numpy as np

from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import TICKS_PER_SECOND

DUPLE, TRIPLE, COMPOUND = "duple", "triple", "compound"
METERS = (DUPLE, TRIPLE, COMPOUND)
"""Beats gathered in twos or fours; in threes; beats of three parts, as in 6/8."""

_SHORTEST_BEAT, _LONGEST_BEAT = 25, 150
"""Ticks: 240 to 40 beats a minute."""
_LIKED_BEAT = 50.0
"""Ticks of the beat that listeners prefer, 120 a minute (Ellis)."""
_LIKING = 0.9
"""Octaves: standard deviation of that preference (Ellis)."""
_MULTIPLES = (1, 2, 3, 4)
_REFINED_BY = (2, 4, 8)
"""Multiples of the beat at which it is measured more exactly than to a tick."""
_LONGEST_LAG = 8 * _LONGEST_BEAT + 8
_BLUR = np.hanning(9)[1:-1] / 4
"""Ticks by which an onset may be off its place: 30 ms at most. The weights' sum is 1."""
_NEAR = 2
"""Ticks around a lag in which its peak is looked for."""
_LEAST_ONSETS = 8
_LEAST_TICKS = 300
_IN_THREE, _IN_TWO = (1 / 3, 2 / 3, 4 / 3, 5 / 3), (1 / 2, 3 / 2)
_BARS_OF_THREE, _BARS_OF_TWO = (3, 6), (2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """What is heard in the onsets."""

    bpm: float
    """Beats a minute. In compound meters a beat is a dotted note, three eighths of 6/8."""
    meter: str
    """"duple", "triple" or "compound"."""


def meter_kind(numerator: int, denominator: int) -> str | None:
    """The kind of a time signature; None for those of five, seven and other beats, which are not told apart."""
    if numerator % 3 == 0:
        return COMPOUND if numerator > 3 and denominator >= 8 else TRIPLE
    return DUPLE if numerator in (2, 4, 8) else None


def beats_a_quarter(meter: tuple[int, int] | None) -> float:
    """Heard beats in a quarter note: 2/3 in compound meters, else 1, as files count tempo."""
    return 2 / 3 if meter is not None and meter_kind(*meter) == COMPOUND else 1.0


def find_rhythm(table: NoteTable) -> Rhythm | None:
    """The beat and the kind of meter; None where fewer than eight moments or less than three seconds have onsets."""
    recurrence = _recurrence(table)
    if recurrence is None:
        return None
    beat = _beat(recurrence)
    if _strength(recurrence, beat, _IN_THREE) > _strength(recurrence, beat, _IN_TWO):
        meter = COMPOUND
    elif _strength(recurrence, beat, _BARS_OF_THREE) > _strength(recurrence, beat, _BARS_OF_TWO):
        meter = TRIPLE
    else:
        meter = DUPLE
    return Rhythm(60 * TICKS_PER_SECOND / beat, meter)


def _recurrence(table: NoteTable) -> np.ndarray | None:
    """float64 [lags]: correlation of the number of onsets with itself so many ticks later, 1 at lag 0.

    Every lag is divided by the time that it leaves; lags beyond three quarters of the piece are left out.
    """
    if len(np.unique(table.onsets)) < _LEAST_ONSETS:
        return None
    counts = np.convolve(np.bincount(table.onsets - table.onsets[0]), _BLUR, "same")
    length = len(counts)
    if length < _LEAST_TICKS:
        return None
    counts = counts - counts.mean()
    size = 1 << (length + _LONGEST_LAG).bit_length()
    products = np.fft.irfft(np.abs(np.fft.rfft(counts, size)) ** 2, size)
    lags = np.arange(min(_LONGEST_LAG, 3 * length // 4))
    return products[lags] / products[0] * length / (length - lags)


def _beat(recurrence: np.ndarray) -> float:
    """Ticks."""
    beats = np.arange(_SHORTEST_BEAT, _LONGEST_BEAT + 1)
    lags = np.outer(_MULTIPLES, beats)
    there = lags < len(recurrence)
    heights = np.where(there, recurrence[np.where(there, lags, 0)], 0).sum(0) / len(_MULTIPLES)
    liking = np.exp(-0.5 * (np.log2(beats / _LIKED_BEAT) / _LIKING) ** 2)
    beat = float(beats[np.argmax(np.maximum(heights, 0) * liking)])
    for multiple in _REFINED_BY:
        first = round(beat * multiple) - multiple // 2 - _NEAR
        near = recurrence[first : first + multiple + 2 * _NEAR + 1]
        if first + multiple + 2 * _NEAR >= len(recurrence):
            break
        beat = (first + int(near.argmax())) / multiple
    return beat


def _strength(recurrence: np.ndarray, beat: float, multiples: tuple[float, ...]) -> float:
    """Mean height of the peaks at these multiples of a beat, as far as the piece is long enough."""
    lags = [round(beat * multiple) for multiple in multiples]
    peaks = [recurrence[lag - _NEAR : lag + _NEAR + 1].max() for lag in lags if lag + _NEAR < len(recurrence)]
    return float(np.mean(peaks)) if peaks else -1.0
