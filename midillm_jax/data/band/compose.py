"""How the small band makes up a piece: form, then harmony, then each role by its rules.

Positions and lengths are in units, 24 to a quarter note, counted from the start of the piece; a step of
styles.py's tables is a sixteenth, 6 units.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from midillm_jax.data.band.dances import DANCES
from midillm_jax.data.band.harmony import Chord, Key, chord, pitches_between, scale_under, voicing
from midillm_jax.data.band.songs import SONGS
from midillm_jax.data.band.styles import (
    DRUM_KEYS,
    FILLS,
    MELODY_CENTRE,
    MELODY_CENTRES,
    SMALL_PROGRAMS,
    SMALL_TONICS,
    Groove,
    Style,
)
from midillm_jax.music.vocab import DRUM_PROGRAM

STYLES: tuple[Style, ...] = (*SONGS, *DANCES)
Profile = Literal["full", "small"]
"""``full``: pieces of 20 to 40 seconds, every instrument and key. ``small``: 6 to 12 seconds, four programs."""

UNITS_PER_QUARTER = 24
UNITS_PER_STEP = 6
ROLES = ("melody", "chords", "bass", "drums")

_DRUM_SHARE = 0.5
_INTRO_SHARE = 0.35
_LEFT_OUT = {None: 0.6, "bass": 0.14, "chords": 0.12, "melody": 0.14}
_FULL_SECONDS = (20.0, 40.0)
_SMALL_SECONDS = 6.5
_BASS_RANGE = (28, 52)
_CHORD_RANGE = (50, 67)
_VELOCITIES = {"melody": 92, "chords": 66, "bass": 84}
_DRUM_VELOCITIES = {"X": 106, "x": 84, "o": 52}
_ARCH = (0, 4, 6, 1)
"""How far above its centre a phrase's four bars lean, in semitones."""


@dataclass(frozen=True)
class BandNote:
    """One note: who plays it, from where to where (units), pitch and velocity."""

    role: str
    start: int
    end: int
    pitch: int
    velocity: int


@dataclass(frozen=True)
class BandPiece:
    """A piece and everything that is true of it."""

    style: Style
    key: Key
    bpm: int
    """Quarter notes a minute."""
    programs: dict[str, int]
    """By role; a role that does not play is absent."""
    progression: tuple[str, ...]
    """Chord names of the first phrase."""
    chords: tuple[tuple[int, str], ...]
    """Every chord of the piece: where it starts (units) and its name."""
    notes: tuple[BandNote, ...]
    """By start, then role."""
    melody: tuple[tuple[tuple[int, int, int], ...], ...]
    """By bar: (step, steps long, pitch), straight as written, empty where no melody plays."""

    @property
    def bar_units(self) -> int:
        return bar_steps(self.style) * UNITS_PER_STEP

    @property
    def tempo(self) -> int:
        """Microseconds a quarter note."""
        return round(60_000_000 / self.bpm)

    def seconds(self, units: int) -> float:
        """Where a position lies in time."""
        return units * self.tempo / UNITS_PER_QUARTER / 1e6

    @property
    def duration(self) -> float:
        """Seconds until the last note ends."""
        return self.seconds(max(note.end for note in self.notes))


def bar_steps(style: Style) -> int:
    """Sixteenths in a bar: 16 in 4/4, 12 in 3/4 and 6/8."""
    return style.meter[0] * 16 // style.meter[1]


@dataclass(frozen=True)
class _Bar:
    chords: tuple[tuple[int, Chord], ...]
    """(first step, chord), in order."""
    letter: str
    """Phrase of the form, "intro" or "end"."""
    index: int
    """Bar of the phrase, 0..3."""

    def chord_at(self, step: int) -> Chord:
        return [sounding for first, sounding in self.chords if first <= step][-1]


