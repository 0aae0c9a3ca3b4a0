"""Runs an experiment's steps as processes, each once, and reads the figures they left.

    OUT/data/steps.json               which steps of preparing are done
    OUT/NAME/ARM/SEED/steps.json      which of an arm's
    OUT/NAME/ARM/SEED/log.txt         what its commands said
    OUT/NAME.json                     the record

Stopped and started again it goes on at the step that was not done, and ``train`` at its last checkpoint.
"""

import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from midillm_jax.errors import UserError
from midillm_jax.evaluation import run_log
from midillm_jax.evaluation.intervals import Interval
from midillm_jax.experiments.plan import PACKAGE, Curve, Experiment, Figure, Logged, Step, fill
from midillm_jax.experiments.record import Outcome, Points, Record
from midillm_jax.files import write_whole

DONE = "steps.json"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an experiment is run, with what."""

    out: Path
    inputs: dict[str, str]
    """Values of {midi}, {text}, {base} and {general}, of those given."""

    def values(self, experiment: Experiment, arm: str, seed: int) -> dict[str, str]:
        run = self.out / experiment.name / arm / str(seed)
        return {**self.inputs, "data": str(self.out / "data"), "run": str(run), "seed": str(seed)}


def command(step: Step, values: dict[str, str]) -> list[str]:
    """A step as a command line.

    Raises:
        UserError: a script that is not here, as in an installed wheel; a placeholder without a value.
    """
    head, *words = (fill(word, values) for word in step)
    if not head.endswith(".py"):
        return [sys.executable, "-m", f"midillm_jax.{head}", *words]
    script = PACKAGE.parent / head
    if not script.is_file():
        raise UserError(f"{script}: is not there; experiments that need it run from a clone of the repository")
    return [sys.executable, str(script), *words]


def run(experiment: Experiment, place: Place, arms: Sequence[str], seeds: Sequence[int], say: Say) -> None:
    """Runs what is not done yet of the arms and seeds.

    Raises:
        UserError: a step failed, or was done before with other arguments.
    """
    data = place.out / "data"
    _steps(experiment.prepare, data, {**place.inputs, "data": str(data)}, "data", say)
    for seed in seeds:
        for arm in experiment.arms:
            if arm.name in arms:
                values = place.values(experiment, arm.name, seed)
                title = f"{experiment.name}, {arm.name}, seed {seed}"
                _steps(arm.steps, Path(values["run"]), values, title, say)


def collect(experiment: Experiment, place: Place, size: str, hardware: str, rerun: str) -> Record:
    """The record of all arms and seeds that are done."""
    found: dict[str, dict[int, Outcome]] = {}
    latest = 0.0
    for arm in experiment.arms:
        for seed in experiment.seeds:
            values = place.values(experiment, arm.name, seed)
            stored = _read_done(Path(values["run"]))
            asked = [command(step, values)[1:] for step in arm.steps]
            if [entry["command"] for entry in stored] == asked:
                latest = max(latest, *(entry["ended"] for entry in stored))
                found.setdefault(arm.name, {})[seed] = _outcome(experiment, arm.name, values, stored)
    if not found:
        raise UserError(f"{place.out / experiment.name}: no arm is done yet; run the experiment first")
    return Record(
        experiment=experiment.name,
        size=size,
        date=datetime.datetime.fromtimestamp(latest).date().isoformat(),
        hardware=hardware or machine(),
        software=software(),
        command=rerun,
        arms=found,
    )


def machine() -> str:
    """Processor and cores, as this system tells them."""
    name = platform.processor() or platform.machine()
    table = Path("/proc/cpuinfo")
    if table.is_file():
        lines = (line.partition(":") for line in table.read_text().splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return f"{os.cpu_count()} cores of {name}"


def software() -> str:
    """Versions that figures depend on."""
    from importlib import metadata

    return f"Python {platform.python_version()}, jax {metadata.version('jax')}"


def _steps(steps: Sequence[Step], folder: Path, values: dict[str, str], title: str, say: Say) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_done(folder)
    shared = folder.name == "data"
    for number, step in enumerate(steps):
        asked = command(step, values)
        known = [entry["command"] for entry in done]
        if asked[1:] in known:
            continue
        if not shared and len(known) > number:
            raise UserError(f"{folder}: step {number + 1} was done with other arguments; remove that folder")
        say(f"{title}: {' '.join(step[:3])} ...")
        began = time.time()
        with (folder / "log.txt").open("ab") as log:
            log.write(f"\n$ {' '.join(asked)}\n".encode())
            log.flush()
            ended = subprocess.run(asked, stdout=log, stderr=subprocess.STDOUT, check=False)
        if ended.returncode:
            raise UserError(f"{' '.join(asked[1:4])} ended with code {ended.returncode}; see {folder / 'log.txt'}")
        done.append({"command": asked[1:], "seconds": round(time.time() - began, 1), "ended": time.time()})
        write_whole(folder / DONE, json.dumps(done, indent=1) + "\n")


def _read_done(folder: Path) -> list[dict[str, Any]]:
    path = folder / DONE
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return found


def _outcome(experiment: Experiment, arm: str, values: dict[str, str], done: list[dict[str, Any]]) -> Outcome:
    figures = {
        figure.name: read_figure(figure, values)
        for figure in experiment.figures
        if not figure.arms or arm in figure.arms
    }
    curves = {curve.words: points for curve in experiment.curves if (points := read_curve(curve, arm, values))}
    return Outcome(round(sum(entry["seconds"] for entry in done), 1), figures, curves)


def read_figure(figure: Figure, values: dict[str, str]) -> float | Interval:
    """A figure out of what an arm left.

    Raises:
        UserError: it is not there.
    """
    read = figure.read
    if isinstance(read, Logged):
        folder = Path(fill(read.run, values))
        points = run_log.read_log(folder).points(read.kind, read.column)
        if not points:
            raise UserError(f"{folder}: its log has no {read.kind} row with {read.column}, for figure {figure.name}")
        return points[0 if read.at == "first" else -1][1]
    path = Path(fill(read.file, values))
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    for key in read.path.split("."):
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (LookupError, TypeError, ValueError):
            raise UserError(f"{path}: has no {read.path}, for figure {figure.name}") from None
    if isinstance(found, dict):
        return Interval(found["value"], found["low"], found["high"])
    return float(found)


def read_curve(curve: Curve, arm: str, values: dict[str, str]) -> Points:
    """The points of a curve; runs that an arm does not have are left out."""
    found: list[tuple[float, float]] = []
    before = 0.0
    factor = dict(curve.tokens_a_step).get(arm, 1)
    for run in curve.runs:
        folder = Path(fill(run, values))
        if folder.is_dir():
            points = run_log.read_log(folder).points(curve.kind, curve.column)
            found += [((before + step) * factor, value) for step, value in points]
            before += points[-1][0] if points else 0
    return tuple(found)
