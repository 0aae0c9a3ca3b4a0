"""The page that compares training runs: one HTML file that needs nothing else, pictures included."""

import base64
import dataclasses
import html
from collections.abc import Sequence
from typing import Any

from midillm_jax.evaluation import charts, runs
from midillm_jax.evaluation.charts import Chart, Line, Style
from midillm_jax.evaluation.page_style import RUNS_STYLE, STYLE
from midillm_jax.evaluation.run_log import SHARES, Points
from midillm_jax.evaluation.runs import Best, Figure, Run

_PICTURES = 4
"""Of each run's last samples."""
_NOTHING = "&ndash;"


def render(found: Sequence[Run]) -> str:
    """The page's HTML."""
    styles = charts.styles(len(found))
    sections = [
        "<header><h1>Training runs</h1>",
        '<p class="soft lead">Thick lines with marks are held-out data, thin ones training batches; figures that only '
        "training has are thick without marks. Each run keeps its colour, mark and letter.</p></header>",
        _legend(found, styles),
        _summary(found, styles),
        _settings(found, styles),
        _charts("What was learned", [*runs.LOSSES, *runs.SLOTS, runs.DRIFT], found, styles),
        _sources(found, styles),
        _charts("How it ran", runs.COURSE, found, styles),
        _charts("Other figures", [_unknown(column) for column in runs.others(found)], found, styles),
        _samples(found, styles),
        _notes(found),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>midillm_jax training runs</title><style>{STYLE}{RUNS_STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words))


def _legend(found: Sequence[Run], styles: Sequence[Style]) -> str:
    entries = "".join(
        f"<li>{_label(run, style)} <span class=soft>{_state(run)}</span></li>"
        for run, style in zip(found, styles, strict=True)
    )
    return f'<ul class="legend card">{entries}</ul>'


def _label(run: Run, style: Style) -> str:
    return f'<span class="run">{charts.key(style)}<b>{style.letter}</b> <span>{_text(run.name)}</span></span>'


def _letter(style: Style) -> str:
    return f'<span class="run">{charts.key(style)}<b>{style.letter}</b></span>'


def _state(run: Run) -> str:
    if run.steps is None:
        done = f"{run.step:,} steps"
    else:
        done = f"all {run.steps:,} steps" if run.step >= run.steps else f"{run.step:,} of {run.steps:,} steps"
    return done + (f", {run.refused:,} not applied" if run.refused else "")


def _summary(found: Sequence[Run], styles: Sequence[Style]) -> str:
    losses = [figure for figure in runs.LOSSES if any(run.last(figure.column) for run in found)]
    head = (
        '<tr><th rowspan="2">run</th><th rowspan="2" class="number">tokens</th>'
        '<th rowspan="2" class="number">time</th>'
        + "".join(f'<th colspan="2" class="over">{figure.title}, {figure.unit}</th>' for figure in losses)
        + '<th rowspan="2" class="number">tokens/s</th><th rowspan="2" class="number">waiting</th></tr>'
        f"<tr>{'<th class=number>last</th><th class=number>best (step)</th>' * len(losses)}</tr>"
    )
    least: dict[str, float] = {}
    for figure in losses:
        bests = [best.value for run in found if (best := run.best(figure.column))]
        if len(bests) > 1:
            least[figure.column] = min(bests)
    rows = "".join(
        f"<tr><td>{_label(run, style)}</td>{_cells(run, losses, least)}</tr>"
        for run, style in zip(found, styles, strict=True)
    )
    return (
        '<h2>At a glance</h2><p class="soft lead">Of held-out data; the best of all runs is bold. Speed and the '
        "share of the time in which the device waits for data are medians.</p>"
        f'<article class="card scroll"><table class="summary">{head}{rows}</table></article>'
    )


def _cells(run: Run, losses: Sequence[Figure], least: dict[str, float]) -> str:
    tokens, speed, waiting = run.last("tokens"), run.typical("tokens_per_second"), run.typical("data_wait_share")
    cells = [_amount(tokens.value) if tokens else None, _time(run.seconds())]
    for figure in losses:
        last, best = run.last(figure.column), run.best(figure.column)
        cells += [_value(last), _at(best, bold=best is not None and best.value == least.get(figure.column))]
    cells += [None if speed is None else f"{speed:,.0f}", None if waiting is None else f"{100 * waiting:.1f} %"]
    return "".join(f'<td class="number">{_NOTHING if cell is None else cell}</td>' for cell in cells)


