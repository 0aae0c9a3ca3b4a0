"""The plot of an experiment as an SVG file of its own: curves over the steps, or figures with their intervals.

Drawn from the record alone, by this code, so that the same record gives the same file on every machine. Arms are told
apart by colour, mark and letter.
"""

import html
import statistics
from collections.abc import Callable, Sequence

from midillm_jax.evaluation import axes, charts
from midillm_jax.evaluation.intervals import Interval
from midillm_jax.experiments import effects
from midillm_jax.experiments.plan import Experiment, Figure
from midillm_jax.experiments.record import Outcome, Points, Record

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 30, 30, 46
_LINE = 20
_STYLE = (
    "text{font:12px sans-serif;fill:#1d2330}.grid{stroke:#d9dde5;stroke-width:1}.seed{fill:none;stroke:currentColor;"
    "stroke-width:1;opacity:.35}.mean{fill:none;stroke:currentColor;stroke-width:2}.bar{stroke:currentColor;"
    "stroke-width:2}.dot{fill:currentColor}.letter{font-weight:bold;fill:currentColor}"
)
_ROW, _NAMES = 26, 250

Place = Callable[[float], float]
"""A value to its place on the page."""
Lines = dict[str, list[Points]]
"""Arm to the curves of its seeds."""


def draw(experiment: Experiment, record: Record) -> str:
    """The file: a panel a curve, or a panel a figure where the experiment has no curves."""
    arms = {arm.name: arm.words for arm in experiment.arms if arm.name in record.arms}
    styles = dict(zip(arms, charts.styles(len(arms)), strict=True))
    panels: list[tuple[str, int]] = []
    for curve in experiment.curves:
        drawn = _curves(curve.words, record, styles, bool(curve.tokens_a_step))
        if drawn:
            panels.append((drawn, _HEIGHT))
    if panels:
        panels.append(_key(arms, styles))
    else:
        panels = [_intervals(figure, record, arms, styles) for figure in experiment.figures]
    height = sum(size for _, size in panels)
    parts, top = [], 0
    for drawn, size in panels:
        parts.append(f'<g transform="translate(0 {top})">{drawn}</g>')
        top += size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
        f'<style>{_STYLE}</style><rect width="{_WIDTH}" height="{height}" fill="#fff"/>' + "\n".join(parts) + "</svg>\n"
    )


def _curves(words: str, record: Record, styles: dict[str, charts.Style], tokens: bool) -> str:
    lines: Lines = {
        arm: [outcome.curves[words] for outcome in record.arms[arm].values() if words in outcome.curves]
        for arm in styles
    }
    points = [point for some in lines.values() for line in some for point in line]
    if not points:
        return ""
    last = max(step for step, _ in points)
    across = axes.linear(0, last, 6)
    values = [value for _, value in points]
    low, high = min(values), max(values)
    far = low > 0 and high / low >= 8
    up = axes.logarithmic(low, high, most=7) if far else axes.linear(low, high, 5)

    def x(step: float) -> float:
        return _LEFT + step / last * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - up.share(value) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="16">{html.escape(words)}{", logarithmic" if far else ""}</text>']
    for value in up.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for step in across.ticks:
        if step <= last:
            parts.append(
                f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{step:,.0f}</text>'
            )
    name = "tokens" if tokens else "step"
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">{name}</text>')
    for arm, some in lines.items():
        if not some:
            continue
        style = styles[arm]
        dashes = ' stroke-dasharray="6 4"' if style.dashed else ""
        parts.append(f'<g style="color:{style.colour}">')
        parts += [f'<path class="seed" d="{_path(line, x, y)}"/>' for line in some if len(some) > 1]
        steps = sorted(set.intersection(*({step for step, _ in line} for line in some)))
        middle = [(step, statistics.fmean(dict(line)[step] for line in some)) for step in steps]
        parts.append(f'<path class="mean"{dashes} d="{_path(middle, x, y)}"/>')
        end = middle[-1]
        parts.append(f'<circle class="dot" cx="{x(end[0]):.1f}" cy="{y(end[1]):.1f}" r="3"/></g>')
    return "".join([*parts, *_letters(lines, styles, x, y)])


