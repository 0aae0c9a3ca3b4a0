import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from midillm_jax.training.appending import Appending
from midillm_jax.training.run_log import RunLog


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def board_of(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values as TensorBoard has them."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_resumed_log_has_no_step_twice(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in (2, 4, 6):
        log.write(step, "train", {"loss": float(step)})
    # The run was saved after step 4 and died after 6, in the middle of a line.
    with (tmp_path / "log.csv").open("a") as file:
        file.write("8,train,8")
    log = RunLog(tmp_path, 4)
    log.write(6, "train", {"loss": 60.0})
    log.write(6, "validation", {"bits_per_note": 1.5})
    assert log.has(4, "train")
    assert not log.has(4, "validation")
    rows = rows_of(tmp_path)
    assert [(row["step"], row["kind"], row["loss"]) for row in rows] == [
        ("2", "train", "2.0"),
        ("4", "train", "4.0"),
        ("6", "train", "60.0"),
        ("6", "validation", ""),
    ]
    assert rows[-1]["bits_per_note"] == "1.5"
    assert board_of(tmp_path, "train/loss") == [(2, 2.0), (4, 4.0), (6, 60.0)]
    assert board_of(tmp_path, "validation/bits_per_note") == [(6, 1.5)]


def test_a_run_that_goes_back_takes_its_rows_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, "train", {"loss": float(step)})
    log.forget_after(1)
    log.write(2, "train", {"loss": 20.0})
    assert [row["loss"] for row in rows_of(tmp_path)] == ["1.0", "20.0"]
    assert board_of(tmp_path, "train/loss") == [(1, 1.0), (2, 20.0)]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_what_a_full_disk_refused_is_written_later_and_once(tiny_disk: Path) -> None:
    file = Appending(tiny_disk / "file")
    assert file.write(b"one ") is None
    filler = tiny_disk / "filler"
    filler.write_bytes(bytes(56 << 10))
    piece = bytes(range(256)) * 40
    refused = file.write(piece)
    assert refused is not None
    assert "No space left" in str(refused)
    assert file.write(b" two") is not None
    filler.unlink()
    assert file.write(b" three") is None
    assert file.path.read_bytes() == b"one " + piece + b" two three"
