"""How loud notes are struck: rules, not learned, as the tokens hold no velocity.

What a player does without thinking: bar lines and beats are stressed, the highest voice sings out, what lies between
steps back, fast passages are lighter, kick and snare carry a groove and hi-hats fill it, and no two notes are quite
alike. Each rule adds to the level that a note's instrument plays at.
"""

import numpy as np

from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, TICKS_PER_SECOND

DEFAULT_LEVEL = 80
"""Of an instrument of which nothing is known; General MIDI's mezzo-forte."""
LOWEST, HIGHEST = 24, 120

_BY_WEIGHT = np.array([-4, 2, 7])
"""Off the beat, on a beat, on a bar line."""
_TOP_VOICE, _LOWEST_VOICE, _BETWEEN = 5, 1, -4
_TOGETHER_TICKS = 2
"""Notes that begin within this many ticks of the one before are struck together."""
_LIGHT_FROM, _LIGHTEST = 8, -8
"""Notes a second of one instrument from which each more takes one off, to this at most."""
_DRUMS = {35: 6, 36: 6, 38: 5, 40: 5, 37: -4, 42: -9, 44: -12, 46: -6, 51: -6, 54: -8, 69: -10, 70: -10, 82: -10}
"""By General MIDI's key: kicks and snares, then side stick, hats, ride, tambourine and shakers."""
_SPREAD = 2.0


def velocities(
    onsets: np.ndarray,
    notes: np.ndarray,
    levels: np.ndarray,
    weights: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """How loud each note is struck, uint8 [n], ``LOWEST`` to ``HIGHEST``.

    Args:
        onsets: int [n], ticks of 10 ms, non-decreasing.
        notes: int [n], 128 * program + pitch.
        levels: int [n], what a note's instrument plays at, 1..127.
        weights: int [n], 0 off the beat, 1 on a beat, 2 on a bar line; None where no beat is known.
        seed: of what makes notes differ; the same gives the same.
    """
    found = levels.astype(np.float64)
    if weights is not None:
        found += _BY_WEIGHT[weights]
    programs, pitches = notes // PITCHES, notes % PITCHES
    drums = programs == DRUM_PROGRAM
    found[drums] += [_DRUMS.get(pitch, 0) for pitch in pitches[drums].tolist()]
    for program in np.unique(programs[~drums]).tolist():
        mine = np.flatnonzero(programs == program)
        found[mine] += _voices(onsets[mine], pitches[mine])
        second = np.searchsorted(onsets[mine], onsets[mine] - TICKS_PER_SECOND, side="right")
        struck = np.arange(len(mine)) - second + 1
        found[mine] += np.clip(_LIGHT_FROM - struck, _LIGHTEST, 0)
    found += np.random.default_rng(seed).normal(0, _SPREAD, len(found))
    return np.clip(np.rint(found), LOWEST, HIGHEST).astype(np.uint8)


def _voices(onsets: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    """What one instrument's notes get for their place in the chord they are struck in: int [n]."""
    chord = np.cumsum(np.diff(onsets, prepend=onsets[:1]) > _TOGETHER_TICKS)
    highest, lowest = np.full(chord[-1] + 1, -1), np.full(chord[-1] + 1, PITCHES)
    np.maximum.at(highest, chord, pitches)
    np.minimum.at(lowest, chord, pitches)
    alone = highest[chord] == lowest[chord]
    places = np.where(pitches == lowest[chord], _LOWEST_VOICE, _BETWEEN)
    return np.where(alone, 0, np.where(pitches == highest[chord], _TOP_VOICE, places))
