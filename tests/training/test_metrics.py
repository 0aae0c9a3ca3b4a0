import csv
import math
from pathlib import Path

import pytest

from midillm_jax.training import metrics


def test_figures_are_bits_and_means() -> None:
    shown = metrics.figures(
        {
            "objective": 30.0,
            "weight": 10.0,
            "text_nats": 8.0,
            "text_tokens": 4.0,
            "onset_nats": 6 * math.log(2),
            "duration_nats": 4 * math.log(2),
            "note_nats": 2 * math.log(2),
            "notes": 2.0,
        }
    )
    assert shown["loss"] == pytest.approx(3.0)
    assert shown["text_loss"] == pytest.approx(2.0)
    assert shown["onset_bits"] == pytest.approx(3.0)
    assert shown["duration_bits"] == pytest.approx(2.0)
    assert shown["note_bits"] == pytest.approx(1.0)
    assert shown["bits_per_note"] == pytest.approx(6.0)


def test_a_figure_without_targets_is_left_out() -> None:
    nothing = dict.fromkeys(
        ("objective", "weight", "text_nats", "text_tokens", "onset_nats", "duration_nats", "note_nats", "notes"), 0.0
    )
    assert metrics.figures(nothing) == {}
    assert metrics.figures(nothing | {"text_nats": 1.0, "text_tokens": 2.0}) == {"text_loss": 0.5}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_log_has_no_step_twice(tmp_path: Path) -> None:
    log = metrics.RunLog(tmp_path, "test", 10, 0, active=True)
    for step in (2, 4, 6):
        log.write(step, "train", {"loss": float(step)})
    log.close()
    # The run was saved after step 4 and died after 6.
    log = metrics.RunLog(tmp_path, "test", 10, 4, active=True)
    log.write(6, "train", {"loss": 60.0})
    log.write(6, "validation", {"bits_per_note": 1.5})
    log.close()
    assert log.has(4, "train")
    assert not log.has(4, "validation")
    rows = read(tmp_path / "log.csv")
    assert [(row["step"], row["kind"], row["loss"]) for row in rows] == [
        ("2", "train", "2.0"),
        ("4", "train", "4.0"),
        ("6", "train", "60.0"),
        ("6", "validation", ""),
    ]
    assert rows[-1]["bits_per_note"] == "1.5"


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    log = metrics.RunLog(tmp_path, "test", 10, 0, active=False)
    log.write(2, "train", {"loss": 1.0})
    log.say("hello")
    log.close()
    assert list(tmp_path.iterdir()) == []
