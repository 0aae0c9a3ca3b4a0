"""Several training runs side by side: their figures, last and best, and what their configs differ in."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from midillm_jax.errors import UserError
from midillm_jax.evaluation.charts import MOST_RUNS
from midillm_jax.evaluation.run_log import SHARES, Log, Points, SampleFigures, read_log, read_samples, read_settings

TRAIN, HELD_OUT = "train", "validation"
"""Kinds of a log's rows."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A column of log.csv that the page knows."""

    column: str
    title: str
    unit: str
    scale: Literal["falling", "from zero"]
    write: Callable[[float], str]
    least: float = 0.0
    """These two as in charts.Chart."""


def _plain(value: float) -> str:
    return f"{value:g}"


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:,g}"


def percent(value: float) -> str:
    return f"{100 * value:.3g} %"


LOSSES = (
    Figure("loss", "Loss", "nats a token", "falling", _plain),
    Figure("bits_per_note", "Music", "bits a note", "falling", _plain),
    Figure("text_loss", "Text", "nats a token", "falling", _plain),
)
DRIFT = Figure("text_drift", "Text drift", "nats from the first weights", "from zero", _plain)
SLOTS = (
    Figure("onset_bits", "Onsets", "bits a note", "falling", _plain),
    Figure("duration_bits", "Durations", "bits a note", "falling", _plain),
    Figure("note_bits", "Notes", "bits a note", "falling", _plain),
)
COURSE = (
    Figure("learning_rate", "Learning rate", "at each step", "from zero", _plain),
    Figure("gradient_norm", "Gradient norm", "before clipping", "falling", _plain),
    Figure("tokens_per_second", "Speed", "tokens a second", "from zero", _thousands),
    Figure("data_wait_share", "Waiting for data", "share of the time", "from zero", percent, least=0.1),
    Figure("mfu", "Model FLOPs", "share of the chips' peak", "from zero", percent),
    Figure("memory_gib", "Device memory", "GiB at the most", "from zero", _plain),
)
OF_A_SOURCE = "validation of "
"""Begins the kind of a row about one source of the held-out data."""
_NOT_DRAWN = {"tokens", "seconds", "skipped_steps", *SHARES}
_NAMES = {"name", "run_dir"}
"""Fields of a config that differ between any two runs."""


@dataclasses.dataclass(frozen=True)
class Best:
    """A figure's value and where it stood."""

    value: float
    step: int


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, read."""

    name: str
    log: Log
    settings: dict[str, Any]
    """The config's fields by dotted name."""
    samples: tuple[SampleFigures, ...]

    @property
    def step(self) -> int:
        """The last step logged."""
        return self.log.rows[-1].step

    @property
    def steps(self) -> int | None:
        """Steps asked for."""
        steps = self.settings.get("steps")  # of a config that may be another version's
        return steps if isinstance(steps, int) else None

    @property
    def refused(self) -> int:
        """Steps that were not applied (training/guard.py)."""
        return round(sum(row.figures.get("skipped_steps", 0.0) for row in self.log.rows))

    def points(self, column: str) -> tuple[Points, Points]:
        """A figure over the steps, of training batches and of held-out data."""
        return self.log.points(TRAIN, column), self.log.points(HELD_OUT, column)

    def last(self, column: str) -> Best | None:
        """Of held-out data, or of training batches where a figure is of those alone."""
        train, held_out = self.points(column)
        points = held_out or train
        return Best(points[-1][1], int(points[-1][0])) if points else None

    def best(self, column: str) -> Best | None:
        """The least value of held-out data."""
        points = self.points(column)[1]
        if not points:
            return None
        step, value = min(points, key=lambda point: point[1])
        return Best(value, int(step))

    def typical(self, column: str) -> float | None:
        """The median over training rows."""
        train = self.points(column)[0]
        return statistics.median(value for _, value in train) if train else None

    def seconds(self) -> float:
        """Time up to the last row of every time that the run was started, added up."""
        seconds = [row.figures["seconds"] for row in self.log.rows if "seconds" in row.figures]
        ends = [
            now for now, after in zip(seconds, [*seconds[1:], 0.0], strict=True) if after < now
        ]  # the clock begins anew with each start
        return sum(ends)


def read(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Run folders, in the order given.

    Raises:
        UserError: none or too many were named, one twice, or one is no run folder.
    """
    if not 1 <= len(folders) <= MOST_RUNS:
        raise UserError(f"{len(folders)} runs were named; expected 1 to {MOST_RUNS} folders of training runs")
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{folders[number]}: this run was named twice; name each once")
    return tuple(
        Run(name, read_log(folder), read_settings(folder), read_samples(folder))
        for name, folder in zip(_names(places), folders, strict=True)
    )


def _names(places: Sequence[Path]) -> list[str]:
    """The folders' own names, with as many of those around them as it takes to tell them apart."""
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names


def differences(runs: Sequence[Run]) -> dict[str, tuple[Any, ...]]:
    """Config fields that are not the same in all runs: their values, run by run; None where a config lacks one.

    Names and folders are left out.
    """
    fields = dict.fromkeys(name for run in runs for name in run.settings)
    values = {name: tuple(run.settings.get(name) for run in runs) for name in fields if name not in _NAMES}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def others(runs: Sequence[Run]) -> list[str]:
    """Columns of the logs that have no chart of their own yet, in the logs' order."""
    known = {figure.column for figure in (*LOSSES, *SLOTS, DRIFT, *COURSE)} | _NOT_DRAWN
    columns = dict.fromkeys(column for run in runs for column in run.log.columns() if column not in known)
    return [column for column in columns if any(any(run.points(column)) for run in runs)]


def sources(runs: Sequence[Run]) -> list[str]:
    """Kinds of rows about single sources, in the logs' order."""
    kinds = dict.fromkeys(row.kind for run in runs for row in run.log.rows)
    return [kind for kind in kinds if kind.startswith(OF_A_SOURCE)]


def line(run: Run) -> str:
    """A run in one line: how far it is, and its held-out losses, last and best."""
    parts = [f"{run.name}: step {run.step:,}" + ("" if run.steps is None else f" of {run.steps:,}")]
    for figure in LOSSES:
        last, best = run.last(figure.column), run.best(figure.column)
        if last is not None:
            least = "" if best is None else f" (best {best.value:.3f} at step {best.step:,})"
            parts.append(f"{figure.column.replace('_', ' ')} {last.value:.3f}{least}")
    return ", ".join(parts)
