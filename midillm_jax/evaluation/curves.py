"""Loss curves of training runs as inline SVG, from the log.csv that training writes."""

import csv
import dataclasses
import html
import math
from collections.abc import Sequence
from pathlib import Path

from midillm_jax.errors import UserError

Points = tuple[tuple[float, float], ...]

_METRICS = (("bits_per_note", "music, bits a note"), ("text_loss", "text, nats a token"))
_WIDTH, _HEIGHT = 520, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 14, 34
_Y_TICKS, _X_TICKS = 4, 5


@dataclasses.dataclass(frozen=True)
class Curve:
    """One figure over a run's steps."""

    title: str
    train: Points
    """(step, value)"""
    validation: Points


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run's curves."""

    name: str
    curves: tuple[Curve, ...]


def read_run(folder: Path) -> Run:
    """The curves of a run folder.

    Raises:
        UserError: no log there, or one that is not training's.
    """
    path = folder / "log.csv"
    if not path.is_file():
        raise UserError(f"--runs {folder}: holds no log.csv; expected the folder of a training run")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"step", "kind"} <= rows[0].keys():
        raise UserError(f"{path}: is not the log of a training run; expected the columns step, kind and figures")
    curves = []
    for column, title in _METRICS:
        train, validation = (_points(rows, kind, column) for kind in ("train", "validation"))
        if train or validation:
            curves.append(Curve(title, train, validation))
    return Run(folder.name, tuple(curves))


def _points(rows: Sequence[dict[str, str]], kind: str, column: str) -> Points:
    return tuple((float(row["step"]), float(row[column])) for row in rows if row["kind"] == kind and row.get(column))


def draw(curve: Curve) -> str:
    """An SVG element of a curve: training as a line, held-out pieces as a line with dots."""
    points = (*curve.train, *curve.validation)
    last = max(step for step, _ in points)
    bottom, top, step_y = _scale(min(value for _, value in points), max(value for _, value in points))

    def x(step: float) -> float:
        return _LEFT + step / max(last, 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    def path(line: Points) -> str:
        return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line)

    parts = [f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(curve.title)}">']
    for number in range(round((top - bottom) / step_y) + 1):
        value = bottom + number * step_y
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    step_x = _nice(max(last, 1) / _X_TICKS)
    for number in range(int(last / step_x) + 1):
        step = number * step_x
        parts.append(f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{step:,.0f}</text>')
    parts.append(f'<polyline class="train" points="{path(curve.train)}"/>')
    parts.append(f'<polyline class="validation" points="{path(curve.validation)}"/>')
    parts += [f'<circle class="validation" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3"/>' for s, v in curve.validation]
    parts.append("</svg>")
    return "".join(parts)


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round bounds around a range, and the distance of the lines between them."""
    step = _nice((high - low or abs(high) or 1.0) / _Y_TICKS)
    bottom = math.floor(low / step) * step
    return bottom, max(math.ceil(high / step) * step, bottom + step), step


def _nice(size: float) -> float:
    """The next of ... 0.1, 0.2, 0.5, 1, 2, 5, 10 ... from a size up."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size * (1 - 1e-9))
