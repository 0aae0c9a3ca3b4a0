"""Loss curves of training runs as inline SVG, from the log.csv that training writes."""

import dataclasses
import html
from pathlib import Path

from midillm_jax.evaluation import axes
from midillm_jax.evaluation.run_log import Points, read_log

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
    log = read_log(folder)
    curves = []
    for column, title in _METRICS:
        train, validation = log.points("train", column), log.points("validation", column)
        if train or validation:
            curves.append(Curve(title, train, validation))
    return Run(folder.name, tuple(curves))


def draw(curve: Curve) -> str:
    """An SVG element of a curve: training as a line, held-out pieces as a line with dots."""
    points = (*curve.train, *curve.validation)
    last = max(step for step, _ in points)
    axis = axes.linear(min(value for _, value in points), max(value for _, value in points), _Y_TICKS)

    def x(step: float) -> float:
        return _LEFT + step / max(last, 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - axis.share(value) * (_HEIGHT - _TOP - _BOTTOM)

    def path(line: Points) -> str:
        return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line)

    parts = [f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(curve.title)}">']
    for value in axis.ticks:
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    step_x = axes.nice(max(last, 1) / _X_TICKS)
    for number in range(int(last / step_x) + 1):
        step = number * step_x
        parts.append(f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{step:,.0f}</text>')
    parts.append(f'<polyline class="train" points="{path(curve.train)}"/>')
    parts.append(f'<polyline class="validation" points="{path(curve.validation)}"/>')
    parts += [f'<circle class="validation" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3"/>' for s, v in curve.validation]
    parts.append("</svg>")
    return "".join(parts)
