"""What a run's folder says of itself: config.json, environment.json and a README."""

import dataclasses
import importlib.metadata
import json
import operator
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from midillm_jax import config as configs
from midillm_jax.config import Config
from midillm_jax.files import write_whole
from midillm_jax.training.events import Events

_PACKAGES = (
    "midillm_jax",
    "jax",
    "jaxlib",
    "libtpu",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorstore",
    "grain",
)
_README = """# {name}

A training run of midillm_jax, last started with

    {command}

in {where}. The same command goes on where it stopped.

| file | what it is |
|---|---|
| config.json | every field of the run, as it was last started |
| environment.json | versions, devices and commit, one entry for each start |
| log.csv | figures of the steps (`train`) and of held-out rows (`validation`) |
| tensorboard/ | the same for `tensorboard --logdir {folder}` |
| events.jsonl | changed fields, checkpoints that failed or were damaged, steps that were not applied, stops |
| samples/STEP/ | music for a few fixed prompts (`--samples.every-steps`) |
| text_at_start.npy | what the weights that the run began with say of some held-out text (`text_drift` in the log) |
| base.json | of a finetuning: a fingerprint of the frozen base it began with |
| checkpoints/STEP/ | Orbax: weights, optimiser, state of the data streams (midillm_jax/training/checkpoint.py) |
| damaged/ | checkpoints that did not hold what was saved, set aside |

What is not there was not asked for, or did not happen.

`python -m midillm_jax.export --checkpoint {folder} --out model` makes Hugging Face weights of the newest checkpoint.
"""


def describe(config: Config, folder: Path, step: int, events: Events) -> None:
    """Writes the three files, and down which fields changed since the run was last started."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    if step and path.exists():
        changes = changed(configs.from_json(path.read_text(), str(path)), config)
        if changes:
            told = "; ".join(f"{name} was {old!r}, is now {new!r}" for name, (old, new) in changes.items())
            events.warn("changed", step, f"from step {step} on: {told}", fields=changes)
    write_whole(path, configs.to_json(config))
    starts = folder / "environment.json"
    before = json.loads(starts.read_text()) if starts.exists() else []
    write_whole(starts, json.dumps([*before, environment(step)], indent=1))
    readme = _README.format(name=config.name, command=_command(), where=Path.cwd(), folder=folder)
    write_whole(folder / "README.md", readme)


def _command() -> str:
    """As it was typed, for a shell."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    started = ["python", "-m", main.name] if main is not None else ["python", sys.argv[0]]
    return shlex.join([*started, *sys.argv[1:]])


def changed(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> old and new value of each field that differs."""

    def names(value: Any, prefix: str) -> list[str]:
        if not dataclasses.is_dataclass(value):
            return [prefix.removesuffix(".")]
        return [
            name
            for field in dataclasses.fields(value)
            for name in names(getattr(value, field.name), f"{prefix}{field.name}.")
        ]

    def value(config: Config, name: str) -> Any:
        try:
            return operator.attrgetter(name)(config)
        except AttributeError:  # a section that is None there
            return None

    both = dict.fromkeys([*names(old, ""), *names(new, "")])
    pairs = {name: (value(old, name), value(new, name)) for name in both}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def environment(step: int) -> dict[str, Any]:
    """Versions, devices and commit, JSON-able."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "step": step,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }


def _commit() -> str | None:
    """Of the clone that the package lies in, ``+`` behind it where files differ from it; None without one."""
    clone = Path(__file__).resolve().parents[2]
    if not (clone / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(clone), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):  # no git here, or not our clone
        return None