def draw(rng: random.Random, profile: Profile) -> BandPiece:
    """Makes up one piece; the same state of the generator gives the same piece."""
    style = rng.choice(STYLES)
    small = profile == "small"
    mode = rng.choice(style.modes)
    key = Key(rng.choice(SMALL_TONICS[mode]) if small else rng.randrange(12), mode)
    bpm = rng.choice(style.small_tempi) if small else rng.randint(*style.tempi)
    drums = rng.random() < _DRUM_SHARE
    left_out = rng.choices(list(_LEFT_OUT), list(_LEFT_OUT.values()))[0]
    tables = {"melody": style.melody_programs, "chords": style.chord_programs, "bass": style.bass_programs}
    programs = {role: SMALL_PROGRAMS[role] if small else rng.choice(tables[role]) for role in tables}
    programs = {role: program for role, program in programs.items() if role != left_out}
    if drums:
        programs["drums"] = DRUM_PROGRAM
    groove = style.small_groove if small else rng.choice(style.grooves)
    gate = 1.0 if small else style.staccato
    bars = _bars(rng, style, key, bpm, profile)

    notes: list[BandNote] = []
    melody: tuple[tuple[tuple[int, int, int], ...], ...] = tuple(() for _ in bars)
    if "bass" in programs:
        notes += _play_bass(rng, style, groove, key, bars, gate)
    if "chords" in programs:
        notes += _play_chords(rng, style, groove, bars, gate, 3 if small else style.voices)
    if "melody" in programs:
        low = programs["melody"] != programs.get("chords")
        centre = MELODY_CENTRES.get(programs["melody"], MELODY_CENTRE) if low else MELODY_CENTRE + 2
        melody = _write_melody(rng, style, groove, key, bars, centre)
        notes += _play_melody(rng, style, melody)
    if drums:
        notes += _play_drums(rng, style, groove, bars, profile)
    notes.sort(key=lambda note: (note.start, ROLES.index(note.role), note.pitch))

    bar_units = bar_steps(style) * UNITS_PER_STEP
    first_phrase = [bar for bar in bars if bar.letter == style.form[0]][:4]
    return BandPiece(
        style=style,
        key=key,
        bpm=bpm,
        programs={role: programs[role] for role in ROLES if role in programs},
        progression=tuple(sounding.name for bar in first_phrase for _, sounding in bar.chords),
        chords=tuple(
            (number * bar_units + step * UNITS_PER_STEP, sounding.name)
            for number, bar in enumerate(bars)
            for step, sounding in bar.chords
        ),
        notes=tuple(notes),
        melody=melody,
    )


