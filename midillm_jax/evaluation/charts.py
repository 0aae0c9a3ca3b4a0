"""Charts of several runs, as inline SVG: told apart by colour, mark and letter, hence without colour too."""

import dataclasses
import html
from collections.abc import Callable, Sequence
from typing import Literal

from midillm_jax.evaluation import axes
from midillm_jax.evaluation.run_log import Points

_WIDTH, _HEIGHT = 400, 226
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 26, 10, 40
_Y_TICKS, _X_TICKS = 4, 5
_LOGARITHMIC_FROM = 8
"""Ratio of the greatest to the least value from which a falling figure is drawn on a logarithmic axis."""
_MOST_POINTS = 240
"""Of a training line; more are averaged over stretches of steps."""
_MOST_MARKS = 12
_LETTER_HEIGHT = 14

Mark = Literal["circle", "square", "triangle", "diamond", "cross"]


@dataclasses.dataclass(frozen=True)
class Style:
    """How a run looks in every chart."""

    letter: str
    colour: str
    mark: Mark
    dashed: bool


_COLOURS = ("#0077bb", "#d55e00", "#00b386", "#aa3377", "#1d2330")
"""Chosen from Okabe and Ito's and Paul Tol's: in each kind of colour-blindness (Machado 2009) any two are 21 or more
apart in CIELAB."""
_MARKS: tuple[Mark, ...] = ("circle", "square", "triangle", "diamond", "cross")
MOST_RUNS = 2 * len(_COLOURS)


def styles(count: int) -> tuple[Style, ...]:
    """Styles of up to MOST_RUNS runs; the second five have the first's colours and dashed lines."""
    return tuple(
        Style(chr(ord("A") + run), _COLOURS[run % 5], _MARKS[run % 5], dashed=run >= 5) for run in range(count)
    )


@dataclasses.dataclass(frozen=True)
class Line:
    """A figure of one run."""

    style: Style
    train: Points
    """Drawn thin where there is also held-out data."""
    held_out: Points
    """Drawn with marks."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """One figure of several runs."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: Literal["falling", "from zero"]
    """``falling``: as wide as the values, logarithmic where they fall far; ``from zero``: linear."""
    write: Callable[[float], str]
    """How numbers of the vertical axis are written."""
    least: float = 0.0
    """Up to where the axis goes at the least, so that next to nothing looks like it."""


def draw(chart: Chart) -> str:
    """An SVG element."""
    lines = [dataclasses.replace(line, train=_thinned(line.train)) for line in chart.lines]
    points = [point for line in lines for point in (*line.train, *line.held_out)]
    across, up = axes.linear(0, max(step for step, _ in points), _X_TICKS), _vertical(chart, points)
    last = max(step for step, _ in points)

    def x(step: float) -> float:
        return _LEFT + step / max(last, 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - up.share(value) * (_HEIGHT - _TOP - _BOTTOM)

    label = html.escape(f"{chart.title}, {chart.unit}, over steps")
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for value in up.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y(value) + 4.5:.1f}" text-anchor="end">{chart.write(value)}</text>')
    for step in across.ticks:
        if step <= last:
            parts.append(
                f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{step:,.0f}</text>'
            )
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">step</text>')
    if up.logarithmic:
        parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_TOP + 10}" text-anchor="end">logarithmic</text>')
    for line in lines:
        parts += _line(line, x, y)
    parts += _letters(lines, x, y)
    return "".join([*parts, "</svg>"])


def key(style: Style) -> str:
    """A short stretch of a run's line, as in the charts."""
    return (
        '<svg class="swatch" viewBox="0 0 44 14" aria-hidden="true">'
        f'<g style="color: {style.colour}"><path class="held"{_dashes(style)} d="M2 7H42"/>'
        f"{_mark(style, 22, 7)}</g></svg>"
    )


def _vertical(chart: Chart, points: Sequence[tuple[float, float]]) -> axes.Axis:
    low, high = min(value for _, value in points), max(value for _, value in points)
    if chart.scale == "from zero":
        return axes.linear(min(low, 0.0), max(high, chart.least), _Y_TICKS)
    if low > 0 and high / low >= _LOGARITHMIC_FROM:
        return axes.logarithmic(low, high, most=7)
    return axes.linear(low, high, _Y_TICKS)


def _thinned(points: Points) -> Points:
    """At most _MOST_POINTS points, each the mean over a stretch; first and last stay what they are."""
    if len(points) <= _MOST_POINTS:
        return points
    inner = points[1:-1]
    size = -(-len(inner) // (_MOST_POINTS - 2))
    stretches = [inner[start : start + size] for start in range(0, len(inner), size)]
    means = [
        (sum(step for step, _ in part) / len(part), sum(value for _, value in part) / len(part)) for part in stretches
    ]
    return (points[0], *means, points[-1])


def _line(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    style, parts = line.style, [f'<g style="color: {line.style.colour}">']

    def path(points: Points) -> str:
        return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)

    if line.train:
        thin = "train" if line.held_out else "held"
        parts.append(f'<path class="{thin}"{_dashes(style)} d="{path(line.train)}"/>')
    if line.held_out:
        parts.append(f'<path class="held"{_dashes(style)} d="{path(line.held_out)}"/>')
        every = -(-len(line.held_out) // _MOST_MARKS)
        parts += [_mark(style, x(step), y(value)) for step, value in line.held_out[::-every]]
    return [*parts, "</g>"]


def _dashes(style: Style) -> str:
    return ' stroke-dasharray="6 4"' if style.dashed else ""


def _mark(style: Style, x: float, y: float) -> str:
    shapes = {
        "circle": f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "square": f"M{x - 3.6:.1f} {y - 3.6:.1f}h7.2v7.2h-7.2z",
        "triangle": f"M{x:.1f} {y - 4.8:.1f}l4.6 8.2h-9.2z",
        "diamond": f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
        "cross": f"M{x - 4:.1f} {y - 1.4:.1f}h2.6v-2.6h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6z",
    }
    return f'<path class="mark" d="{shapes[style.mark]}"/>'


def _letters(lines: Sequence[Line], x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """The letter of each run behind the end of its line; those of lines that end together are moved apart."""
    ends: list[tuple[float, float, Style]] = []
    for line in lines:
        drawn = line.held_out or line.train
        if drawn:
            ends.append((x(drawn[-1][0]), y(drawn[-1][1]), line.style))
    parts = []
    while ends:
        left = ends[0][0]
        beside = sorted((end for end in ends if abs(end[0] - left) < _LETTER_HEIGHT), key=lambda end: end[1])
        ends = [end for end in ends if end not in beside]
        for (at, _, style), top in zip(beside, _apart([height for _, height, _ in beside]), strict=True):
            parts.append(
                f'<text class="letter" x="{at + 9:.1f}" y="{top + 4.5:.1f}" style="color: {style.colour}">'
                f"{style.letter}</text>"
            )
    return parts


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending heights with a letter's room between them, moved no further than it takes, and none below the axis."""
    groups: list[tuple[float, int]] = []  # middle and size
    for height in heights:
        groups.append((height, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < (groups[-1][1] + groups[-2][1]) / 2 * _LETTER_HEIGHT:
            (lower, some), (upper, more) = groups.pop(), groups.pop()
            groups.append(((lower * some + upper * more) / (some + more), some + more))
    places = [middle + (number - (size - 1) / 2) * _LETTER_HEIGHT for middle, size in groups for number in range(size)]
    for number in reversed(range(len(places))):
        limit = _HEIGHT - _BOTTOM if number == len(places) - 1 else places[number + 1] - _LETTER_HEIGHT
        places[number] = min(places[number], limit)
    return places
