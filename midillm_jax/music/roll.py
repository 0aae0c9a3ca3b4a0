"""A picture of a piece: the piano roll, as pixels or as shapes (roll_surface.py)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midillm_jax.music.instruments import DRUM_NAMES, FAMILIES, PROGRAM_FAMILIES, PROGRAM_NAMES
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.roll_surface import Colour, Surface, font, surface
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, TICKS_PER_SECOND

_PALETTE: tuple[Colour, ...] = (
    (0x00, 0x72, 0xB2),
    (0xE6, 0x9F, 0x00),
    (0x00, 0x9E, 0x73),
    (0xD5, 0x5E, 0x00),
    (0x56, 0xB4, 0xE9),
    (0xCC, 0x79, 0xA7),
    (0x33, 0x22, 0x88),
    (0x99, 0x99, 0x33),
    (0x88, 0x22, 0x55),
    (0x44, 0xAA, 0x99),
)
"""Okabe and Ito's colours without black and yellow, then four of Paul Tol's "muted": told apart by the colour-blind."""
_DRUM_COLOUR: Colour = (0x4A, 0x4F, 0x58)
_PREFERRED: dict[str, int] = {
    "piano": 0,
    "chromatic percussion": 9,
    "organ": 8,
    "guitar": 1,
    "bass": 3,
    "strings": 2,
    "ensemble": 2,
    "brass": 6,
    "reed": 5,
    "pipe": 4,
    "synth lead": 5,
    "synth pad": 7,
}
"""The colour a family has where it is free, so that a piano is blue in every picture."""

_INK: Colour = (0x20, 0x24, 0x2B)
_SOFT_INK: Colour = (0x6B, 0x72, 0x80)
_LANE: Colour = (0xFA, 0xFA, 0xFB)
_BLACK_KEY: Colour = (0xF1, 0xF2, 0xF5)
_LINE: Colour = (0xE3, 0xE5, 0xEA)
_OCTAVE: Colour = (0xB9, 0xBE, 0xC8)
_BLACK_KEYS = (1, 3, 6, 8, 10)

_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 92, 24, 16, 38, 12
_MIN_WIDTH, _MAX_WIDTH, _PIXELS_PER_SECOND = 1200, 2400, 24
_ROLL_HEIGHT, _MAX_ROW, _MIN_ROW = 380, 9, 4
_DRUM_ROW = 13
_MIN_SEMITONES = 24
_TITLE_SIZE, _TEXT_SIZE, _SMALL_SIZE = 17, 14, 12
_TITLE_LINES, _TITLE_LINE = 2, 24
_SECOND_STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
_MAX_SECOND_LABELS = 18
_BAR_STRIP = 14
"""Height of what bars are numbered in."""
_LEAST_BAR_PIXELS, _LEAST_NUMBER_PIXELS = 5, 26
"""Between two bar lines, and between two of their numbers; where bars are narrower, only every so many are drawn."""
Bars = Sequence[tuple[int, float]]
"""Number and second of the beginning of each bar, as clock.bar_lines gives them."""


@dataclass(frozen=True)
class RollLayout:
    """Where things are in a piano roll, in pixels of the finished picture."""

    width: int
    height: int
    seconds: float
    """Time at the right edge of the roll."""
    low: int
    """Lowest pitch shown."""
    high: int
    row: int
    """Height of a semitone."""
    roll_top: int
    drum_top: int
    drum_keys: tuple[int, ...]
    """Percussion keys from the lane's top down."""
    legend: tuple[tuple[int, int, int], ...]
    """(program, left, top) of every legend entry."""

    def x(self, seconds: float) -> float:
        """Pixel column of a time."""
        return _LEFT + seconds / self.seconds * (self.width - _LEFT - _RIGHT)

    def y(self, pitch: int) -> int:
        """Top of a pitch's row."""
        return self.roll_top + (self.high - pitch) * self.row

    def drum_y(self, key: int) -> int:
        """Top of a percussion key's row."""
        return self.drum_top + self.drum_keys.index(key) * _DRUM_ROW

    @property
    def roll_bottom(self) -> int:
        return self.roll_top + (self.high - self.low + 1) * self.row

    @property
    def bottom(self) -> int:
        """Where the lowest lane ends."""
        return self.drum_top + len(self.drum_keys) * _DRUM_ROW if self.drum_keys else self.roll_bottom


def program_colours(programs: Iterable[int]) -> dict[int, Colour]:
    """A colour for each program: its family's where that is free, else the next free one; drums are grey."""
    colours: dict[int, Colour] = {}
    free = list(_PALETTE)
    for program in programs:
        if program == DRUM_PROGRAM:
            colours[program] = _DRUM_COLOUR
            continue
        family = PROGRAM_FAMILIES[program]
        wished = _PALETTE[_PREFERRED.get(family, FAMILIES.index(family) % len(_PALETTE))]
        free = free or list(_PALETTE)
        colours[program] = wished if wished in free else free[0]
        free.remove(colours[program])
    return colours


