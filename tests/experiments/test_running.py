"""Steps run once, as processes; what was done is not done again, and what fails is told."""

import json
from pathlib import Path

import pytest

from midillm_jax.errors import UserError
from midillm_jax.experiments import record, running
from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged, Reported

HEADER = "step,kind,loss,bits_per_note\n"


def stated(pieces: str = "2", out: str = "{run}/band") -> Experiment:
    step = ("prepare", "demo", "--out", out, "--pieces", pieces, "--profile", "small", "--seed", "{seed}")
    return Experiment(
        name="tiny",
        question="Is it run?",
        arms=(Arm("only", "a band", (step, ("prepare", "midi", "--input", "{run}/band", "--out", "{run}/shards"))),),
        figures=(Figure("records", "pieces", Reported("{run}/shards/manifest.json", "splits.train.records")),),
        seeds=(0, 1),
    )


def test_a_step_is_run_once_and_goes_into_the_record(tmp_path: Path) -> None:
    place, said = running.Place(tmp_path, {}), []
    running.run(stated(), place, ["only"], [1], said.append)
    assert len(said) == 2
    assert (tmp_path / "tiny" / "only" / "1" / "band" / "captions.jsonl").is_file()
    running.run(stated(), place, ["only"], [1], said.append)
    assert len(said) == 2, "it was done already"
    with pytest.raises(UserError, match="other arguments"):
        running.run(stated(pieces="3"), place, ["only"], [1], said.append)

    made = running.collect(stated(), place, "demo", "a machine", "the command")
    assert set(made.arms["only"]) == {1}
    assert made.hardware == "a machine"
    made.write(tmp_path / "tiny.json")
    assert record.read(tmp_path / "tiny.json") == made
    with pytest.raises(UserError, match="no arm is done"):
        running.collect(stated(pieces="3"), place, "demo", "", "")


def test_a_step_that_fails_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"code 2.*log\.txt"):
        running.run(stated(out=f"{tmp_path}/file"), running.Place(tmp_path, {}), ["only"], [0], print)
    log = tmp_path / "tiny" / "only" / "0" / "log.txt"
    assert "error:" in log.read_text()


def test_figures_and_curves_are_read_from_logs(tmp_path: Path) -> None:
    for name, values in (("one", (9.0, 8.0)), ("two", (7.0, 6.5))):
        folder = tmp_path / name
        folder.mkdir()
        rows = f"5,train,1,20\n5,validation,1,{values[0]}\n10,validation,1,{values[1]}\n"
        (folder / "log.csv").write_text(HEADER + rows)
    values = {"run": str(tmp_path)}
    first = Figure("a", "", Logged("{run}/one", "bits_per_note", "first"))
    assert running.read_figure(first, values) == 9.0
    assert running.read_figure(Figure("a", "", Logged("{run}/two", "bits_per_note")), values) == 6.5
    with pytest.raises(UserError, match="text_loss"):
        running.read_figure(Figure("a", "", Logged("{run}/one", "text_loss")), values)
    curve = Curve("", "bits_per_note", runs=("{run}/none", "{run}/one", "{run}/two"))
    assert running.read_curve(curve, "x", values) == ((5, 9.0), (10, 8.0), (15, 7.0), (20, 6.5))


def test_figures_are_read_from_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"a": [{"b": {"value": 2, "low": 1, "high": 3}}, 5]}))
    values = {"run": str(tmp_path)}
    found = running.read_figure(Figure("a", "", Reported("{run}/x.json", "a.0.b")), values)
    assert isinstance(found, record.Interval)
    assert (found.low, found.value, found.high) == (1, 2, 3)
    assert running.read_figure(Figure("a", "", Reported("{run}/x.json", "a.1")), values) == 5
    with pytest.raises(UserError, match=r"has no a\.2"):
        running.read_figure(Figure("a", "", Reported("{run}/x.json", "a.2")), values)
