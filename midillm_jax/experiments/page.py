"""The pages in docs/experiments: what of them follows from the records, written anew by ``--report``.

A page NAME.md is a person's words around what stands between the markers ``<!-- record -->`` ... ``<!-- /record -->``
(command, machine, tables, sentences, plot), in README.md ``<!-- index -->`` (a line an experiment, with the page's
answer) and ``<!-- cost -->``. Everything there comes from NAME.json and configs/experiments/NAME.py alone.
"""

import re
from collections.abc import Callable
from pathlib import Path

from midillm_jax.errors import UserError
from midillm_jax.evaluation.intervals import Interval
from midillm_jax.experiments import effects, plan, plot, record
from midillm_jax.experiments.plan import Arm, Experiment, Figure
from midillm_jax.experiments.record import Record
from midillm_jax.files import write_whole

INDEX = "README.md"
_ANSWER = re.compile(r"^\*\*In one line:\*\* (.+)$", re.MULTILINE)


Cost = Callable[[Experiment], list[str]]
"""Lines of a table: what the trainings of an experiment take at 1B."""


def write_all(folder: Path, cost: Cost) -> list[Path]:
    """Writes what changed, and returns it.

    Raises:
        UserError: a page or its markers are missing, or a record is no record.
    """
    changed = []
    for path, content in contents(folder, cost).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            write_whole(path, content)
            changed.append(path)
    return changed


def contents(folder: Path, cost: Cost) -> dict[Path, str]:
    """Every page and plot as the records have it."""
    index = folder / INDEX
    found: dict[Path, str] = {}
    lines = ["| experiment | question | answer | run |", "|---|---|---|---|"]
    costs: list[str] = []
    for name in names(index):
        page = folder / f"{name}.md"
        experiment = plan.load(f"experiments/{name}.py", "demo")
        stored = folder / f"{name}.json"
        known = record.read(stored) if stored.is_file() else None
        text = _read(page)
        record_of = _not_run(experiment) if known is None else shown(experiment, known)
        found[page] = _between(text, "record", record_of, page)
        if known is not None:
            found[folder / f"{name}.svg"] = plot.draw(experiment, known)
        rows = cost(plan.load(f"experiments/{name}.py", "1b"))
        costs += rows if not costs else rows[2:]
        answer = _ANSWER.search(text)
        if answer is None:
            raise UserError(f"{page}: has no line that begins with **In one line:**; expected the answer there")
        seeds = "exact" if known is None or experiment.exact else _seeds(known)
        state = "not run" if known is None else f"{known.size}, {seeds}"
        lines.append(f"| [{name}]({name}.md) | {experiment.question} | {answer[1]} | {state} |")
    text = _between(_read(index), "index", "\n".join(lines), index)
    found[index] = _between(text, "cost", "\n".join(costs), index)
    return found


def names(index: Path) -> list[str]:
    """The experiments in the order that the index's first comment lists them."""
    listed = re.search(r"<!-- order: (.+?) -->", _read(index), re.DOTALL)
    if listed is None:
        raise UserError(f"{index}: has no <!-- order: NAME NAME ... -->; expected the experiments in their order")
    return listed[1].split()


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: is not there; write the page around <!-- record --> and <!-- /record -->")
    return path.read_text(encoding="utf-8")


def _between(text: str, marker: str, content: str, where: Path) -> str:
    before, opened, rest = text.partition(f"<!-- {marker} -->\n")
    _, closed, after = rest.partition(f"<!-- /{marker} -->")
    if not opened or not closed:
        raise UserError(f"{where}: lacks <!-- {marker} --> or <!-- /{marker} -->, each on a line of its own")
    return f"{before}{opened}{content}\n{closed}{after}"


def _not_run(experiment: Experiment) -> str:
    return f"**Not run.** The command, which reads its own folders of data:\n\n{_command(experiment)}"


def _command(experiment: Experiment) -> str:
    inputs = "".join(f" --{name} {name.upper()}" for name in experiment.needs())
    return f"    python -m midillm_jax.experiment --config experiments/{experiment.name}.py{inputs}"