def roll_layout(table: NoteTable, title: str | None = None, bars: Bars = ()) -> RollLayout:
    """Plans the picture of a table, with room for the numbers of bars if there are any."""
    programs, pitches = table.notes // PITCHES, table.notes % PITCHES
    pitched = pitches[programs != DRUM_PROGRAM]
    low, high = (int(pitched.min()) - 2, int(pitched.max()) + 2) if len(pitched) else (48, 72)
    missing = max(0, _MIN_SEMITONES - (high - low))
    low, high = max(0, low - missing // 2), min(PITCHES - 1, high + missing - missing // 2)
    row = max(_MIN_ROW, min(_MAX_ROW, _ROLL_HEIGHT // (high - low + 1)))
    seconds = max(1.0, table.seconds())
    width = round(min(_MAX_WIDTH, max(_MIN_WIDTH, seconds * _PIXELS_PER_SECOND)))

    legend = []
    left: float = _LEFT
    top = _TOP + _TITLE_LINE * len(_title_lines(title, width)) + 30
    for program in _by_share(table):
        entry = 22 + font(_TEXT_SIZE).getlength(PROGRAM_NAMES[program]) + 22
        if left > _LEFT and left + entry > width - _RIGHT:
            left, top = float(_LEFT), top + 22
        legend.append((program, round(left), top))
        left += entry
    roll_top = top + (30 if legend else 6) + (_BAR_STRIP if bars else 0)
    drum_keys = tuple(sorted({int(key) for key in pitches[programs == DRUM_PROGRAM]}, reverse=True))
    drum_top = roll_top + (high - low + 1) * row + _GAP
    bottom = drum_top + len(drum_keys) * _DRUM_ROW if drum_keys else drum_top - _GAP
    return RollLayout(width, bottom + _BOTTOM, seconds, low, high, row, roll_top, drum_top, drum_keys, tuple(legend))


def piano_roll(table: NoteTable, path: Path, title: str | None = None, bars: Bars = ()) -> Path:
    """Draws the notes as .png or .svg: seconds to the right, pitch upwards, a colour for each program, drums below.

    Softer notes are paler. Bars, where they are given, are ruled and numbered. The file appears under its name once it
    is complete.

    Raises:
        ValueError: the path has another ending.
    """
    path = Path(path)
    layout = roll_layout(table, title, bars)
    canvas = surface(path, layout.width, layout.height)
    _draw_grid(canvas, layout, ruled=not bars)
    _draw_bars(canvas, layout, bars)
    _draw_notes(canvas, layout, table)
    _draw_words(canvas, layout, table, title)
    canvas.save(path)
    return path


def _by_share(table: NoteTable) -> list[int]:
    """Programs by the time they sound, most first; drums last."""
    programs = table.notes // PITCHES
    sounding = np.bincount(programs, weights=table.durations, minlength=DRUM_PROGRAM + 1)
    present = sorted(set(table.programs()), key=lambda program: (program == DRUM_PROGRAM, -sounding[program], program))
    return present


def _draw_grid(canvas: Surface, layout: RollLayout, *, ruled: bool) -> None:
    """Lanes, octaves and seconds; these are ruled all the way up only where no bars are."""
    left, right = layout.x(0), layout.width - _RIGHT
    canvas.box(left, layout.roll_top, right, layout.roll_bottom, _LANE)
    for pitch in range(layout.low, layout.high + 1):
        if pitch % 12 in _BLACK_KEYS:
            canvas.box(left, layout.y(pitch), right, layout.y(pitch) + layout.row, _BLACK_KEY)
    for key in layout.drum_keys:
        top = layout.drum_y(key)
        canvas.box(left, top, right, top + _DRUM_ROW - 1, _BLACK_KEY)
    step = next(step for step in (*_SECOND_STEPS, layout.seconds) if layout.seconds / step <= _MAX_SECOND_LABELS)
    for number in range(int(layout.seconds / step) + 1):
        x = layout.x(number * step)
        top, bottom = (layout.roll_top, layout.bottom) if ruled else (layout.bottom, layout.bottom + 4)
        canvas.box(x, top, x + 1, bottom, _LINE)
        canvas.text(x, layout.bottom + 13, f"{number * step:g}", _SMALL_SIZE, _SOFT_INK, "mm")
    canvas.text(left - 14, layout.bottom + 13, "seconds", _SMALL_SIZE, _SOFT_INK, "rm")
    for pitch in range(layout.low, layout.high + 1):
        if pitch % 12 == 0:
            bottom = layout.y(pitch) + layout.row
            canvas.box(left, bottom - 0.5, right, bottom + 0.5, _OCTAVE)
            canvas.text(left - 10, bottom - layout.row / 2, f"C{pitch // 12 - 1}", _SMALL_SIZE, _SOFT_INK, "rm")


def _draw_bars(canvas: Surface, layout: RollLayout, bars: Bars) -> None:
    shown = [(number, layout.x(second)) for number, second in bars if second <= layout.seconds]
    if len(shown) < 2:
        return
    width = max((shown[-1][1] - shown[0][1]) / (len(shown) - 1), 0.01)
    # Every 1, 2, 4, 8 ... bars, as music has them in phrases.
    ruled, numbered = (
        1 << max(0, math.ceil(math.log2(least / width))) for least in (_LEAST_BAR_PIXELS, _LEAST_NUMBER_PIXELS)
    )
    for index, (number, x) in enumerate(shown):
        if index % ruled == 0:
            canvas.box(x, layout.roll_top - 4, x + 1, layout.bottom, _LINE)
        if index % numbered == 0 and number < bars[-1][0]:
            canvas.text(x, layout.roll_top - _BAR_STRIP / 2 - 3, str(number), _SMALL_SIZE - 1, _SOFT_INK, "mm")
    canvas.text(_LEFT - 14, layout.roll_top - _BAR_STRIP / 2 - 3, "bar", _SMALL_SIZE - 1, _SOFT_INK, "rm")


def _draw_notes(canvas: Surface, layout: RollLayout, table: NoteTable) -> None:
    colours = program_colours(program for program, _, _ in layout.legend)
    # Long notes first, so that short ones stay visible where they overlap.
    order = np.argsort(-table.durations, kind="stable")
    columns = (column[order].tolist() for column in (table.onsets, table.durations, table.notes, table.velocities))
    for onset, duration, note, velocity in zip(*columns, strict=True):
        program, pitch = divmod(note, PITCHES)
        left = layout.x(onset / TICKS_PER_SECOND)
        right = max(left + 2.5, layout.x((onset + duration) / TICKS_PER_SECOND) - 0.5)
        fill = _paler(colours[program], 0.5 + 0.5 * min(1.0, velocity / 100))
        edge = _paler(colours[program], 1.0, darker=0.72)
        if program == DRUM_PROGRAM:
            top = layout.drum_y(pitch)
            canvas.pill(left, top + 1.5, left + 5, top + _DRUM_ROW - 2.5, fill, edge)
        else:
            canvas.pill(left, layout.y(pitch), right, layout.y(pitch) + layout.row, fill, edge)


def _paler(colour: Colour, strength: float, darker: float = 1.0) -> Colour:
    red, green, blue = (round((255 - (255 - part) * strength) * darker) for part in colour)
    return red, green, blue


def _draw_words(canvas: Surface, layout: RollLayout, table: NoteTable, title: str | None) -> None:
    left, top = _LEFT, _TOP
    for line in _title_lines(title, layout.width):
        canvas.text(left, top + 10, line, _TITLE_SIZE, _INK)
        top += _TITLE_LINE
    facts = [f"{table.seconds():.1f} s", f"{len(table):,} notes" if len(table) != 1 else "1 note"]
    canvas.text(left, top + 12, "  ·  ".join(facts), _TEXT_SIZE, _SOFT_INK)
    colours = program_colours(program for program, _, _ in layout.legend)
    for program, x, y in layout.legend:
        canvas.pill(x, y + 2, x + 14, y + 16, colours[program], _paler(colours[program], 1.0, darker=0.72))
        canvas.text(x + 21, y + 9, PROGRAM_NAMES[program], _TEXT_SIZE, _INK)
    for key in layout.drum_keys:
        name = DRUM_NAMES.get(key, f"Key {key}")
        canvas.text(left - 10, layout.drum_y(key) + (_DRUM_ROW - 1) / 2, name, _SMALL_SIZE - 1, _SOFT_INK, "rm")


def _title_lines(title: str | None, width: int) -> list[str]:
    """The title on as many lines as it may have; an ellipsis stands for what does not fit."""
    letters = font(_TITLE_SIZE)
    lines: list[str] = []
    words = (title or "").split()
    while words:
        fits = [
            count
            for count in range(1, len(words) + 1)
            if letters.getlength(" ".join(words[:count])) < width - _LEFT - 48
        ]
        count = fits[-1] if fits else 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
        if words and len(lines) == _TITLE_LINES:
            lines[-1] += " …"
            break
    return lines
