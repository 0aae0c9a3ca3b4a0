import contextlib
import csv
import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import mido
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from midillm_jax import config as configs
from midillm_jax import prepare
from midillm_jax.config import Config, SamplesConfig, Source
from midillm_jax.data.batches import Batches
from midillm_jax.data.packing import Batch
from midillm_jax.data.shards import ShardWriter, open_split, pack_piece, read_manifest, write_manifest
from midillm_jax.errors import UserError
from midillm_jax.training import chips, flops, held_out, loop, run_log, window
from midillm_jax.training.loop import train
from midillm_jax.training.weights import load_params


def log_of(folder: Path) -> list[dict[str, str]]:
    rows = run_log.read(folder / run_log.FILE)
    return [{name: value for name, value in row.items() if name not in run_log.TIMES} for row in rows]


def test_a_run_logs_evaluates_and_saves(run: Config) -> None:
    folder = train(run)
    rows = log_of(folder)
    assert [(row["step"], row["kind"]) for row in rows] == [
        ("2", "train"),
        ("3", "validation"),
        ("4", "train"),
        ("6", "train"),
        ("6", "validation"),
    ]
    assert all(float(row["text_loss"]) > 0 and float(row["bits_per_note"]) > 0 for row in rows)
    assert float(rows[-1]["bits_per_note"]) < float(rows[1]["bits_per_note"])
    assert rows[0]["tokens"] == str(float(2 * 4 * 192))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir() if path.name.isdigit()) == ["2", "4", "6"]
    assert configs.from_json((folder / "config.json").read_text(), "config.json") == run
    assert list((folder / "tensorboard").iterdir())


@pytest.mark.parametrize(("making", "stepping", "share"), [(3.0, 1.0, 0.75), (0.0, 2.0, 0.0), (2.0, 2.0, 0.5)])
def test_waiting_for_data_is_seen_in_the_log(
    run: Config, monkeypatch: pytest.MonkeyPatch, making: float, stepping: float, share: float
) -> None:
    """A batch and a step take so many seconds by a clock that nothing else moves; no step hides what a batch takes."""
    now = 0.0
    add, take = loop.Window.add, Batches.__next__

    def taken(self: Batches) -> Batch:
        nonlocal now
        now += making
        return take(self)

    def added(self: loop.Window, values: Mapping[str, float]) -> None:
        nonlocal now
        now += stepping
        add(self, values)

    monkeypatch.setattr(Batches, "__next__", taken)
    monkeypatch.setattr(Batches, "ready", False)
    monkeypatch.setattr(loop.Window, "add", added)
    monkeypatch.setattr(window, "time", types.SimpleNamespace(monotonic=lambda: now))
    with (train(dataclasses.replace(run, steps=6, log_every_steps=3)) / "log.csv").open(newline="") as file:
        shares = [float(row["data_wait_share"]) for row in csv.DictReader(file) if row["kind"] == "train"]
    assert shares == pytest.approx([share, share], abs=0.01)


@pytest.mark.parametrize("ready", [False, True])
def test_only_an_idle_device_waits_for_data(run: Config, monkeypatch: pytest.MonkeyPatch, ready: bool) -> None:
    """Where no batch is at hand, the step that is under way ends before the wait is timed; else it runs on."""
    events: list[str] = []
    add, take = loop.Window.add, Batches.__next__

    def added(self: loop.Window, values: Mapping[str, float]) -> None:
        add(self, values)
        events.append(f"step {1 + sum('done' in event for event in events)} done")

    def taken(self: Batches) -> Batch:
        events.append("wait")
        return take(self)

    monkeypatch.setattr(loop.Window, "add", added)
    monkeypatch.setattr(Batches, "__next__", taken)
    monkeypatch.setattr(Batches, "ready", ready)
    train(dataclasses.replace(run, steps=3, log_every_steps=3, eval=dataclasses.replace(run.eval, every_steps=10)))
    # Step 2 is saved, hence settled; the last wait is the evaluation's.
    seen = ["wait", "wait", "step 1 done", "step 2 done", "wait", "step 3 done", "wait"]
    assert events == (seen if ready else ["wait", "step 1 done", "wait", *seen[3:]])


def test_a_finished_run_is_left_alone(run: Config) -> None:
    folder = train(run)
    before = load_params(str(folder))[1]
    rows = log_of(folder)
    train(run)
    assert log_of(folder) == rows
    jax.tree.map(np.testing.assert_array_equal, before, load_params(str(folder))[1])


def test_a_tokenizer_of_another_size_is_named(run: Config) -> None:
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, text_vocab_size=601))
    with pytest.raises(UserError, match=r"600 tokens and model\.text_vocab_size is 601"):
        train(other)
    assert not Path(run.folder).exists()


def test_missing_shards_are_named_before_anything_is_written(run: Config) -> None:
    other = dataclasses.replace(run, data=dataclasses.replace(run.data, music=(Source("nowhere"),)))
    with pytest.raises(UserError, match="nowhere"):
        train(other)
    assert not Path(run.folder).exists()


