"""Runs to which something happens: a full disk, a batch that does harm, a step that is traced."""

import contextlib
import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from midillm_jax.config import Config
from midillm_jax.errors import UserError
from midillm_jax.training import loop, run_log
from midillm_jax.training import step as steps
from midillm_jax.training.loop import train
from midillm_jax.training.weights import load_params


def log_of(folder: Path) -> list[dict[str, str]]:
    rows = run_log.read(folder / run_log.FILE)
    return [{name: value for name, value in row.items() if name not in run_log.TIMES} for row in rows]


def events_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of so many megabytes; a checkpoint of the test's run takes 25 of them."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", place]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def on_disk(run: Config, disk: Path, **checkpoint: float) -> Config:
    """Eight steps, the last evaluation at their end."""
    settings = dataclasses.replace(run.checkpoint, **({"every_steps": 2, "keep": 1} | checkpoint))  # type: ignore[arg-type]
    evaluated = dataclasses.replace(run.eval, every_steps=100)
    return dataclasses.replace(run, run_dir=str(disk / "run"), steps=8, checkpoint=settings, eval=evaluated)


@pytest.mark.parametrize("small_disk", [60], indirect=True)
def test_two_failed_saves_in_a_row_end_a_run_and_name_the_last_good_one(run: Config, small_disk: Path) -> None:
    # Two checkpoints have room beside each other, a third has not; all are kept for good.
    with pytest.raises(
        UserError, match=r"No space left.*, nor could the one before it; the last good one is of step 4"
    ):
        train(on_disk(run, small_disk, retry_minutes=0.0))
    assert [(event["event"], event["step"]) for event in events_of(small_disk / "run")][:1] == [("save failed", 6)]
    assert load_params(str(small_disk / "run"))[0].steps == 8


@pytest.mark.parametrize("small_disk", [120], indirect=True)
def test_a_run_outlives_a_disk_that_is_full_for_a_while(
    run: Config, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = dataclasses.replace(on_disk(run, small_disk), run_dir=str(tmp_path / "whole"))
    train(whole)
    full = on_disk(run, small_disk, every_steps=100, every_minutes=0.0, retry_minutes=0.0)
    settled = loop.Run._settle
    fillers: list[Path] = []

    def settle(self: loop.Run) -> None:
        settled(self)
        # Full when the row of step 2 is written, until the checkpoint of step 2 has failed.
        if self._step == 2 and not fillers:
            fillers.append(fill(small_disk))
        elif self._step == 2 and self._checkpoints._writing == 2:
            self._checkpoints.wait()
            fillers[0].unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "_settle", settle)
        train(full)
    assert fillers
    told = capsys.readouterr().err
    assert "could not be saved" in told
    assert "figures cannot be written" in told
    assert log_of(small_disk / "run") == log_of(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, load_params(str(small_disk / "run"))[1], load_params(whole.folder)[1])


def harmful_at(monkeypatch: pytest.MonkeyPatch, step: int, factor: float) -> None:
    """Multiplies the loss of the rows that the untouched run reads at ``step`` by ``factor``."""
    place, made = steps.place, [0]

    def placed(training: steps.Training, batch: dict[str, np.ndarray]) -> Any:
        made[0] += 1
        if made[0] == step:
            batch = batch | {"loss_weights": batch["loss_weights"] * np.float32(factor)}
        return place(training, batch)

    monkeypatch.setattr(loop, "place", placed)


def guarded(run: Config, **guard: Any) -> Config:
    return dataclasses.replace(
        run,
        guard=dataclasses.replace(run.guard, **guard),
        eval=dataclasses.replace(run.eval, every_steps=100),
        checkpoint=dataclasses.replace(run.checkpoint, every_steps=3),
        log_every_steps=1,
    )


