"""Keys, Roman numerals, chord names and voice leading for the small band."""

import itertools
import re
from dataclasses import dataclass

SCALES: dict[str, tuple[int, ...]] = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
"""Semitones of the seven degrees above the tonic (natural minor)."""
TONICS: dict[str, tuple[str, ...]] = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
"""The usual spelling of each of the twelve tonics."""
LETTERS = "CDEFGAB"
_LETTER_PITCH = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {-2: "bb", -1: "b", 0: "", 1: "#", 2: "##"}
_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")
_INTERVALS: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7b5": (0, 3, 6, 10),
}
_ROMAN = re.compile(r"(b?)([iv]+|[IV]+)(maj7|m7b5|7|)")


def spelled(letter_index: int, pitch_class: int) -> str:
    """The note name with that letter of ``LETTERS`` (counted round) and that pitch class, e.g. "Eb"."""
    letter = LETTERS[letter_index % 7]
    offset = (pitch_class - _LETTER_PITCH[letter] + 6) % 12 - 6
    return letter + _ACCIDENTALS[offset]


@dataclass(frozen=True)
class Key:
    """A tonic (pitch class) and "major" or "minor"."""

    tonic: int
    mode: str

    @property
    def tonic_name(self) -> str:
        return TONICS[self.mode][self.tonic]

    @property
    def name(self) -> str:
        """As MidiCaps writes it: "Eb major"."""
        return f"{self.tonic_name} {self.mode}"

    @property
    def signature(self) -> str:
        """As MIDI libraries and ABC write it: "Eb" or "F#m"."""
        return self.tonic_name + ("m" if self.mode == "minor" else "")

    @property
    def scale(self) -> tuple[int, ...]:
        """The seven pitch classes, from the tonic up."""
        return tuple((self.tonic + step) % 12 for step in SCALES[self.mode])

    @property
    def note_names(self) -> tuple[str, ...]:
        """The seven notes' names, from the tonic up."""
        first = LETTERS.index(self.tonic_name[0])
        return tuple(spelled(first + degree, pitch) for degree, pitch in enumerate(self.scale))


@dataclass(frozen=True)
class Chord:
    """A chord: its name ("Am7"), root (pitch class) and pitch classes from the root up."""

    name: str
    root: int
    tones: tuple[int, ...]


def chord(numeral: str, key: Key) -> Chord:
    """The chord of a Roman numeral ("ii7", "bVII") in a key; ValueError where it is not one."""
    match = _ROMAN.fullmatch(numeral)
    if match is None or match[2].upper() not in _NUMERALS:
        raise ValueError(f"{numeral!r} is no Roman numeral that the band knows")
    flat, roman, suffix = match.groups()
    degree = _NUMERALS.index(roman.upper())
    root = (key.scale[degree] - len(flat)) % 12
    minor = roman.islower() and suffix != "m7b5"
    quality = "m" + suffix if minor else suffix
    name = spelled(LETTERS.index(key.tonic_name[0]) + degree, root)
    return Chord(name + quality, root, tuple((root + step) % 12 for step in _INTERVALS[quality]))


def scale_under(key: Key, sounding: Chord, *, blue: bool = False) -> tuple[int, ...]:
    """The key's pitch classes, bent so that none rubs against a chord tone from outside the key.

    ``blue`` lowers the seventh of a major key where it is not in the chord.
    """
    pitches = set(key.scale)
    leading = (key.tonic + 11) % 12
    if blue and key.mode == "major" and leading not in sounding.tones:
        pitches = pitches - {leading} | {(key.tonic + 10) % 12}
    for tone in sounding.tones:
        if tone not in pitches:
            # A raised leading tone takes the minor seventh's place; a borrowed flat takes the natural's.
            pitches.discard((tone - 1) % 12 if key.mode == "minor" else (tone + 1) % 12)
            pitches.add(tone)
    return tuple(sorted(pitches))


def pitches_between(pitch_classes: tuple[int, ...], low: int, high: int) -> list[int]:
    """All MIDI pitches low..high of those classes, rising."""
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in pitch_classes]


def voicing(sounding: Chord, previous: tuple[int, ...], *, voices: int, low: int, high: int) -> tuple[int, ...]:
    """The close position of the chord within low..high that moves least from the previous voicing.

    Three voices of a seventh chord leave out the fifth.
    """
    tones = sounding.tones
    if len(tones) > voices:
        tones = (*tones[:2], *tones[3:])
    candidates = []
    for bottom, inversion in itertools.product(range(low, high + 1), range(len(tones))):
        if bottom % 12 != tones[inversion]:
            continue
        position = [bottom]
        for tone in (*tones[inversion + 1 :], *tones[:inversion]):
            position.append(position[-1] + (tone - position[-1]) % 12)
        if position[-1] <= high:
            candidates.append(tuple(position))
    middle = (low + high) / 2

    def movement(candidate: tuple[int, ...]) -> float:
        drift = abs(sum(candidate) / len(candidate) - middle)
        if not previous:
            return drift
        # Nearest-voice distance compares chords of three and of four voices alike.
        return sum(min(abs(pitch - old) for old in previous) for pitch in candidate) + 0.25 * drift

    return min(candidates, key=movement)
