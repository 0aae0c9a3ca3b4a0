"""Real training under launch/supervise.py: a process of a run dies, and the run ends as if it had not."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from midillm_jax import config as configs
from midillm_jax.config import Config
from midillm_jax.training import run_log
from midillm_jax.training.weights import load_params

ROOT = Path(__file__).resolve().parents[2]


def supervised(run: Config, folder: Path) -> "subprocess.Popen[str]":
    """Two processes of one simulated device each."""
    file = folder / f"{Path(run.folder).name}.py"
    file.write_text(
        "from midillm_jax import config\n\n"
        f"def get_config():\n    return config.from_json({configs.to_json(run)!r}, 'test')\n"
    )
    command = [sys.executable, str(ROOT / "launch" / "supervise.py"), "--wait", "0.1", "--processes", "2"]
    command += ["--logs", str(folder / f"{file.stem}-logs"), "--"]
    command += [sys.executable, "-m", "midillm_jax.train", "--config", str(file)]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True)


def process_of(supervisor: int, number: int) -> int:
    """The pid of one of its processes, found by what it was started with."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            variables = place.joinpath("environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == supervisor and b"JAX_PROCESS_ID=%d" % number in variables:
            return int(place.name)
    raise AssertionError(f"process {number} of {supervisor} is not there")


def rows(run: Config) -> list[dict[str, str]]:
    found = run_log.read(Path(run.folder) / run_log.FILE)
    return [{name: value for name, value in row.items() if name not in run_log.TIMES} for row in found]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_run_outlives_the_death_of_any_of_its_processes(run: Config, tmp_path: Path) -> None:
    """First the coordinator is killed, then the other one."""
    long = dataclasses.replace(run, steps=40, checkpoint=dataclasses.replace(run.checkpoint, every_steps=5))
    alone = dataclasses.replace(long, run_dir=str(tmp_path / "alone"))
    undisturbed = supervised(alone, tmp_path)
    assert undisturbed.wait(timeout=600) == 0

    process = supervised(long, tmp_path)
    for victim, wanted in ((0, 12), (1, 24)):
        deadline = time.monotonic() + 300
        while not any(int(row["step"]) >= wanted for row in rows(long)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process_of(process.pid, victim), signal.SIGKILL)
    err = process.communicate(timeout=600)[1]
    assert process.returncode == 0, err
    said = [line for line in err.splitlines() if line.startswith("supervise: ")]
    assert [line.partition(" (")[0] for line in said] == [
        "supervise: process 0 of 2 was ended by SIGKILL",
        "supervise: process 1 of 2 was ended by SIGKILL",
    ]
    assert rows(long) == rows(alone)
    jax.tree.map(np.testing.assert_array_equal, load_params(long.folder)[1], load_params(alone.folder)[1])
