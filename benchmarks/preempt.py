"""How long does a run take to notice that a process is taken away, and to be at work again?

    python benchmarks/preempt.py --out preempt             # some ten minutes; Linux

Trains the demo's first stage as two processes of this machine under launch/supervise.py. Again and again one of them,
the coordinator in every second case, gets SIGTERM, as a preemption gives, or SIGKILL. Measured by the wall clock: until
both processes are gone, and until the run, started again, has logged steps beyond those that it had then. Prints a
table of medians and of the longest; a run that does not come back is an error. The data are those of
benchmarks/kill.py, made in the same folder.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kill import ENVIRONMENT, command, prepare

from midillm_jax.training import run_log

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2
LONGEST = 300.0
"""Seconds after which a run has not come back."""


def processes(supervisor: int) -> dict[int, int]:
    """Process number -> pid of what a supervisor started."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            variables = place.joinpath("environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        for number in range(PROCESSES):
            if parent == supervisor and b"JAX_PROCESS_ID=%d" % number in variables:
                found[number] = int(place.name)
    return found


def until(true: Callable[[], bool], what: str, supervisor: "subprocess.Popen[bytes]") -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    while not true():
        if supervisor.poll() is not None:
            sys.exit(f"the supervisor ended with code {supervisor.returncode}; its words are in the folder")
        if time.monotonic() - began > LONGEST:
            sys.exit(f"{what} did not happen within {LONGEST:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - began


def logged(run: Path) -> int:
    """Last step of the log."""
    return max((int(row["step"]) for row in run_log.read(run / run_log.FILE)), default=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--times", type=int, default=5, help="how often for each signal and process")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    prepare(out)
    run = out / f"preempted-{os.getpid()}"
    train = [*command(run, out, 0), "--steps=100000", "--data.text-rows=2"]
    start = [sys.executable, str(ROOT / "launch" / "supervise.py"), "--processes", str(PROCESSES), "--wait", "1"]
    start += ["--logs", str(run.with_suffix(".logs")), "--", *train]
    environment = ENVIRONMENT | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    results: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with run.with_suffix(".txt").open("wb") as log:
        supervisor = subprocess.Popen(start, env=environment, stdout=log, stderr=log)
        try:
            for turn in range(4 * arguments.times):
                number, kind = turn % 2, (signal.SIGTERM, signal.SIGKILL)[turn // 2 % 2]
                had = logged(run)
                until(lambda had=had: logged(run) > had, "a step", supervisor)
                victims = processes(supervisor.pid)
                os.kill(victims[number], kind)
                before = set(victims.values())
                gone = until(
                    lambda pids=before: not pids & set(processes(supervisor.pid).values()), "an end", supervisor
                )
                had = logged(run)
                back = gone + until(lambda had=had: logged(run) > had, "a step after the restart", supervisor)
                results.setdefault((kind.name, number), []).append((gone, back))
                print(
                    f"{kind.name} to process {number}: gone {gone:.1f} s, back {back:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            supervisor.send_signal(signal.SIGTERM)
            supervisor.wait()
    print("| signal | to | times | both gone, s (longest) | at work again, s (longest) |\n|---|---|---|---|---|")
    for (kind_name, number), times in sorted(results.items()):
        gone_times, back_times = zip(*times, strict=True)
        who = "process 0, the coordinator" if number == 0 else f"process {number}"
        print(
            f"| {kind_name} | {who} | {len(times)} | {statistics.median(gone_times):.1f} ({max(gone_times):.1f}) "
            f"| {statistics.median(back_times):.1f} ({max(back_times):.1f}) |"
        )


if __name__ == "__main__":
    main()
