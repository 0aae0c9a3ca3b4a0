"""Runs read from their folders and compared: what is last, best, different, torn."""

import json
from pathlib import Path
from typing import Any

import pytest

from midillm_jax import evaluate
from midillm_jax.errors import UserError
from midillm_jax.evaluation import runs, runs_page
from midillm_jax.evaluation.run_log import read_log, read_samples, read_settings
from midillm_jax.evaluation.runs import Best

LOG = """step,kind,loss,text_loss,bits_per_note,learning_rate,tokens,tokens_per_second,data_wait_share,seconds\r
10,train,3.0,2.5,20.0,0.001,1000,100.0,0.5,60\r
20,train,2.0,2.0,12.5,0.002,2000,300.0,0.1,120\r
20,validation,2.2,2.1,13.0,,,,,125\r
30,train,1.9,1.9,11.5,0.001,3000,200.0,0.0,30\r
30,validation,2.4,2.0,14.0,,,,,36\r
"""


def folder(path: Path, log: str = LOG, **settings: Any) -> Path:
    """A run folder with this log and these config fields."""
    path.mkdir(parents=True)
    (path / "log.csv").write_bytes(log.encode())
    (path / "config.json").write_text(json.dumps({"name": path.name, "steps": 30} | settings))
    return path


def test_a_log_is_read_row_by_row(tmp_path: Path) -> None:
    log = read_log(folder(tmp_path / "a"))
    assert [(row.step, row.kind) for row in log.rows[:3]] == [(10, "train"), (20, "train"), (20, "validation")]
    assert log.points("validation", "loss") == ((20, 2.2), (30, 2.4))
    assert log.points("validation", "learning_rate") == ()
    assert not log.torn


@pytest.mark.parametrize("cut", [1, 2, 5, 20, 34])
def test_a_last_line_torn_anywhere_is_left_out(tmp_path: Path, cut: int) -> None:
    """Even where what is left of it looks like a row: 2.4 may be the beginning of 2.456."""
    log = read_log(folder(tmp_path / "a", LOG[:-cut]))
    assert log.torn
    assert [(row.step, row.kind) for row in log.rows][-1] == (30, "train")


def test_a_number_that_is_not_finite_is_no_point(tmp_path: Path) -> None:
    text = LOG.replace("30,train,1.9", "30,train,nan").replace("20,train,2.0", "20,train,inf")
    assert read_log(folder(tmp_path / "a", text)).points("train", "loss") == ((10, 3.0),)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("a,b\n1,2\n", r"log\.csv: is not the log of a training run"),
        ("", "is not the log of a training run"),
        (LOG.splitlines()[0], "is not the log of a training run"),
        (LOG.replace("20,validation,2.2", "20,validation,two"), r"log\.csv:4: .*'two'; expected a row of numbers"),
        (LOG.replace("20,validation,2.2", "20,validation"), r"log\.csv:4: 9 values under 10 columns"),
    ],
)
def test_what_is_no_log_is_named(tmp_path: Path, log: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_log(folder(tmp_path / "a", log))


def test_a_run_says_its_last_and_best(tmp_path: Path) -> None:
    (run,) = runs.read([folder(tmp_path / "a")])
    assert run.last("loss") == Best(2.4, 30)
    assert run.best("loss") == Best(2.2, 20)
    assert run.best("text_loss") == Best(2.0, 30)
    assert run.last("tokens") == Best(3000, 30)
    assert run.typical("tokens_per_second") == 200
    assert run.best("learning_rate") is None
    assert runs.line(run) == (
        "a: step 30 of 30, loss 2.400 (best 2.200 at step 20), bits per note 14.000 (best 13.000 at step 20), "
        "text loss 2.000 (best 2.000 at step 30)"
    )


def test_time_is_added_up_over_starts(tmp_path: Path) -> None:
    """The clock begins anew with each: 125 s, then 36 s."""
    (run,) = runs.read([folder(tmp_path / "a")])
    assert run.seconds() == 161


def test_runs_are_told_apart_by_name(tmp_path: Path) -> None:
    places = [folder(tmp_path / name) for name in ("one/runs/stage1", "two/runs/stage1", "two/runs/stage2")]
    assert [run.name for run in runs.read(places)] == ["one/runs/stage1", "two/runs/stage1", "two/runs/stage2"]
    assert [run.name for run in runs.read(places[1:])] == ["stage1", "stage2"]


def test_only_what_differs_is_told(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", model={"d_model": 64, "rope": None}, data={"music": [{"path": "x"}]})
    other = folder(tmp_path / "b", model={"d_model": 128, "rope": None}, data={"music": [{"path": "x"}, {"path": "y"}]})
    assert runs.differences(runs.read([one, other])) == {"model.d_model": (64, 128), "data.music.1.path": (None, "y")}


def test_a_config_of_another_version_can_be_read(tmp_path: Path) -> None:
    place = folder(tmp_path / "a", unheard_of={"field": [], "other": {}})
    assert read_settings(place)["unheard_of.field"] == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda place: (place / "log.csv").unlink(), r"holds no log\.csv"),
        (lambda place: (place / "config.json").unlink(), r"holds no config\.json"),
        (lambda place: (place / "config.json").write_text("{"), r"config\.json: not JSON"),
    ],
)
def test_what_is_no_run_is_named(tmp_path: Path, spoil: Any, message: str) -> None:
    place = folder(tmp_path / "a")
    spoil(place)
    with pytest.raises(UserError, match=message):
        runs.read([place])


