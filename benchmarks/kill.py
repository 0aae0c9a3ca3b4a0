"""Runs killed again and again: do they end as the run that was left alone?

    python benchmarks/kill.py --out kill                   # 200 kills at the demo's size; an hour

Makes the demo's data, trains ``demo_stage1.py`` with frequent checkpoints once undisturbed, and then again and again,
until there were ``--kills`` SIGKILLs to the whole process group, ``--of-each`` in a run that lives so long: every
second one at a random moment of the process's life (while it starts, compiles, steps, evaluates), the others a few
milliseconds after a checkpoint began to be written. Every other run has two worker processes make its batches. After
each kill the same command is started again.

Compares with the undisturbed run: every array of the last checkpoint bit for bit, the streams' state, ``log.csv`` (its
columns that depend on the machine aside) and TensorBoard's scalars. Exits 1 where anything differs. A run that was
interrupted goes on with the runs that are not done yet.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from midillm_jax.training import run_log

STEPS = 60
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu"}


def prepare(out: Path) -> None:
    """The demo's tokenizer and shards, made by its commands."""
    if (out / "ready").exists():
        return
    for arguments in (
        ["demo", "--out", "band", "--pieces", "400"],
        ["tokenizer", "--input", "band", "--vocab-size", "1024", "--out", "tokenizer.model"],
        ["text", "--input", "band/text", "--tokenizer", "tokenizer.model", "--out", "text"],
        ["midi", "--input", "band/midi", "--out", "midi"],
    ):
        command = [sys.executable, "-m", "midillm_jax.prepare", *arguments]
        subprocess.run(command, cwd=out, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    (out / "ready").touch()


def command(run: Path, out: Path, workers: int) -> list[str]:
    """The training command of one run; checkpoints come often, two kinds of them by the step."""
    fields: dict[str, Any] = {
        "run-dir": run,
        "steps": STEPS,
        "data.tokenizer": out / "tokenizer.model",
        "data.music.0.path": out / "midi",
        "data.text.0.path": out / "text",
        "data.workers": workers,
        "optimizer.warmup-steps": 10,
        "checkpoint.every-steps": 6,
        "eval.every-steps": 10,
        "log-every-steps": 4,
    }
    start = [sys.executable, "-m", "midillm_jax.train", "--config", "demo_stage1.py"]
    return start + [f"--{name}={value}" for name, value in fields.items()]


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written just now."""
    folder = run / "checkpoints"
    return folder.is_dir() and any("orbax-checkpoint-tmp" in path.name for path in folder.iterdir())


def last_step(run: Path) -> int:
    """Of the newest checkpoint that has its final name; -1 without one."""
    folder = run / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=-1)


def killed(arguments: list[str], run: Path, output: Path, life: float, rng: random.Random) -> str | None:
    """Starts the command and kills it; says where it was hit, or None if it ended before."""
    with output.open("ab") as log:
        process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    wants_save = rng.random() < 0.5
    deadline = time.monotonic() + rng.uniform(0, life)
    waited_for_save = False
    while process.poll() is None:
        if wants_save and saving(run):
            time.sleep(rng.uniform(0, 0.05))
            waited_for_save = True
            break
        if not wants_save and time.monotonic() > deadline:
            break
        time.sleep(0.002)
    if process.poll() is not None:
        return None
    hit = "while saving" if saving(run) else "just after a save" if waited_for_save else "elsewhere"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return hit


def state_of(run: Path) -> dict[str, Any]:
    """All that the last checkpoint holds, arrays as they are."""
    folder = (run / "checkpoints").absolute()
    names = ("params", "optimizer", "guard")
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(read_only=True)) as manager:
        args = {name: ocp.args.StandardRestore() for name in names} | {"run": ocp.args.JsonRestore()}
        found = manager.restore(manager.latest_step(), args=ocp.args.Composite(**args))
        arrays = {name: jax.tree.map(np.asarray, found[name]) for name in names}
        return {"step": manager.latest_step(), "run": found["run"]} | arrays


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's scalars that do not depend on the machine."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.rpartition("/")[2] not in run_log.TIMES]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(tags)}


def differences(run: Path, alone: Path) -> list[str]:
    """What is not as in the undisturbed run."""
    mine, theirs = state_of(run), state_of(alone)
    found = [name for name in ("step", "run") if mine[name] != theirs[name]]
    for name in ("params", "optimizer", "guard"):
        pairs = zip(jax.tree.leaves(mine[name]), jax.tree.leaves(theirs[name]), strict=True)
        if any(a.tobytes() != b.tobytes() for a, b in pairs):
            found.append(name)

    def rows(folder: Path) -> list[dict[str, str]]:
        log = run_log.read(folder / run_log.FILE)
        return [{name: value for name, value in row.items() if name not in run_log.TIMES} for row in log]

    if rows(run) != rows(alone):
        found.append("log.csv")
    if scalars_of(run) != scalars_of(alone):
        found.append("TensorBoard")
    return found


def kills_of(results: Iterable[dict[str, Any]]) -> int:
    return sum(sum(found["kills"].values()) for found in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200, help="altogether")
    parser.add_argument("--of-each", type=int, default=20, help="at most in one run, which may end before")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    prepare(out)
    alone = out / "alone"
    life = out / "seconds"
    if not life.exists():
        shutil.rmtree(alone, ignore_errors=True)
        began = time.monotonic()
        subprocess.run(command(alone, out, 0), env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        life.write_text(str(time.monotonic() - began))

    results: dict[str, Any] = {}
    for number in itertools.count():
        left = arguments.kills - kills_of(results.values())
        if left <= 0:
            break
        run, done = out / f"run{number}", out / f"run{number}.json"
        if not done.exists():
            shutil.rmtree(run, ignore_errors=True)
            rng = random.Random(f"{arguments.seed}/{number}")
            workers = 2 * (number % 2)
            hits: Counter[str] = Counter()
            reached = []
            while sum(hits.values()) < min(left, arguments.of_each):
                hit = killed(
                    command(run, out, workers), run, out / f"run{number}.txt", float(life.read_text()) / 2, rng
                )
                if hit is None:
                    break
                hits[hit] += 1
                reached.append(last_step(run))
            ended = subprocess.run(
                command(run, out, workers),
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            wrong = differences(run, alone) if ended.returncode == 0 else [ended.stderr.decode()[-500:]]
            found = {"workers": workers, "kills": dict(hits), "checkpoints": reached, "differs": wrong}
            done.write_text(json.dumps(found))
            shutil.rmtree(run, ignore_errors=not wrong)
        results[run.name] = json.loads(done.read_text())
        print(f"{run.name}: {json.dumps(results[run.name])}", flush=True)

    print("\n| run | workers | kills | of them while saving | ended as the undisturbed run |\n|---|---|---|---|---|")
    for name, found in results.items():
        kills = kills_of([found])
        same = "yes" if not found["differs"] else f"no: {', '.join(found['differs'])}"
        print(f"| {name} | {found['workers']} | {kills} | {found['kills'].get('while saving', 0)} | {same} |")
    good = kills_of(found for found in results.values() if not found["differs"])
    print(f"\n{good} of {kills_of(results.values())} kills left no trace")
    sys.exit(any(found["differs"] for found in results.values()))


if __name__ == "__main__":
    main()
