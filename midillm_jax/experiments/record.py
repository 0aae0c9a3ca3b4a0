"""What an experiment found, as JSON: ``docs/experiments/NAME.json`` beside its page."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from midillm_jax.errors import UserError
from midillm_jax.evaluation.intervals import Interval
from midillm_jax.files import write_whole

Points = tuple[tuple[float, float], ...]
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One arm with one seed."""

    seconds: float
    """Wall time of its commands."""
    figures: dict[str, float | Interval]
    """By name; with bounds where a command gave some."""
    curves: dict[str, Points]
    """By words: (step or tokens, value)."""


@dataclasses.dataclass(frozen=True)
class Record:
    """All that was run of an experiment."""

    experiment: str
    size: str
    date: str
    """Of the last run that was added."""
    hardware: str
    software: str
    command: str
    """That anybody runs again."""
    arms: dict[str, dict[int, Outcome]]
    """Arm, then seed; in the experiment's order."""

    def write(self, path: Path) -> None:
        """Puts it there whole."""
        fields = dataclasses.asdict(self) | {"format": FORMAT}
        write_whole(path, json.dumps(fields, indent=1, sort_keys=True) + "\n")


def read(path: Path) -> Record:
    """A record.

    Raises:
        UserError: a file that is none.
    """
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError("of another format")
        arms = {
            arm: {int(seed): _outcome(outcome) for seed, outcome in seeds.items()}
            for arm, seeds in fields.pop("arms").items()
        }
        return Record(arms=arms, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: no record of an experiment ({error}); run the experiment again") from None


def _outcome(fields: dict[str, Any]) -> Outcome:
    figures = {
        name: Interval(**value) if isinstance(value, dict) else float(value)
        for name, value in fields["figures"].items()
    }
    curves = {words: tuple((x, y) for x, y in points) for words, points in fields["curves"].items()}
    return Outcome(fields["seconds"], figures, curves)