def _bars(rng: random.Random, style: Style, key: Key, bpm: int, profile: Profile) -> list[_Bar]:
    """The harmony bar by bar: phrases for as long as the profile wants, a cadence, and a bar of the tonic."""
    steps = bar_steps(style)
    bar_seconds = steps / 4 * 60 / bpm
    if profile == "small":
        body, intro = max(2, round(_SMALL_SECONDS / bar_seconds) - 1), 0
    else:
        shortest, longest = (round(seconds / bar_seconds + 0.499) for seconds in _FULL_SECONDS)
        choices = [phrases for phrases in range(1, 16) if shortest <= 4 * phrases + 1 < longest]
        body = 4 * rng.choice(choices)
        intro = 2 if rng.random() < _INTRO_SHARE and body + 3 < longest else 0
    progressions = style.progressions[key.mode]

    def bar(text: str, letter: str, index: int) -> _Bar:
        numerals = text.split()
        width = steps // len(numerals)
        return _Bar(tuple((number * width, chord(name, key)) for number, name in enumerate(numerals)), letter, index)

    bars = [bar(progressions[style.form[0]][number], "intro", number) for number in range(intro)]
    for number in range(body):
        letter = style.form[number // 4 % len(style.form)]
        last = number == body - 1
        text = style.cadences[key.mode] if last else progressions[letter][number % 4]
        bars.append(bar(text, letter, number % 4))
    bars.append(bar("I" if key.mode == "major" else "i", "end", 0))
    return bars


def _spans(pattern: str, struck: str) -> Iterator[tuple[int, int, str]]:
    """(step, steps long, character) of every note of a pattern; ``-`` lengthens the note before it."""
    for step, character in enumerate(pattern):
        if character in struck:
            end = step + 1
            while end < len(pattern) and pattern[end] == "-":
                end += 1
            yield step, end - step, character


def _units(style: Style, bar: int, step: float) -> int:
    """Where a step of a bar sounds; swing puts the middle of a beat at two thirds of it."""
    units = round(step * UNITS_PER_STEP)
    beat, within = divmod(units, UNITS_PER_QUARTER)
    if style.swing:
        within = within * 4 // 3 if within <= 12 else 16 + (within - 12) * 2 // 3
    return bar * bar_steps(style) * UNITS_PER_STEP + beat * UNITS_PER_QUARTER + within


def _note(
    rng: random.Random, style: Style, role: str, bar: int, step: int, steps: float, pitch: int, velocity: int
) -> BandNote:
    accent = 6 if step in _strong_steps(style) else 0
    velocity = max(1, min(127, velocity + accent + rng.randint(-5, 5)))
    return BandNote(role, _units(style, bar, step), _units(style, bar, step + steps), pitch, velocity)


def _strong_steps(style: Style) -> tuple[int, ...]:
    return {(4, 4): (0, 8), (3, 4): (0,), (6, 8): (0, 6)}[style.meter]


def _nearest(pitch_class: int, target: float, low: int, high: int) -> int:
    return min(pitches_between((pitch_class,), low, high), key=lambda pitch: abs(pitch - target))


def _play_bass(
    rng: random.Random, style: Style, groove: Groove, key: Key, bars: list[_Bar], gate: float
) -> list[BandNote]:
    """Roots, thirds and fifths by the groove, each root as near as can be to the one before."""
    low, high = _BASS_RANGE
    notes = []
    root = 36
    for number, bar in enumerate(bars):
        pattern = groove.bass if bar.letter != "end" else "1" + "-" * (bar_steps(style) - 1)
        for step, steps, tone in _spans(pattern, "13578a"):
            sounding = bar.chord_at(step)
            root = _nearest(sounding.root, (root + 36) / 2, low, high - 12)
            if tone == "8":
                pitch = root + 12
            elif tone == "a":
                following = bars[number + 1].chords[0][1]
                target = _nearest(following.root, (root + 36) / 2, low, high - 12)
                steps_to = pitches_between(scale_under(key, sounding), target - 2, target + 2)
                pitch = rng.choice([near for near in steps_to if near != target] or [target])
            else:
                above = sounding.tones["1357".index(tone) % len(sounding.tones)]
                pitch = root + (above - root) % 12
            sounds = steps if bar.letter == "end" else steps * gate
            notes.append(_note(rng, style, "bass", number, step, sounds, pitch, _VELOCITIES["bass"]))
    return notes


def _play_chords(
    rng: random.Random, style: Style, groove: Groove, bars: list[_Bar], gate: float, voices: int
) -> list[BandNote]:
    """Strikes or broken chords by the groove, voice-led; a held chord ends where the harmony moves on."""
    notes = []
    position: tuple[int, ...] = ()
    current: Chord | None = None
    for number, bar in enumerate(bars):
        pattern = groove.chords if bar.letter != "end" else "X" + "-" * (bar_steps(style) - 1)
        for step, steps, character in _spans(pattern, "Xo0123"):
            sounding = bar.chord_at(step)
            if sounding != current:
                position = voicing(sounding, position, voices=voices, low=_CHORD_RANGE[0], high=_CHORD_RANGE[1])
                current = sounding
            changes = [first for first, _ in bar.chords if first > step]
            held = min([steps, *(first - step for first in changes)])
            sounds = held if bar.letter == "end" else held * gate
            velocity = _VELOCITIES["chords"] - (10 if character == "o" else 0)
            pitches = (position[int(character) % len(position)],) if character.isdigit() else position
            notes += [_note(rng, style, "chords", number, step, sounds, pitch, velocity) for pitch in pitches]
    return notes


def _write_melody(
    rng: random.Random, style: Style, groove: Groove, key: Key, bars: list[_Bar], centre: int
) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """Chord tones on strong beats, scale steps between them; a phrase comes back as it was, the end is the tonic."""
    cells = list(groove.melody)
    rhythms = {}
    for letter in sorted(set(style.form)):
        first, second = rng.sample(cells, 2)
        rhythms[letter] = (first, second, first, rng.choice(cells))
    written: dict[tuple[str, int, tuple[tuple[int, Chord], ...]], tuple[tuple[int, int, int], ...]] = {}
    melody: list[tuple[tuple[int, int, int], ...]] = []
    previous = centre
    for bar in bars:
        if bar.letter == "intro":
            melody.append(())
            continue
        if bar.letter == "end":
            pitch = _nearest(key.tonic, previous, centre - 9, centre + 11)
            melody.append(((0, bar_steps(style), pitch),))
            continue
        place = (bar.letter, bar.index, bar.chords)
        if place not in written:
            rhythm = rhythms[bar.letter][bar.index]
            written[place] = _melody_bar(rng, style, key, bar, rhythm, previous, centre)
        melody.append(written[place])
        previous = melody[-1][-1][2]
    return tuple(melody)


def _melody_bar(
    rng: random.Random, style: Style, key: Key, bar: _Bar, rhythm: str, previous: int, centre: int
) -> tuple[tuple[int, int, int], ...]:
    spans = [(step, steps) for step, steps, _ in _spans(rhythm, "x")]
    low, high = centre - 9, centre + 11
    target = centre - 2 + _ARCH[bar.index] + rng.randint(-2, 2)
    pitches: list[int | None] = []
    at = previous
    for number, (step, steps) in enumerate(spans):
        if step in _strong_steps(style) or steps >= 4 or number in (0, len(spans) - 1):
            tones = pitches_between(bar.chord_at(step).tones, low, high)
            costs = {p: 0.6 * abs(p - target) + 0.8 * abs(p - at) + (5 if p == at else 0) + rng.random() for p in tones}
            at = min(costs, key=lambda pitch: costs[pitch])
            pitches.append(at)
        else:
            pitches.append(None)
    filled: list[int] = []
    for number, (step, _) in enumerate(spans):
        pitch = pitches[number]
        if pitch is None:
            scale = pitches_between(scale_under(key, bar.chord_at(step), blue=style.blue), low - 4, high + 4)
            ahead = next(offset for offset, later in enumerate(pitches[number:]) if later is not None)
            goal = pitches[number + ahead]
            assert goal is not None
            before = min(range(len(scale)), key=lambda i: abs(scale[i] - filled[-1]))
            after = min(range(len(scale)), key=lambda i: abs(scale[i] - goal))
            move = round((after - before) / (ahead + 1))
            # Between two equal tones, or two neighbours, the line turns round the first one.
            pitch = scale[max(0, min(len(scale) - 1, before + (move or rng.choice((-1, 1)))))]
        filled.append(pitch)
    return tuple((step, steps, pitch) for (step, steps), pitch in zip(spans, filled, strict=True))


def _play_melody(
    rng: random.Random, style: Style, melody: tuple[tuple[tuple[int, int, int], ...], ...]
) -> list[BandNote]:
    return [
        _note(rng, style, "melody", number, step, steps, pitch, _VELOCITIES["melody"])
        for number, bar in enumerate(melody)
        for step, steps, pitch in bar
    ]


def _play_drums(rng: random.Random, style: Style, groove: Groove, bars: list[_Bar], profile: Profile) -> list[BandNote]:
    """The groove, a fill where a phrase ends (full profile), a crash where the next begins, and a last hit."""
    width = bar_steps(style)
    hit_steps = 2 if profile == "small" else 1
    notes = []
    crash = False
    for number, bar in enumerate(bars):
        hits = [
            (step, name, loud) for name, row in groove.drums.items() for step, loud in enumerate(row) if loud != "."
        ]
        if bar.letter == "end":
            hits = [(0, "kick", "X"), (0, "crash", "X")]
        elif crash:
            hits.append((0, "crash", "X"))
        crash = False
        if profile == "full" and bar.index == 3 and rng.random() < 0.75:
            fill = rng.choice(FILLS[width])
            first = width - max(len(row) for row in fill.values())
            hits = [hit for hit in hits if hit[0] < first]
            hits += [
                (first + step, name, loud) for name, row in fill.items() for step, loud in enumerate(row) if loud != "."
            ]
            crash = bars[number + 1].letter != "end"
        for step, name, loud in sorted(hits):
            velocity = _DRUM_VELOCITIES[loud]
            notes.append(_note(rng, style, "drums", number, step, hit_steps, DRUM_KEYS[name], velocity))
    return notes