def test_data_without_a_held_out_part_is_refused_at_once(run: Config, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    options = ["--validation-share", "0", "--workers", "1"]
    prepare.main(["pairs", "--input", str(corpus / "band"), "--out", str(folder), *options])
    other = dataclasses.replace(run, data=dataclasses.replace(run.data, music=(Source(str(folder)),)))
    with pytest.raises(UserError, match=r"all.*validation"):
        train(other)
    assert not Path(run.folder).exists()


def test_a_run_folder_explains_itself(run: Config, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(dataclasses.replace(run, steps=4))
    slower = dataclasses.replace(
        run, optimizer=dataclasses.replace(run.optimizer, learning_rate=1e-4), log_every_steps=1
    )
    train(slower)
    assert "from step 4 on: steps was 4, is now 6" in capsys.readouterr().err
    (event,) = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert (event["event"], event["step"]) == ("changed", 4)
    assert event["fields"] == {
        "steps": [4, 6],
        "optimizer.learning_rate": [1e-2, 1e-4],
        "log_every_steps": [2, 1],
    }
    assert configs.from_json((folder / "config.json").read_text(), "config.json") == slower
    starts = json.loads((folder / "environment.json").read_text())
    assert [start["step"] for start in starts] == [0, 4]
    assert starts[0]["versions"]["jax"] == jax.__version__
    assert starts[0]["devices"] == f"{jax.device_count()} x cpu"
    readme = (folder / "README.md").read_text()
    assert "python -m midillm_jax.export --checkpoint" in readme
    assert shlex.join(sys.argv[1:]) in readme


def test_each_source_is_evaluated_where_there_are_several(run: Config, corpus: Path) -> None:
    sources = (Source(str(corpus / "pairs"), 3.0), Source(f"{corpus}/../{corpus.name}/pairs"))
    folder = train(dataclasses.replace(run, data=dataclasses.replace(run.data, music=sources), steps=3))
    rows = {row["kind"]: row for row in log_of(folder) if row["step"] == "3"}
    kinds = {f"validation of {source.path}" for source in sources}
    assert set(rows) == {"train", "validation"} | kinds
    one, other = (rows[kind] for kind in sorted(kinds))
    # The same shards, so the same figures; of music alone, as there is one source of text.
    assert one["bits_per_note"] == other["bits_per_note"] != ""
    assert one["text_loss"] == one["loss"] == ""


def test_samples_are_taken_at_the_start_on_the_way_and_at_the_end(run: Config) -> None:
    settings = SamplesConfig(every_steps=4, prompts=("A waltz.",), max_seconds=6.0, max_notes=16)
    folder = train(dataclasses.replace(run, samples=settings))
    rows = [row for row in log_of(folder) if row["kind"] == "samples"]
    assert [row["step"] for row in rows] == ["0", "4", "6"]
    assert all(0 <= float(row["looping_share"]) <= float(row["valid_share"]) <= 1 for row in rows)
    for step in ("0", "4", "6"):
        assert mido.MidiFile(str(folder / "samples" / step / "00.mid")).type == 1
        assert (folder / "samples" / step / "00.png").stat().st_size > 1000


@pytest.mark.slow
def test_samples_of_the_start_are_taken_once_though_the_run_was_killed(run: Config, tmp_path: Path) -> None:
    settings = SamplesConfig(every_steps=100, prompts=("A waltz.",), max_seconds=6.0, max_notes=16)
    sampled = dataclasses.replace(run, samples=settings, steps=2)
    process = start(sampled, tmp_path)
    folder = Path(sampled.folder)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        any(row["kind"] == "samples" for row in run_log.read(folder / run_log.FILE))
        and any(b"samples/00" in path.read_bytes() for path in (folder / "tensorboard").iterdir())
    ):
        time.sleep(0.01)
    process.kill()  # while the step is compiled
    process.communicate()
    assert not list((folder / "checkpoints").glob("[0-9]"))
    train(sampled)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    (tag,) = events.Tags()["images"]
    assert [event.step for event in events.Images(tag)] == [0, 2]
    assert [row["step"] for row in log_of(folder) if row["kind"] == "samples"] == ["0", "2"]


def test_the_checkpoint_of_the_lowest_held_out_loss_is_kept(run: Config) -> None:
    """A learning rate that grows until it does harm: the best evaluation is neither the first nor the last."""
    rising = dataclasses.replace(run.optimizer, learning_rate=0.8, warmup_steps=15)
    folder = train(
        dataclasses.replace(
            run,
            steps=15,
            optimizer=rising,
            guard=dataclasses.replace(run.guard, spike_factor=1e9),
            eval=dataclasses.replace(run.eval, every_steps=3),
            checkpoint=dataclasses.replace(run.checkpoint, every_steps=1000, keep=1),
        )
    )
    losses = {int(row["step"]): float(row["loss"]) for row in log_of(folder) if row["kind"] == "validation"}
    best = min(losses, key=lambda step: losses[step])
    assert 3 < best < 15
    kept = {int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {best, 15}


def test_the_share_of_the_chips_peak_is_that_of_the_models_own_arithmetic(
    run: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chips, "peak_flops", lambda kind: 1e12)
    rows = run_log.read(train(run) / run_log.FILE)
    row = next(row for row in rows if row["kind"] == "train")
    tokens = 4 * 192
    achieved = float(row["tokens_per_second"]) / tokens * flops.step_flops(run).model
    assert float(row["mfu"]) == pytest.approx(achieved / (jax.device_count() * 1e12), rel=1e-3)


def test_a_stop_does_not_wait_for_an_evaluation(run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes after the first of the held-out batches; the resumed run evaluates the step from the start."""
    long = dataclasses.replace(run, eval=dataclasses.replace(run.eval, batches=4))
    alone = train(dataclasses.replace(long, run_dir=f"{run.folder}-alone"))
    place, seen = held_out.place, []

    def placed(*arguments: Any) -> Any:
        seen.append(1)
        signal.raise_signal(signal.SIGINT)
        return place(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(held_out, "place", placed)
        with pytest.raises(KeyboardInterrupt):
            train(long)
    assert len(seen) == 1
    folder = Path(long.folder)
    assert [(row["step"], row["kind"]) for row in log_of(folder)] == [("2", "train")]
    train(long)
    assert log_of(folder) == log_of(alone)


def test_held_out_records_that_change_under_a_run_end_it(run: Config, corpus: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    shutil.copytree(corpus / "pairs", pairs)
    data = dataclasses.replace(run.data, music=(Source(str(pairs)),))
    evaluated = loop.Run._evaluate

    def then_prepare_again(self: loop.Run) -> bool:
        better = evaluated(self)
        manifest = read_manifest(pairs)
        held = manifest.splits["validation"]
        with ShardWriter(pairs, "validation") as writer:
            writer.write(pack_piece(open_split(corpus / "pairs", "train").piece(0)), 1)
        write_manifest(pairs, dataclasses.replace(manifest, splits=manifest.splits | {"validation": writer.split}))
        assert writer.split != held
        return better

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "_evaluate", then_prepare_again)
        with pytest.raises(UserError, match=f"{pairs}: its held-out records are not those"):
            train(dataclasses.replace(run, data=data))


def test_fewer_steps_than_were_done_are_refused(run: Config) -> None:
    train(run)
    with pytest.raises(UserError, match="has 6 steps, --steps says 4"):
        train(dataclasses.replace(run, steps=4))


def test_a_stop_at_the_last_step_is_still_a_stop(run: Config) -> None:
    whole = dataclasses.replace(run, run_dir=f"{run.folder}-whole", steps=1, log_every_steps=1)
    train(whole)
    short = dataclasses.replace(whole, run_dir=run.run_dir)
    with pytest.raises(KeyboardInterrupt), interrupted_at("fresh weights"):
        train(short)
    assert [row["kind"] for row in log_of(Path(short.folder))] == ["train"]
    train(short)
    assert log_of(Path(short.folder)) == log_of(Path(whole.folder))


def test_a_row_of_the_log_counts_the_steps_before_a_stop(run: Config) -> None:
    """The row of step 2 is of steps 1 and 2, though the run was stopped between them."""
    whole = dataclasses.replace(run, run_dir=f"{run.folder}-whole", steps=2)
    assert whole.log_every_steps == 2
    train(whole)
    short = dataclasses.replace(whole, run_dir=run.run_dir)
    with pytest.raises(KeyboardInterrupt), interrupted_at("fresh weights"):
        train(short)
    assert not (Path(short.folder) / "log.csv").exists()
    train(short)
    assert log_of(Path(short.folder)) == log_of(Path(whole.folder))


@contextlib.contextmanager
def interrupted_at(words: str) -> Iterator[None]:
    """Sends this process SIGINT when it prints ``words``."""

    class Watcher(io.StringIO):
        def write(self, text: str) -> int:
            if words in text:
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    with contextlib.redirect_stdout(Watcher()):
        yield


def start(run: Config, folder: Path) -> "subprocess.Popen[str]":
    """The command in a process of its own, on a config file that says what ``run`` says."""
    file = folder / "run.py"
    file.write_text(
        "from midillm_jax import config\n\n"
        f"def get_config():\n    return config.from_json({configs.to_json(run)!r}, 'test')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "midillm_jax.train", "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(run: Config, tmp_path: Path, number: int, code: int) -> None:
    long = dataclasses.replace(run, steps=30, checkpoint=dataclasses.replace(run.checkpoint, every_steps=7))
    alone = dataclasses.replace(long, run_dir=str(tmp_path / "alone"))
    output = start(alone, tmp_path).communicate()[0]
    assert output.splitlines()[-1] == f"done: {alone.folder}"

    process = start(long, tmp_path)
    log = Path(long.folder) / "log.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == code, output
    stopped = [line for line in output.splitlines() if line.startswith("stopped after step ")]
    assert len(stopped) == 1, output

    output = start(long, tmp_path).communicate()[0]
    assert f"resumed at step {stopped[0].split()[3].rstrip(',')}" in output
    assert log_of(Path(long.folder)) == log_of(Path(alone.folder))
    jax.tree.map(np.testing.assert_array_equal, load_params(long.folder)[1], load_params(alone.folder)[1])