def test_a_run_named_twice_and_too_many_are_refused(tmp_path: Path) -> None:
    places = [folder(tmp_path / f"r{number}") for number in range(11)]
    with pytest.raises(UserError, match=r"r1: this run was named twice"):
        runs.read([places[0], places[1], tmp_path / "r0" / ".." / "r1"])
    with pytest.raises(UserError, match="11 runs were named; expected 1 to 10"):
        runs.read(places)
    assert len(runs.read(places[:10])) == 10


def samples(place: Path, step: int, **shares: float) -> None:
    written = place / "samples" / str(step)
    written.mkdir(parents=True)
    figures = {"valid_share": 1.0, "looping_share": 0.0, "flooded_share": 0.0, "empty_share": 0.0} | shares
    (written / "samples.json").write_text(json.dumps({"step": step, "figures": figures, "pieces": []}))


def test_samples_are_read_in_the_order_of_steps(tmp_path: Path) -> None:
    place = folder(tmp_path / "a")
    samples(place, 100, looping_share=0.25)
    samples(place, 20)
    (place / "samples" / "200.partial").mkdir()
    (place / "samples" / "200.partial" / "samples.json").write_text("{}")
    found = read_samples(place)
    assert [each.step for each in found] == [20, 100]
    assert found[1].shares["looping_share"] == 0.25
    (place / "samples" / "20" / "samples.json").write_text("[]")
    with pytest.raises(UserError, match=r"samples/20/samples\.json: expected step and figures"):
        read_samples(place)


def words(page: str) -> str:
    return " ".join(page.split("<body>")[1].split())


def test_the_page_shows_shares_and_sources_and_refused_steps(tmp_path: Path) -> None:
    header = LOG.splitlines()[0] + ",skipped_steps,mfu,text_drift,novelty\r\n"
    rows = "10,train,3.0,,20.0,0.001,1000,100.0,0.5,60,2,0.4,,7\r\n"
    held_out = "10,validation of jazz,,,9.0,,,,,60,,,,\r\n10,validation,3.0,,9.5,,,,,60,,,0.5,\r\n"
    place = folder(tmp_path / "a & <b>", header + rows + held_out)
    samples(place, 10, looping_share=0.5)
    page = words(runs_page.render(runs.read([place])))
    for shown in ("a &amp; &lt;b&gt;", "10 of 30 steps, 2 not applied", "Held-out data, source by source", "jazz"):
        assert shown in page
    for title in ("Model FLOPs", "Text drift", "novelty", "Looping samples", "50 %"):
        assert title in page
    assert "Empty samples" not in page, "which never were"
    assert "Settings that differ" not in page, "of a run alone"


def test_the_best_of_all_runs_is_bold(tmp_path: Path) -> None:
    better = LOG.replace("30,validation,2.4", "30,validation,1.7")
    page = runs_page.render(runs.read([folder(tmp_path / "a"), folder(tmp_path / "b", better)]))
    assert page.count("<b>1.700</b>") == 1
    assert "<b>2.200</b>" not in page
    assert page.count("<b>13.000</b>") == 2, "a draw"


def test_a_loss_that_no_run_has_takes_no_room(tmp_path: Path) -> None:
    without = "\r\n".join(",".join(line.split(",")[:3] + line.split(",")[4:]) for line in LOG.split("\r\n"))
    assert "Text, nats a token" in runs_page.render(
        runs.read([folder(tmp_path / "a"), folder(tmp_path / "b", without)])
    )
    assert "Text, nats a token" not in runs_page.render(runs.read([tmp_path / "b"]))


def test_equal_configs_are_said_to_be(tmp_path: Path) -> None:
    page = runs_page.render(runs.read([folder(tmp_path / "a"), folder(tmp_path / "b")]))
    assert "these runs have the same config" in page


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file/page: this folder cannot be made"):
        evaluate.main(["runs", str(place), "--out", str(tmp_path / "file" / "page")])