@pytest.mark.parametrize(("factor", "words"), [(float("nan"), "expected finite numbers"), (float("inf"), "finite")])
def test_a_batch_that_does_harm_is_skipped_and_written_down(
    run: Config, monkeypatch: pytest.MonkeyPatch, factor: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harmful_at(monkeypatch, 4, factor)
    folder = train(guarded(run))
    assert words in capsys.readouterr().err
    (event,) = events_of(folder)
    assert (event["event"], event["step"]) == ("step not applied", 4)
    assert event["records"]
    assert all(": train record " in record for record in event["records"])
    rows = {row["step"]: row for row in log_of(folder) if row["kind"] == "train"}
    assert rows["4"]["skipped_steps"] == "1.0"
    assert rows["4"]["loss"] == ""
    # The schedule counts applied steps, so that step 5 has the learning rate that step 4 would have had.
    assert rows["5"]["learning_rate"] == rows["4"]["learning_rate"]
    assert np.isfinite(float(rows["6"]["loss"]))


def test_a_spike_is_skipped(run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = guarded(run, spike_factor=5.0, after_steps=2)
    quiet = train(dataclasses.replace(calm, run_dir=f"{run.folder}-quiet"))
    assert not events_of(quiet)

    # A gradient is divided by the batch's weight: what is larger without more weight is a larger loss alone.
    real = steps.losses.batch_losses

    def louder(hidden: jax.Array, table: jax.Array, batch: steps.losses.Batch, *rest: Any) -> Any:
        objective, each = real(hidden, table, batch, *rest)
        return objective * batch["loss_weights"].max(), each

    monkeypatch.setattr(steps.losses, "batch_losses", louder)
    harmful_at(monkeypatch, 4, 1e3)
    folder = train(calm)
    (event,) = events_of(folder)
    assert (event["event"], event["step"]) == ("step not applied", 4)
    assert "expected a norm of at most 5 times the usual" in event["what"]


def test_a_run_goes_back_and_leaves_the_batches_out(run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at step 5: back to the checkpoint of step 3, and on with the sixth batch as step 4."""
    harmful_at(monkeypatch, 5, float("nan"))
    folder = train(guarded(run, action="rollback"))
    assert [(event["event"], event["step"]) for event in events_of(folder)] == [
        ("step not applied", 5),
        ("rolled back", 5),
    ]
    assert events_of(folder)[1]["to"] == 3
    rows = [row for row in log_of(folder) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert all(row["skipped_steps"] in ("", "0.0") for row in rows)

    # The same weights as of a run whose fourth batch is that one.
    monkeypatch.undo()
    taken = loop.Batches.__next__

    def skipping(self: loop.Batches) -> Any:
        batch = taken(self)
        if self._plan.split == "train" and self._batches == 4:
            return taken_after_two(self)
        return batch

    def taken_after_two(self: loop.Batches) -> Any:
        taken(self)
        return taken(self)

    monkeypatch.setattr(loop.Batches, "__next__", skipping)
    other = train(guarded(dataclasses.replace(run, run_dir=f"{run.folder}-other")))
    jax.tree.map(np.testing.assert_array_equal, load_params(str(folder))[1], load_params(str(other))[1])


@pytest.mark.parametrize(("action", "said"), [("stop", 1), ("skip", 5), ("rollback", 6)])
def test_a_run_that_only_does_harm_ends(run: Config, action: str, said: int) -> None:
    """A learning rate that breaks the weights: the run does not go on for ever, whatever it was told to do."""
    wild = dataclasses.replace(
        guarded(run, action=action), steps=30, optimizer=dataclasses.replace(run.optimizer, learning_rate=1e30)
    )
    names = r"the batch held \d+ records: .*pairs: train record \d+ \("
    with pytest.raises(UserError, match=names if action != "rollback" else "went back to step") as caught:
        train(wild)
    assert "--optimizer.learning-rate" in str(caught.value)
    refused = [event for event in events_of(Path(run.folder)) if event["event"] == "step not applied"]
    assert len(refused) == said


def test_steps_are_traced_for_tensorboard(run: Config, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(dataclasses.replace(run, profile="3:4"))
    (trace,) = (folder / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert b"jit_train_step" in trace.read_bytes()
    assert "a trace of steps 3:4 is in" in capsys.readouterr().out


def test_a_trace_ends_with_the_run(run: Config, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(dataclasses.replace(run, profile="5:9"))
    (trace,) = (folder / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert b"jit_train_step" in trace.read_bytes()
    assert "a trace of steps 5:6 is in" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"profile is '7:9'; expected steps such as 20:25 of 1 to 6"):
        train(dataclasses.replace(run, run_dir=run.folder + "-late", profile="7:9"))


@pytest.mark.parametrize("small_disk", [120], indirect=True)
def test_a_store_that_refuses_ends_a_run_after_two_saves(run: Config, small_disk: Path) -> None:
    """As a bucket without permission does: everything is there to be read, nothing can be written."""
    settled = loop.Run._settle

    def settle(self: loop.Run) -> None:
        settled(self)
        if self._step == 3 and self._checkpoints.good == 2:
            subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    def settle_when_saved(self: loop.Run) -> None:
        if self._step == 3:
            self._checkpoints.wait()
        settle(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "_settle", settle_when_saved)
        with pytest.raises(UserError, match=r"Read-only file system.*the last good one is of step 2.*may write"):
            train(on_disk(run, small_disk, retry_minutes=0.0))
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    train(on_disk(run, small_disk, retry_minutes=0.0))
    assert [row["step"] for row in log_of(small_disk / "run") if row["kind"] == "train"] == ["2", "4", "6", "8"]


def test_a_watchdog_sees_the_steps(run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loop.PROGRESS_FILE, str(tmp_path / "progress"))
    train(run)
    assert (tmp_path / "progress").read_text() == "6"


def test_a_run_outlives_a_full_disk_for_temporary_files(run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loop.PROGRESS_FILE, "/dev/full")
    assert load_params(str(train(run)))[0].steps == 6


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
