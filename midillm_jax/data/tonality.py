"""The key of a piece, from its notes alone: Krumhansl and Schmuckler's correlation, the last bass and the chords.

Key signatures are not asked: most files set none, or leave C where nobody chose. The method is that of C. L. Krumhansl,
Cognitive Foundations of Musical Pitch (1990), ch. 4: how long each pitch class sounds is correlated with a profile of
each of the 24 keys. The profiles are those of J. Albrecht and D. Shanahan, "The Use of Large Corpora to Train a New
Type of Key-Finding Algorithm", Music Perception 31 (2013).
"""

from dataclasses import dataclass

import numpy as np

from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES

TONICS: dict[str, tuple[str, ...]] = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
"""The usual spelling of each of the twelve tonics."""
_MODES = ("major", "minor")
_MAJOR_PROFILE = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR_PROFILE = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
_LAST_BASS = 0.08
"""What ending over its tonic adds to a key's correlation. Tells relative keys apart, and keys a fifth apart."""
_TONIC_CHORD = 0.15
"""What sounding its tonic's triad all the time would add to a key's correlation."""
_LEAST_SCORE = 0.6
"""Below this no key's profile looks like the piece."""
_LEAST_MARGIN = 0.04
"""By which the best key must lead the second to be clear."""
_FLAT_SEVENTH = 2.0
"""Times as long as its leading tone that a major key's flat seventh sounds in a Mixolydian tune."""
_SAME_MOMENT = 8
"""Ticks within which the last notes' onsets count as one chord."""
_UNTUNED = np.isin(np.arange(DRUM_PROGRAM + 1), (113, 115, 116, 117, 118, *range(119, 129)))
"""Programs whose pitch is not one: agogo, woodblock, taiko, toms, synth drum, sound effects, the drum kit."""


@dataclass(frozen=True)
class Key:
    """A tonic (pitch class) and "major" or "minor"."""

    tonic: int
    mode: str

    @property
    def name(self) -> str:
        """As MidiCaps writes it: "Eb major"."""
        return f"{TONICS[self.mode][self.tonic]} {self.mode}"


@dataclass(frozen=True)
class Estimate:
    """The likeliest key."""

    key: Key
    clear: bool
    """Whether it stands out enough to be named: not in untuned, chromatic, modal and ambiguous pieces."""


def tuned(table: NoteTable) -> np.ndarray:
    """bool [n]: which notes have a pitch that harmony is made of, so no drums and no sound effects."""
    return ~_UNTUNED[table.notes // PITCHES]


def estimate_key(table: NoteTable, triads: np.ndarray | None = None) -> Estimate | None:
    """The likeliest key; None where less than three pitch classes sound.

    ``triads``: float [24], share of the time under each major triad, C upwards, and each minor one, where known.
    """
    chosen = tuned(table)
    onsets, pitches = table.onsets[chosen], table.notes[chosen] % PITCHES
    lengths = np.maximum(table.durations[chosen], 1)
    sounding = np.bincount(pitches % 12, weights=lengths, minlength=12)
    if np.count_nonzero(sounding) < 3:
        return None
    scores = key_scores(sounding)
    if triads is not None:
        scores += _TONIC_CHORD * triads
    last = (onsets >= onsets[-1] - _SAME_MOMENT) | (onsets + lengths > onsets[-1] + _SAME_MOMENT)
    bass = int(pitches[last].min()) % 12
    scores[[bass, 12 + bass]] += _LAST_BASS
    second, best = np.sort(scores)[-2:]
    mode, tonic = divmod(int(scores.argmax()), 12)
    key = Key(tonic, _MODES[mode])
    clear = best >= _LEAST_SCORE and best - second >= _LEAST_MARGIN
    return Estimate(key, bool(clear) and not (triads is None and _is_mixolydian(sounding, key)))


def _is_mixolydian(sounding: np.ndarray, key: Key) -> bool:
    """Whether a tune in "major" has the flat seventh: neither that key nor, by where it rests, the one a fifth below.

    Under chords it may be the blues, whose keys are called major all the same.
    """
    flat, leading = sounding[(key.tonic + 10) % 12], sounding[(key.tonic + 11) % 12]
    return key.mode == "major" and flat > 0.02 * sounding.sum() and flat > _FLAT_SEVENTH * leading


def key_scores(sounding: np.ndarray) -> np.ndarray:
    """float64 [24]: correlation with the profile of each major key, C upwards, then of each minor key."""
    centred = sounding - sounding.mean()
    norm = np.linalg.norm(centred)
    return _PROFILES @ (centred / norm) if norm else np.zeros(24)


def _profiles() -> np.ndarray:
    """float64 [24, 12], each row of mean 0 and length 1."""
    rows = np.array([np.roll(profile, tonic) for profile in (_MAJOR_PROFILE, _MINOR_PROFILE) for tonic in range(12)])
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


_PROFILES = _profiles()