def _letters(lines: Lines, styles: dict[str, charts.Style], x: Place, y: Place) -> list[str]:
    """Each arm's letter behind its line; of those that end together each a little lower."""
    ends = []
    for arm, some in lines.items():
        if some:
            step = min(line[-1][0] for line in some)
            ends.append((x(step), y(statistics.fmean(line[-1][1] for line in some)), styles[arm]))
    parts, before = [], (-100.0, -100.0)
    for across, height, style in sorted(ends, key=lambda end: end[:2]):
        if abs(across - before[0]) < 20 and height - before[1] < 12:
            height = before[1] + 12
        before = (across, height)
        parts.append(
            f'<text class="letter" style="color:{style.colour}" x="{across + 7:.1f}" y="{height + 4:.1f}">'
            f"{style.letter}</text>"
        )
    return parts


def _path(points: Sequence[tuple[float, float]], x: Place, y: Place) -> str:
    return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)


def _key(arms: dict[str, str], styles: dict[str, charts.Style]) -> tuple[str, int]:
    parts = []
    for number, (arm, words) in enumerate(arms.items()):
        style, height = styles[arm], 14 + number * _LINE
        dashes = ' stroke-dasharray="6 4"' if style.dashed else ""
        parts.append(
            f'<g style="color:{style.colour}"><path class="mean"{dashes} d="M{_LEFT} {height}h30"/>'
            f'<text class="letter" x="{_LEFT + 38}" y="{height + 4}">{style.letter}</text></g>'
            f'<text x="{_LEFT + 56}" y="{height + 4}">{html.escape(f"{arm}: {words}")}</text>'
        )
    return "".join(parts), 14 + len(arms) * _LINE


def _intervals(
    figure: Figure, record: Record, arms: dict[str, str], styles: dict[str, charts.Style]
) -> tuple[str, int]:
    shown = {arm: interval for arm in arms if (interval := of_seeds(figure, record.arms[arm])) is not None}
    if not shown:
        return "", 0
    low, high = min(0.0, *(each.low for each in shown.values())), max(each.high for each in shown.values())
    across = axes.linear(low, high if high > low else low + 1, 5)
    height = _TOP + _ROW * len(shown) + 24

    def x(value: float) -> float:
        return _NAMES + across.share(value) * (_WIDTH - _NAMES - _RIGHT)

    parts = [f'<text x="8" y="16">{html.escape(figure.words)}</text>']
    for value in across.ticks:
        parts.append(f'<path class="grid" d="M{x(value):.1f} {_TOP - 4}V{height - 22}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{height - 8}" text-anchor="middle">{value:,.10g}</text>')
    for number, (arm, each) in enumerate(shown.items()):
        at = _TOP + _ROW * number + _ROW // 2
        parts.append(
            f'<text x="{_NAMES - 10}" y="{at + 4}" text-anchor="end">{html.escape(arm)}</text>'
            f'<g style="color:{styles[arm].colour}"><path class="bar" d="M{x(each.low):.1f} {at}H{x(each.high):.1f}"/>'
            f'<circle class="dot" cx="{x(each.value):.1f}" cy="{at}" r="4"/></g>'
        )
    return "".join(parts), height


def of_seeds(figure: Figure, outcomes: dict[int, Outcome]) -> Interval | None:
    """A figure of an arm: over its seeds; of one seed as its command gave it, without bounds if that had none."""
    found = [outcome.figures[figure.name] for outcome in outcomes.values() if figure.name in outcome.figures]
    if not found:
        return None
    over_seeds = effects.mean(values(found))
    if over_seeds is not None:
        return over_seeds
    (only,) = found
    return only if isinstance(only, Interval) else Interval(only, only, only)


def values(found: Sequence[float | Interval]) -> list[float]:
    """Without bounds."""
    return [each.value if isinstance(each, Interval) else each for each in found]
