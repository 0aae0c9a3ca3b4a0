"""How a style is written down, and what all styles share: drum keys, fills, registers, the small profile.

The styles themselves stand in songs.py and dances.py. A groove is one bar in sixteenths, one character a step (16
steps in 4/4, 12 in 3/4 and in 6/8):

- drums: ``X`` accent, ``x`` hit, ``o`` ghost note, ``.`` nothing
- bass: ``1 3 5 7`` tones of the chord, ``8`` the root an octave up, ``a`` a step that leads to the next root
- chords: ``X`` strike, ``o`` soft strike, ``0 1 2 3`` single tones of the voicing from below
- melody: ``x`` a note
- everywhere ``-`` holds and ``.`` is silent

A progression is four bars of Roman numerals; a bar may hold two chords ("ii7 V7").
"""

from dataclasses import dataclass

DRUM_KEYS: dict[str, int] = {
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "clap": 39,
    "closed hat": 42,
    "pedal hat": 44,
    "low tom": 45,
    "open hat": 46,
    "mid tom": 47,
    "crash": 49,
    "high tom": 50,
    "ride": 51,
    "tambourine": 54,
    "shaker": 70,
}
"""General MIDI percussion keys of the drums that the grooves name."""


@dataclass(frozen=True)
class Groove:
    """One bar of every role."""

    drums: dict[str, str]
    bass: str
    chords: str
    melody: tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """How one style is played. ``small_*`` are what the ``small`` profile uses instead."""

    name: str
    nouns: tuple[str, ...]
    """What a caption calls a piece of this style."""
    meter: tuple[int, int]
    tempi: tuple[int, int]
    """Quarter notes a minute, slowest and fastest."""
    small_tempi: tuple[int, ...]
    modes: tuple[str, ...]
    progressions: dict[str, dict[str, tuple[str, str, str, str]]]
    """By mode, then by letter of the form."""
    form: str
    """Letters of the four-bar phrases, taken in turn for as long as the piece lasts."""
    cadences: dict[str, str]
    """The chord that leads home, by mode."""
    grooves: tuple[Groove, ...]
    small_groove: Groove
    melody_programs: tuple[int, ...]
    chord_programs: tuple[int, ...]
    bass_programs: tuple[int, ...]
    swing: bool = False
    """Whether the second eighth of a beat comes late, at two thirds of it."""
    staccato: float = 1.0
    """Share of its step that a bass or chord note sounds."""
    blue: bool = False
    """Whether a melody in major takes the minor seventh of the key where the chord lets it."""
    voices: int = 3
    """Tones in a voicing."""


SMALL_PROGRAMS: dict[str, int] = {"melody": 73, "chords": 0, "bass": 33}
"""The ``small`` profile's flute, piano and electric bass; with the drums, four programs in all."""
SMALL_TONICS: dict[str, tuple[int, ...]] = {"major": (0, 5, 7), "minor": (2, 4, 9)}
"""Pitch classes that the ``small`` profile's pieces end on."""

MELODY_CENTRES: dict[int, int] = {8: 82, 10: 82, 22: 70, 25: 67, 29: 69, 30: 69, 57: 62, 65: 70, 66: 65, 72: 86, 78: 81}
"""Pitch around which a lead instrument plays where it is not ``MELODY_CENTRE``."""
MELODY_CENTRE = 74

FILLS: dict[int, tuple[dict[str, str], ...]] = {
    16: (
        {"snare": "x.xx", "kick": "X..."},
        {"snare": "x.x.x...", "high tom": ".....x..", "low tom": "......x.", "kick": "X...x..."},
        {"high tom": "x.x.....", "mid tom": "....x...", "low tom": "......xx", "kick": "X......."},
    ),
    12: (
        {"snare": "x.x.", "kick": "X..."},
        {"high tom": "x.....", "mid tom": "..x...", "low tom": "....x.", "kick": "X....."},
    ),
}
"""Drum fills by steps in the bar; a fill takes the place of the bar's last steps."""
