"""launch/speedrun.sh: what it would do and what that takes, and that it goes on where it was broken off.

At 1B its commands are real, and what they call stands in for itself: Google Cloud, the Hub and the package's commands
write down how they were called. The demo's steps run for real in .ci/run.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from midillm_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "launch" / "speedrun.sh"
FULL = ["--size", "1b", "--slice", "v5litepod-16", "--name", "n", "--zone", "us-west4-a", "--bucket", "gs://mine"]
FULL_STEPS = ["check", "fetch", "build", "stage1", "stage2", "delete", "export", "evaluate"]
DEMO_STEPS = ["fetch", "build", "stage1", "stage2", "export", "evaluate"]


def speedrun(*arguments: object, folder: Path, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The script in ``folder``, whose programs are those of ``path`` first."""
    places = [*([path] if path else []), str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PATH": ":".join(places), "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def steps_of(output: str) -> dict[str, list[str]]:
    """Step -> its lines: time, cost, and commands or what came of them."""
    parts = re.split(r"^\d of \d: (\w+)$", output.split("\nin all:")[0], flags=re.MULTILINE)
    found = [[line.strip() for line in part.splitlines() if line.strip()] for part in parts[2::2]]
    return dict(zip(parts[1::2], found, strict=True))


def test_a_dry_run_says_what_every_step_takes_and_does_nothing(tmp_path: Path) -> None:
    done = speedrun(*FULL, "--spot", "--price-per-chip-hour", "1.20", "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    steps = steps_of(done.stdout)
    assert list(steps) == FULL_STEPS
    for name, (time, cost, *commands) in steps.items():
        assert re.fullmatch(r"time: (\d.*|not timed)", time), name
        assert re.match(r"cost: \d", cost), name
        assert commands, name
    # The chip-hours of docs/scaling.md, by the chips of the slice and the price.
    assert steps["stage1"][:2] == [
        "time: 2.9 h of train steps at the least, 3.5 h to 5.9 h expected",
        "cost: 47 chip-hours at the least, 55 to 94 expected; at 1.2 each 66 to 113",
    ]
    assert "v5litepod-16 is v5e:4x4: 16 chips on 4 machines" in done.stdout
    assert "such steps were compiled and not run" in done.stdout
    commands = {name: " ".join(lines[2:]).replace(f"{ROOT}/launch/", "") for name, lines in steps.items()}
    assert commands["check"].count("--compile-only v5e:4x4") == 2
    assert "data.sh --tokenizer models/Llama-3.2-1B --fetch-only" in commands["fetch"]
    assert "--no-fetch --bucket gs://mine/data" in commands["build"]
    for stage in ("stage1", "stage2"):
        tpu = "--name n --zone us-west4-a --type v5litepod-16 --bucket gs://mine --spot"
        assert commands[stage] == f"tpu_vm.sh up {tpu} -- --config {stage}.py"
    assert commands["delete"] == "tpu_vm.sh delete --name n --zone us-west4-a"
    assert "--checkpoint gs://mine/runs/stage2" in commands["export"]
    assert commands["export"].split()[-1] == commands["evaluate"].split()[4] == "speedrun/model"
    printed = [line.strip() for line in done.stdout.replace(f"{ROOT}/", "").splitlines()]
    page = [line.strip() for line in (ROOT / "docs" / "scaling.md").read_text().splitlines()]
    begin = page.index(printed[0])
    assert page[begin : begin + len(printed)] == printed, "docs/scaling.md shows another output than this"


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/speedrun.py, without a process of its own."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("speedrun_estimates", ROOT / "benchmarks" / "speedrun.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_memory_is_the_bound_no_more_is_promised(estimates: ModuleType) -> None:
    asked = argparse.Namespace(mbit=100.0, pieces=64, gigamidi=False, price_per_chip_hour=None)
    lines = {name: rest for name, *rest in estimates.lines(estimates.slice_of("v6e-16"), asked)}
    assert lines["stage2"] == [
        "1 h of train steps at the least; how much more on v6e is not known",
        "16 chip-hours at the least; --price-per-chip-hour says what that is in money",
    ]
    assert lines["fetch"][0].startswith("17 min at 100 Mbit/s (12.8 GB)")


@pytest.mark.parametrize(
    ("accelerator", "chips"), [("v5litepod-8", 8), ("v5p-16", 8), ("v4-32", 16), ("v6e-64", 64), ("v5litepod-1", 1)]
)
def test_a_slice_by_its_name_at_google(estimates: ModuleType, accelerator: str, chips: int) -> None:
    assert estimates.slice_of(accelerator).chips == chips


@pytest.mark.parametrize(
    ("accelerator", "message"),
    [
        ("v5litepod", "no such accelerator type; expected one such as v4-32, v5litepod-16"),
        ("v5litepod-12", "those of v5e are v5litepod-1, v5litepod-4"),
        ("v5litepod-128", "stage1.py reads 64 rows of text a step, which 128 chips do not divide"),
    ],
)
def test_a_slice_that_does_not_do(estimates: ModuleType, accelerator: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        estimates.slice_of(accelerator)


def test_the_demo_has_the_same_steps_here(tmp_path: Path) -> None:
    done = speedrun("--size", "demo", "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    steps = steps_of(done.stdout)
    assert list(steps) == DEMO_STEPS
    for name, (time, cost, command) in steps.items():
        assert re.fullmatch(r"time: [1-9]\d* CPU s", time)
        assert cost == "cost: 0 (this machine)"
        assert command == f"bash {ROOT}/launch/demo.sh {name}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found --size '', expected demo or 1b"),
        (["--size", "2b"], "found --size '2b', expected demo or 1b"),
        (["--size", "1b", "--slice", "v5p-16"], "--size 1b needs --name"),
        (["--size", "demo", "--slice", "v5p-16"], "--slice does not go with --size demo"),
        ([*FULL, "--slice", "v9-16"], "no runtime version is known for --type v9-16"),
        ([*FULL, "--slice", "v5p-17"], "--slice v5p-17: there is no such slice; those of v5p are v5p-8, v5p-16"),
        ([*FULL, "--bucket", "gs://mine/data"], "expected gs://NAME without a folder"),
        ([*FULL, "--price-per-chip-hour", "cheap"], "found --price-per-chip-hour cheap, expected a number"),
        ([*FULL, "--pieces", "6.5"], "found --pieces 6.5, expected a number of 1 or more"),
        ([*FULL, "--test-ids", "ids.txt"], "found --test-ids ids.txt, expected a file"),
        ([*FULL, "--sliced", "x"], "there is no option --sliced"),
        ([*FULL, "--zone"], "--zone wants a value"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = speedrun("--dry-run", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder of programs that write their words into ``called`` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = f'echo "$(basename "$0") $*" >> {tmp_path}/called\n'
    # Estimates are tested above, and take two seconds.
    told = "".join(rf"{name}\tv5e:4x4\t0\n" for name in ("slice", *FULL_STEPS, "all"))
    programs = {
        "python": f'case "$1" in */benchmarks/speedrun.py) printf "{told}"; exit ;; esac\n{log}',
        "hf": log,
        "git": log,
        "gcloud": f'case "$*" in *" list "*) echo ACTIVE; exit ;; esac\n{log}'
        f'case "$*" in *stage2.py*) [ ! -e {tmp_path}/broken ] || exit 7 ;; esac\n',
    }
    for name, program in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{program}")
        (folder / name).chmod(0o755)
    return folder


def test_what_is_done_is_not_done_again(tmp_path: Path, stand_ins: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def called() -> list[str]:
        """What was called since the last look, each by its program and the words that tell it from others."""
        file = tmp_path / "called"
        words = r"compile-only|download|prepare (?:fetch|pairs)|rsync|stage[12]\.py|delete|export|evaluate"
        found = [re.findall(words, line) for line in file.read_text().splitlines()] if file.exists() else []
        file.unlink(missing_ok=True)
        return [" ".join(each) for each in found if each]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return speedrun(*FULL, *more, folder=work, path=str(stand_ins))

    (tmp_path / "broken").touch()
    first = run()
    assert first.returncode == 7
    assert "stage2 did not finish; the same command goes on there" in first.stderr
    assert f"the slice costs: {ROOT}/launch/tpu_vm.sh delete --name n --zone us-west4-a" in first.stderr
    before = called()
    assert before[:2] == ["stage1.py compile-only", "stage2.py compile-only"]
    assert before[2:6] == ["download", *["prepare fetch"] * 3]
    assert before[-2:] == ["stage1.py", "stage2.py"]
    assert before.count("rsync") == 4
    stamps = {path.name for path in (work / "speedrun").iterdir()}
    assert stamps == {"check.v5litepod-16.stamp", "fetch.stamp", "build.stamp", "stage1.stamp"}
    assert (work / "speedrun" / "stage1.stamp").read_text().startswith("stage1.py ")

    (tmp_path / "broken").unlink()
    again = run()
    assert again.returncode == 0, again.stderr
    assert called() == ["stage2.py", "delete", "export", "evaluate"]
    assert again.stdout.count("done before") == 4

    # Another slice trains the same: only whether it fits is a new question.
    moved = run("--slice", "v5p-16")
    assert moved.returncode == 0, moved.stderr
    assert called() == ["stage1.py compile-only", "stage2.py compile-only"]

    other = run("--pieces", "8")
    assert other.returncode == 2
    assert "evaluate.stamp says that evaluate was made of '64 pieces, after export " in other.stderr
    assert "and now it would be of '8 pieces, " in other.stderr
    assert called() == []

    # Trained once more, by the user's word: the slice that was given back has to be given back again.
    for name in ("stage2", "export", "evaluate"):
        (work / "speedrun" / f"{name}.stamp").unlink()
    assert run().returncode == 0
    assert called() == ["stage2.py", "delete", "export", "evaluate"]


def test_a_demo_knows_its_settings_and_its_steps(tmp_path: Path, stand_ins: Path) -> None:
    environment = {"DEMO_STEPS": "reduced", "DEMO_OUT": str(tmp_path / "out")}
    done = speedrun("--size", "demo", folder=tmp_path, path=str(stand_ins), **environment)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"midillm_jax\.(\w+)", (tmp_path / "called").read_text())
    assert commands == ["prepare"] * 6 + ["train", "train", "export", "generate", "evaluate"]
    again = speedrun("--size", "demo", folder=tmp_path, path=str(stand_ins), **environment)
    assert (again.returncode, again.stdout.count("done before")) == (0, 6)
    other = speedrun("--size", "demo", folder=tmp_path, path=str(stand_ins), **environment | {"DEMO_SEED": "1"})
    assert other.returncode == 2
    assert "fetch.stamp says that fetch was made of 'seed 0, steps reduced'" in other.stderr
    wrong = subprocess.run(
        ["/bin/bash", str(ROOT / "launch" / "demo.sh"), "fetch", "train"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "there is no step train" in wrong.stderr
    assert not (tmp_path / "demo").exists()
