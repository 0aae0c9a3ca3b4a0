"""How an experiment is stated: arms, each a list of public commands, and the figures that are read from what they left.

``configs/experiments/NAME.py`` has a ``get_experiment(size)`` that returns an :class:`Experiment`. In every word of a
step these are filled in:

    {data}   folder of prepared data, one for all experiments of an --out
    {run}    the folder of one arm and seed
    {seed}   its seed
    {midi} {text} {base} {general}   what the options of these names say
"""

import dataclasses
import re
import runpy
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from midillm_jax import config
from midillm_jax.errors import UserError

Size = Literal["demo", "1b"]
SIZES: tuple[Size, ...] = typing.get_args(Size)
Step = tuple[str, ...]
"""A command of this package, or a script of this repository (benchmarks/NAME.py), and its arguments."""
INPUTS = ("midi", "text", "base", "general")
"""Folders that a person names, where a step asks for them."""
PACKAGE = Path(__file__).parents[1]
COMMANDS = ("prepare", "train", "export", "generate", "evaluate")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclasses.dataclass(frozen=True)
class Logged:
    """A column of a training run's log.csv."""

    run: str
    """The run's folder."""
    column: str
    at: Literal["first", "last"] = "last"
    kind: str = "validation"


@dataclasses.dataclass(frozen=True)
class Reported:
    """A number, or a value with its bounds, in a JSON file that a command wrote."""

    file: str
    path: str
    """Names of keys, or places in a list, with dots between."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """What an arm is judged by."""

    name: str
    words: str
    """Heading of its column, with the unit."""
    read: Logged | Reported
    better: Literal["lower", "higher", ""] = "lower"
    """Empty where neither is."""
    arms: tuple[str, ...] = ()
    """Those that have it; all if empty."""
    digits: int = 2


@dataclasses.dataclass(frozen=True)
class Curve:
    """A column of the log over the steps, for the plot; several runs are laid end to end."""

    words: str
    """What stands on the vertical axis."""
    column: str
    runs: tuple[str, ...] = ("{run}/train",)
    kind: str = "validation"
    tokens_a_step: tuple[tuple[str, int], ...] = ()
    """Of arms that read other batches: the axis then counts tokens. Arm, tokens."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    name: str
    words: str
    """What it is, for the table."""
    steps: tuple[Step, ...]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, and what is run to answer it."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    figures: tuple[Figure, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    prepare: tuple[Step, ...] = ()
    """Run once, before the arms, and shared by all experiments that name the same step."""
    curves: tuple[Curve, ...] = ()
    exact: bool = False
    """Whether the figures are counts in which no seed has a part."""
    baseline: str = ""
    """The arm that others are held against; the first if empty."""

    @property
    def base_arm(self) -> str:
        return self.baseline or self.arms[0].name

    def needs(self) -> tuple[str, ...]:
        """Which of INPUTS its steps name."""
        named = {match for step in self.steps() for word in step for match in _PLACEHOLDER.findall(word)}
        return tuple(name for name in INPUTS if name in named)

    def steps(self) -> Iterator[Step]:
        """All of them."""
        yield from self.prepare
        for arm in self.arms:
            yield from arm.steps


def fill(word: str, values: dict[str, str]) -> str:
    """A word of a step with its placeholders filled in.

    Raises:
        UserError: it names one that has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UserError(f"{word}: {match[0]} has no value; expected one of {', '.join(sorted(values))}")
        return values[match[1]]

    return _PLACEHOLDER.sub(value, word)


def load(name: str, size: Size) -> Experiment:
    """The experiment that ``--config NAME`` means, found as the configs of training are.

    Raises:
        UserError: no such file, no ``get_experiment``, or an experiment whose parts do not fit together.
    """
    path = config.find(name)
    found = runpy.run_path(str(path)).get("get_experiment")
    if found is None:
        raise UserError(f"{path}: has no get_experiment(size); expected a function that returns an Experiment.")
    experiment = found(size)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path}: get_experiment() returned {type(experiment).__name__}, expected an Experiment.")
    _check(experiment, str(path))
    return experiment


def _check(experiment: Experiment, where: str) -> None:
    names = [arm.name for arm in experiment.arms]
    if len(set(names)) != len(names) or not names:
        raise UserError(f"{where}: arms are {names}; expected one or more, each name once")
    if experiment.base_arm not in names:
        raise UserError(f"{where}: baseline {experiment.base_arm!r} is no arm; expected one of {', '.join(names)}")
    for step in experiment.steps():
        if not step or not (step[0] in COMMANDS or step[0].endswith(".py")):
            raise UserError(f"{where}: {step[:1]} is no command; expected one of {', '.join(COMMANDS)}, or a script")
    for figure in experiment.figures:
        if unknown := set(figure.arms) - set(names):
            raise UserError(f"{where}: figure {figure.name} names {sorted(unknown)}, which are no arms")