def shown(experiment: Experiment, known: Record) -> str:
    """What stands between a page's markers."""
    seconds = sum(outcome.seconds for outcomes in known.arms.values() for outcome in outcomes.values())
    seeds = "exact counts" if experiment.exact else _seeds(known)
    parts = [
        _command(experiment),
        f"{known.hardware}; {known.software}; {known.date}; {seeds}. All runs together took "
        f"{seconds / 60:.0f} minutes, on a machine that other work shared.",
        _table(experiment, known),
    ]
    absent = [f"`{arm.name}` ({arm.words})" for arm in experiment.arms if arm.name not in known.arms]
    if absent:
        parts.append(f"Not run: {', '.join(absent)}.")
    parts.append(_effects(experiment, known))
    parts.append(f"![{experiment.question}]({experiment.name}.svg)")
    return "\n\n".join(part for part in parts if part)


def _seeds(known: Record) -> str:
    counts = {len(outcomes) for outcomes in known.arms.values()}
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one seed"
    return f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"


def _table(experiment: Experiment, known: Record) -> str:
    figures = experiment.figures
    lines = ["| arm | " + " | ".join(figure.words for figure in figures) + " |", "|---" * (1 + len(figures)) + "|"]
    for arm in experiment.arms:
        if arm.name in known.arms:
            cells = [_cell(figure, plot.of_seeds(figure, known.arms[arm.name])) for figure in figures]
            lines.append(f"| `{arm.name}`: {arm.words} | " + " | ".join(cells) + " |")
    many = any(len(outcomes) > 1 for outcomes in known.arms.values())
    outcomes = [outcome for seeds in known.arms.values() for outcome in seeds.values()]
    bounded = any(isinstance(value, Interval) for outcome in outcomes for value in outcome.figures.values())
    if many:
        lines += ["", "Mean over seeds and its 95 % interval (Student's t)."]
    elif bounded:
        lines += ["", "Bounds are 95 % bootstraps over pieces."]
    return "\n".join(lines)


def _cell(figure: Figure, value: Interval | None) -> str:
    if value is None:
        return "-"
    middle, low, high = (_number(part, figure.digits) for part in (value.value, value.low, value.high))
    return middle if low == high == middle else f"{middle} [{low}, {high}]"


def _number(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:,.{digits}f}"


def _effects(experiment: Experiment, known: Record) -> str:
    """Each arm against the baseline, and what could have been seen."""
    baseline = known.arms.get(experiment.base_arm)
    others = [arm for arm in experiment.arms if arm.name != experiment.base_arm and arm.name in known.arms]
    if baseline is None or not others:
        return ""
    if max(len(outcomes) for outcomes in known.arms.values()) < 2:
        return _one_seed(experiment)
    lines = [
        f"Differences from `{experiment.base_arm}`, seed by seed:",
        "",
        "| arm | figure | difference | smallest detectable | verdict |",
        "|---|---|---|---|---|",
    ]
    for arm in others:
        lines += [line for figure in experiment.figures if (line := _effect(experiment, known, arm, figure))]
    return "\n".join(lines)


def _one_seed(experiment: Experiment) -> str:
    if experiment.exact:
        return ""
    return (
        "One seed: how far the figures scatter is not known, nor the smallest detectable effect; differences between "
        f"arms are {effects.NOT_RESOLVED}."
    )


def _effect(experiment: Experiment, known: Record, arm: Arm, figure: Figure) -> str:
    sides = [
        {
            seed: plot.values([outcome.figures[figure.name]])[0]
            for seed, outcome in known.arms[name].items()
            if figure.name in outcome.figures
        }
        for name in (arm.name, experiment.base_arm)
    ]
    effect = effects.paired(*sides)
    if effect is None:
        return ""
    digits = figure.digits
    verdict = effects.NOT_RESOLVED
    if effect.resolved:
        higher = effect.difference.value > 0
        verdict = "higher" if higher else "lower"
        if figure.better:
            verdict = "**better**" if higher == (figure.better == "higher") else "**worse**"
    cell = _cell(figure, effect.difference)
    return f"| `{arm.name}` | {figure.words} | {cell} | {_number(effect.detectable, digits)} | {verdict} |"
