"""Checkpoints that lie in a bucket, by a stand-in for Google Cloud Storage on this machine."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from midillm_jax import config as configs
from midillm_jax import export
from midillm_jax.config import Config
from midillm_jax.model import sharding
from midillm_jax.training import run_log
from midillm_jax.training.checkpoint import Checkpoints, Progress
from midillm_jax.training.events import Events
from midillm_jax.training.step import init_state, make_training
from midillm_jax.training.weights import load_params
from tests import bucket_server

pytestmark = pytest.mark.slow


@pytest.fixture
def saved(run: Config) -> Config:
    """A run with checkpoints of two steps, whose weights differ, and a log."""
    training = make_training(run, sharding.make_mesh(run.mesh, jax.devices()[:1]))
    checkpoints = Checkpoints(training, Events(Path(run.folder), active=True))
    for step in (2, 4):
        state = init_state(training, training.definition.init(jax.random.key(step)))
        checkpoints.save_whole(step, state, {}, Progress({}))
    checkpoints.close()
    run_log.RunLog(Path(run.folder), 4).write(4, "validation", {"loss": 8.5})
    (Path(run.folder) / "config.json").write_text(configs.to_json(run))
    return run


@pytest.fixture
def bucket(saved: Config) -> Iterator[bucket_server.Bucket]:
    with bucket_server.running("runs") as server:
        server.upload_folder(Path(saved.folder), "mine")
        yield server


def command(bucket: bucket_server.Bucket, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: the libraries read where to ask when they first do."""
    return subprocess.run(
        [sys.executable, "-m", f"midillm_jax.{module}", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | bucket.environment,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("step", ["", "/2"])
def test_an_export_from_a_bucket_is_that_from_here(
    saved: Config, bucket: bucket_server.Bucket, tmp_path: Path, step: str
) -> None:
    export.main(["--checkpoint", f"{saved.folder}{step}", "--out", str(tmp_path / "here")])
    done = command(bucket, "export", "--checkpoint", f"gs://runs/mine{step}", "--out", str(tmp_path / "there"))
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert ("- loss: 8.5" in (tmp_path / "there" / "README.md").read_text()) == (step == "")


def test_a_run_begins_with_weights_in_a_bucket(saved: Config, bucket: bucket_server.Bucket, tmp_path: Path) -> None:
    second = dataclasses.replace(saved, run_dir=str(tmp_path / "second"), steps=1)
    file = tmp_path / "second.py"
    file.write_text(
        "from midillm_jax import config\n\n"
        f"def get_config():\n    return config.from_json({configs.to_json(second)!r}, 'test')\n"
    )
    # One step at a rate of zero.
    still = ("--optimizer.learning-rate", "1e-12", "--init-from", "gs://runs/mine")
    done = command(bucket, "train", "--config", str(file), *still)
    assert done.returncode == 0, done.stderr
    ours, theirs = (jax.tree.leaves(load_params(each.folder)[1]) for each in (second, saved))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-9)
    # What it began with can be told, and reading it again does no harm.
    again = command(bucket, "export", "--checkpoint", second.folder, "--out", str(tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "gs://runs/mine" in card
    assert "base_model" not in card


def test_what_is_not_there_is_one_sentence(bucket: bucket_server.Bucket, tmp_path: Path) -> None:
    for where, said in (
        ("gs://runs/nowhere", "gs://runs/nowhere: no checkpoints there"),
        ("gs://elsewhere/mine", "gs://elsewhere/mine: no checkpoints there"),
        ("gs://runs/mine/3", "step 3 is not there; saved steps: 2, 4"),
    ):
        done = command(bucket, "export", "--checkpoint", where, "--out", str(tmp_path / "out"))
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_does_not_answer_is_one_sentence(bucket: bucket_server.Bucket, tmp_path: Path) -> None:
    away = dataclasses.replace(bucket, endpoint="http://127.0.0.1:9")
    done = command(away, "export", "--checkpoint", "gs://runs/mine", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: gs://runs/mine: cannot be read from the bucket (")
    assert "Traceback" not in done.stderr