def _amount(value: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def _time(seconds: float) -> str:
    for size, unit in ((86_400, " d"), (3_600, " h"), (60, " min")):
        if seconds >= size:
            return f"{seconds / size:.3g}{unit}"
    return f"{seconds:.0f} s"


def _value(found: Best | None) -> str | None:
    return None if found is None else f"{found.value:.3f}"


def _at(best: Best | None, *, bold: bool) -> str | None:
    if best is None:
        return None
    value = f"<b>{best.value:.3f}</b>" if bold else f"{best.value:.3f}"
    return f'{value} <span class="soft">({best.step:,})</span>'


def _charts(title: str, figures: Sequence[Figure], found: Sequence[Run], styles: Sequence[Style]) -> str:
    cards = [_chart(figure, [run.points(figure.column) for run in found], styles) for figure in figures]
    return _section(title, [card for card in cards if card])


def _sources(found: Sequence[Run], styles: Sequence[Style]) -> str:
    """Held-out figures of single sources, where the data has several."""
    cards = []
    for kind in runs.sources(found):
        for figure in runs.LOSSES:
            points = [((), run.log.points(kind, figure.column)) for run in found]
            cards.append(_chart(dataclasses.replace(figure, title=kind.removeprefix(runs.OF_A_SOURCE)), points, styles))
    return _section("Held-out data, source by source", [card for card in cards if card])


def _section(title: str, cards: Sequence[str]) -> str:
    if not cards:
        return ""
    return f"<h2>{_text(title)}</h2>{_grid(cards)}"


def _grid(cards: Sequence[str]) -> str:
    columns = "halves" if len(cards) in (2, 4) else "thirds"
    return f'<div class="grid {columns}">{"".join(cards)}</div>'


def _chart(figure: Figure, points: Sequence[tuple[Points, Points]], styles: Sequence[Style]) -> str:
    """A figure's card; nothing where no run has it, or where it is 0 throughout."""
    lines = tuple(Line(style, *both) for style, both in zip(styles, points, strict=True) if any(both))
    if not any(value for line in lines for _, value in (*line.train, *line.held_out)):
        return ""
    return _card(Chart(figure.title, figure.unit, lines, figure.scale, figure.write, figure.least))


def _card(chart: Chart) -> str:
    return (
        f'<article class="card"><div class="head"><h3>{_text(chart.title)}</h3>'
        f'<span class="soft">{_text(chart.unit)}</span></div>{charts.draw(chart)}</article>'
    )


def _unknown(column: str) -> Figure:
    return Figure(column, column.replace("_", " "), "", "falling", "{:g}".format)


def _samples(found: Sequence[Run], styles: Sequence[Style]) -> str:
    sampled = [(run, style) for run, style in zip(found, styles, strict=True) if run.samples]
    if not sampled:
        return ""
    head = "".join(f'<th class="number">{name.removesuffix("_share")}</th>' for name in SHARES)
    rows = "".join(
        f'<tr><td>{_label(run, style)}</td><td class="number">{run.samples[-1].step:,}</td>'
        + "".join(f'<td class="number">{100 * run.samples[-1].shares[name]:.0f} %</td>' for name in SHARES)
        + "</tr>"
        for run, style in sampled
    )
    return (
        '<h2>Samples</h2><p class="soft lead">The same prompts with the same noise at every step; the table and the '
        "pictures are of the last ones. Looping, flooded and empty are signs of failed music, read from the notes.</p>"
        '<article class="card scroll"><table class="summary">'
        f'<tr><th>run</th><th class="number">step</th>{head}</tr>{rows}</table></article>'
        f"{_grid(_charts_of_samples(sampled))}"
        f'<div class="grid pieces rolls">{"".join(_rolls(run, style) for run, style in sampled)}</div>'
    )


def _rolls(run: Run, style: Style) -> str:
    """What the last samples of a run look like."""
    last = run.samples[-1]
    pictures = "".join(
        f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" '
        f'alt="Piano roll of sample {number} of {_text(run.name)} at step {last.step}" loading="lazy">'
        for number, path in enumerate(last.pictures[:_PICTURES], 1)
    )
    return (
        f'<article class="card piece"><div class="head">{_label(run, style)}'
        f'<span class="soft">step {last.step:,}</span></div>{pictures}</article>'
    )


def _charts_of_samples(sampled: Sequence[tuple[Run, Style]]) -> list[str]:
    """How often samples fail, over the steps, for the signs that ever showed."""
    styles = [style for _, style in sampled]
    cards = []
    for name in SHARES[1:]:
        title = f"{name.removesuffix('_share').capitalize()} samples"
        figure = Figure(name, title, "share of the prompts", "from zero", runs.percent, least=1.0)
        over_steps = [tuple((float(each.step), each.shares[name]) for each in run.samples) for run, _ in sampled]
        cards.append(_chart(figure, [((), points) for points in over_steps], styles))
    return [card for card in cards if card]


def _settings(found: Sequence[Run], styles: Sequence[Style]) -> str:
    if len(found) < 2:
        return ""
    different = runs.differences(found)
    title = "<h2>Settings that differ</h2>"
    if not different:
        return f'{title}<p class="soft lead">None: beside their names these runs have the same config.</p>'
    head = "".join(f"<th>{_letter(style)}</th>" for style in styles)
    rows = "".join(
        f"<tr><td><code>{_text(name)}</code></td>{''.join(f'<td>{_setting(value)}</td>' for value in values)}</tr>"
        for name, values in different.items()
    )
    return (
        f'{title}<p class="soft lead">Everything else in their configs is the same.</p>'
        f'<article class="card scroll"><table class="settings"><tr><th>field</th>{head}</tr>{rows}</table></article>'
    )


def _setting(value: Any) -> str:
    if value is None:
        return f'<span class="soft">{_NOTHING}</span>'
    if isinstance(value, float):
        return f"<code>{value:g}</code>"
    return f"<code>{_text(value) or '&quot;&quot;'}</code>"


def _notes(found: Sequence[Run]) -> str:
    torn = [run.name for run in found if run.log.torn]
    points = [
        "Bits a note: all nats spent on onsets, durations and notes, rests and the end of the piece included, over "
        "ln 2 and over the notes that sound.",
        "An axis is logarithmic where the greatest value is eight times the least or more. Of training lines with "
        "hundreds of points each point drawn is the mean over a stretch of steps.",
        "Time is that up to the last row of each start of a run, added up.",
        *(f"{name}: log.csv ended inside a line, as after a kill; that line is left out." for name in torn),
    ]
    items = "".join(f"<li>{_text(point)}</li>" for point in points)
    return f"<details open><summary>How to read this</summary><ul>{items}</ul></details>"
