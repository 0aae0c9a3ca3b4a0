"""What a training run leaves to read: the rows of its log.csv, its config.json and the figures of its samples.

Nothing here imports training/: a log is its columns step and kind, and beside them any figures.
"""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from midillm_jax.errors import UserError

SHARES = ("valid_share", "looping_share", "flooded_share", "empty_share")
"""Figures of samples (training/samples.py)."""
Points = tuple[tuple[float, float], ...]
"""(step, value), in the log's order."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a log."""

    step: int
    kind: str
    """``train`` for a mean over batches since the row before, ``validation`` for held-out data, or another."""
    figures: dict[str, float]
    """What the row says; numbers that are not finite are left out."""


@dataclasses.dataclass(frozen=True)
class Log:
    """A run's log.csv."""

    rows: tuple[Row, ...]
    torn: bool
    """Whether the file ended inside a line, as it does when the run was killed while writing; that line is left out."""

    def points(self, kind: str, column: str) -> Points:
        """A figure over the steps."""
        return tuple((row.step, row.figures[column]) for row in self.rows if row.kind == kind and column in row.figures)

    def columns(self) -> tuple[str, ...]:
        """Figures that some row has, in the order of their columns."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.figures))


@dataclasses.dataclass(frozen=True)
class SampleFigures:
    """The samples of one step (training/samples.py)."""

    step: int
    shares: dict[str, float]
    """Each of SHARES."""
    pictures: tuple[Path, ...]
    """Piano rolls, in the order of the prompts."""


def read_log(folder: Path) -> Log:
    """The log of a run folder.

    Raises:
        UserError: no log there, or a file that is not training's.
    """
    path = folder / "log.csv"
    if not path.is_file():
        raise UserError(f"{folder}: holds no log.csv; expected the folder of a training run")
    text = path.read_bytes().decode("utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines = csv.reader(io.StringIO(whole, newline=""))
    header = next(lines, [])
    named = {"step", "kind"} <= set(header)
    rows = tuple(_row(path, number, header, cells) for number, cells in enumerate(lines, 2)) if named else ()
    if not rows:
        raise UserError(f"{path}: is not the log of a training run; expected the columns step, kind and figures")
    return Log(rows, torn=whole != text)


def _row(path: Path, number: int, header: list[str], cells: list[str]) -> Row:
    try:
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} values under {len(header)} columns")
        named = dict(zip(header, cells, strict=True))
        step, kind = int(named.pop("step")), named.pop("kind")
        figures = {name: float(value) for name, value in named.items() if value}
    except ValueError as error:
        raise UserError(f"{path}:{number}: {error}; expected a row of numbers, as training writes it") from None
    return Row(step, kind, {name: value for name, value in figures.items() if math.isfinite(value)})


def read_settings(folder: Path) -> dict[str, Any]:
    """Every field of a run's config by its dotted name, lists written out as ``data.music.0.path``.

    The file may be an older or newer version's; what its fields mean is not asked.

    Raises:
        UserError: no config.json there, or none that can be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: holds no config.json; expected the folder of a training run")
    fields = _read_json(path)
    found: dict[str, Any] = {}

    def visit(value: Any, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                visit(inner, f"{name}.{key}" if name else str(key))
        elif isinstance(value, list) and value:
            for place, inner in enumerate(value):
                visit(inner, f"{name}.{place}")
        else:
            found[name] = value

    visit(fields, "")
    return found


def read_samples(folder: Path) -> tuple[SampleFigures, ...]:
    """The figures of every step whose samples a run has, in order.

    Raises:
        UserError: a samples.json that cannot be read.
    """
    found = []
    for path in (folder / "samples").glob("*/samples.json"):
        if path.parent.name.isdigit():
            fields = _read_json(path)
            try:
                shares = {name: float(fields["figures"][name]) for name in SHARES}
                found.append(SampleFigures(int(fields["step"]), shares, tuple(sorted(path.parent.glob("*.png")))))
            except (KeyError, TypeError, ValueError):
                raise UserError(f"{path}: expected step and figures, as training writes them") from None
    return tuple(sorted(found, key=lambda samples: samples.step))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); expected what training writes there") from None
