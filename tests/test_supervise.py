"""launch/supervise.py with real processes: what it starts again, what it does not, and when it gives up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def supervise(folder: Path, program: str, *options: str, processes: int = 1) -> "subprocess.Popen[str]":
    """``program`` is Python; it finds how often it was started before in ``attempt``, and may say ``done(step)``."""
    (folder / "program.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "number = os.environ.get('JAX_PROCESS_ID', '0')\n"
        "count = pathlib.Path(f'count{number}')\n"
        "attempt = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(attempt + 1))\n"
        "def done(step):\n"
        "    if 'MIDILLM_PROGRESS_FILE' in os.environ:\n"
        "        pathlib.Path(os.environ['MIDILLM_PROGRESS_FILE']).write_text(str(step))\n" + program
    )
    command = [sys.executable, str(ROOT / "launch" / "supervise.py"), "--wait", "0.1"]
    command += ["--processes", str(processes), "--logs", str(folder / "logs"), *options]
    return subprocess.Popen(
        [*command, "--", sys.executable, "program.py"], cwd=folder, stderr=subprocess.PIPE, text=True
    )


def starts(folder: Path, number: int = 0) -> int:
    return int((folder / f"count{number}").read_text())


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    err = process.communicate(timeout=60)[1]
    return process.returncode, [line for line in err.splitlines() if line.startswith("supervise: ")]


@pytest.mark.parametrize("code", [0, 2, 130])
def test_what_a_person_has_to_mend_is_not_tried_again(tmp_path: Path, code: int) -> None:
    assert ended(supervise(tmp_path, f"sys.exit({code})")) == (code, [])
    assert starts(tmp_path) == 1


def test_a_run_that_gets_on_is_started_again_and_again(tmp_path: Path) -> None:
    """Killed, crashed, preempted, told to try again; each time a step further."""
    program = (
        "done(attempt)\nif attempt == 0: os.kill(os.getpid(), signal.SIGKILL)\nsys.exit([None, 1, 143, 75, 0][attempt])"
    )
    code, said = ended(supervise(tmp_path, program))
    assert code == 0
    assert starts(tmp_path) == 5
    assert "the run was ended by SIGKILL, 0 steps done; starting again in 0.1 s (attempt 2 of 100)" in said[0]
    assert "code 1" in said[1]
    assert "code 143; starting again" in said[2]
    assert "code 75" in said[3]


@pytest.mark.parametrize(("before", "where"), [("", "before its first step was done"), ("done(7)\n", "at step 8")])
def test_it_gives_up_where_a_run_dies_twice_at_one_step(tmp_path: Path, before: str, where: str) -> None:
    code, said = ended(supervise(tmp_path, before + "sys.exit(1)"))
    assert code == 1
    assert starts(tmp_path) == 2
    assert said[-1] == f"supervise: the run ended with code 1, {where}, where it died the time before: giving up"


def test_preemptions_before_the_first_step_are_no_reason_to_give_up(tmp_path: Path) -> None:
    assert ended(supervise(tmp_path, "sys.exit(143 if attempt < 3 else 0)"))[0] == 0
    assert starts(tmp_path) == 4


def test_attempts_are_bounded(tmp_path: Path) -> None:
    code, said = ended(supervise(tmp_path, "done(attempt)\nsys.exit(5)", "--attempts", "3"))
    assert code == 5
    assert starts(tmp_path) == 3
    assert "attempt 3 of 3: giving up" in said[-1]


def test_preemptions_are_bounded_too(tmp_path: Path) -> None:
    code, said = ended(supervise(tmp_path, "sys.exit(143)", "--attempts", "2"))
    assert code == 143
    assert starts(tmp_path) == 2
    assert said[-1] == "supervise: the run ended with code 143; that was attempt 2 of 2: giving up"


@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_ends_all_at_once_and_starts_all_again(tmp_path: Path, victim: int) -> None:
    """The others hang, as they do in a collective; they are not asked, since they could not answer."""
    program = (
        "if attempt: sys.exit(0)\n"
        f"if number == '{victim}': time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "time.sleep(1000)"
    )
    code, said = ended(supervise(tmp_path, program, processes=3))
    assert code == 0
    assert [starts(tmp_path, number) for number in range(3)] == [2, 2, 2]
    assert f"process {victim} of 3 was ended by SIGKILL" in said[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_asks_the_supervisor_to_stop_asks_the_run(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "def stop(signal_number, _):\n"
        "    pathlib.Path(f'asked{number}').touch()\n"
        "    sys.exit(128 + signal_number)\n"
        f"signal.signal({int(number)}, stop)\n"
        "pathlib.Path(f'ready{number}').touch()\n"
        "time.sleep(1000)"
    )
    process = supervise(tmp_path, program, processes=2)
    until(lambda: all((tmp_path / f"ready{each}").exists() for each in range(2)))
    process.send_signal(number)
    assert ended(process) == (128 + number, [])
    assert all((tmp_path / f"asked{each}").exists() for each in range(2))
    assert starts(tmp_path) == 1


def test_a_second_signal_ends_a_run_that_hangs(tmp_path: Path) -> None:
    program = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\npathlib.Path('ready').touch()\ntime.sleep(1000)"
    process = supervise(tmp_path, program)
    until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (128 + signal.SIGKILL, [])


def test_nothing_of_a_run_is_left_behind(tmp_path: Path) -> None:
    """What a process has started, such as workers that make batches, ends with it."""
    program = (
        "import subprocess\n"
        "if attempt: sys.exit(0)\n"
        "if number == '0':\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "    pathlib.Path('child').write_text(str(child.pid))\n"
        "    time.sleep(1000)\n"
        "while not pathlib.Path('child').exists(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert ended(supervise(tmp_path, program, processes=2))[0] == 0
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Killed, but not yet waited for by whoever adopted it.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
