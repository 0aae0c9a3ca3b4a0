#!/usr/bin/env python3
"""Runs a training command, and starts it again when it dies: what launch/local.sh and launch/tpu_vm.sh put around it.

    launch/supervise.py [--attempts N] [--wait SECONDS] [--processes N --logs DIR] -- COMMAND [ARGUMENT ...]

  --attempts N      deaths in all after which it gives up (100)
  --wait SECONDS    pause before the second attempt; it doubles with each, up to five minutes, while the run does not
                    get on (5)
  --processes N     starts the command N times, as processes of one run on this machine, with the variables by which
                    they find each other; process 0 writes to the terminal
  --logs DIR        where the output of processes 1 to N-1 goes, DIR/1.log and so on (logs)

Nothing inside a process can catch its own SIGKILL, and where one of several processes dies the others hang until a
heartbeat is missed. Here the death of one ends all of them within seconds, and all start again from the last
checkpoint.

Exit code 0 ends it, and so do 2 (a mistake that a person has to mend), 130 (Ctrl-C) and, when this program was asked to
stop itself, whatever comes. Everything else (a crash, SIGKILL, 143 after a preemption, 75 for "try again") is tried
again. It gives up, with the reason, when the run died twice in a row at the same step; a preemption is no death.

Needs Python 3.11 and nothing else.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRESS_FILE = "MIDILLM_PROGRESS_FILE"
"""The training loop writes the last step done there (midillm_jax/training/loop.py)."""
FINAL = (0, 2, 130)
PREEMPTED = 128 + signal.SIGTERM
GRACE_SECONDS = 20
"""From the death of one process until the others are killed."""
LONGEST_WAIT = 300.0


def main(arguments: list[str]) -> int:
    """Returns the exit code to end with."""
    options = parse(arguments)
    asked = Signals()
    for number in range(1, options.processes):
        (options.logs / f"{number}.log").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "step"
        died_at: int | None = None
        pause = options.wait
        for attempt in range(1, options.attempts + 1):
            progress.unlink(missing_ok=True)
            code, why = run_once(options, progress, asked)
            if asked.number or code in FINAL:
                return code
            if code == PREEMPTED:  # it was saved, and is no failure of the run
                died_at, pause = None, options.wait
                if attempt == options.attempts:
                    say(f"{why}; that was attempt {attempt} of {options.attempts}: giving up")
                    return code
                say(f"{why}; starting again in {pause:g} s")
                if asked.wait(pause):
                    return 128 + asked.number
                continue
            step = int(progress.read_text() or -1) if progress.exists() else -1
            if step == died_at:
                at = f"at step {step + 1}" if step >= 0 else "before its first step was done"
                say(f"{why}, {at}, where it died the time before: giving up")
                return code
            pause = options.wait if step > (-1 if died_at is None else died_at) else min(2 * pause, LONGEST_WAIT)
            died_at = step
            if attempt == options.attempts:
                say(f"{why}; that was attempt {attempt} of {options.attempts}: giving up")
                return code
            done = f"{step} steps done" if step >= 0 else "no step done"
            say(f"{why}, {done}; starting again in {pause:g} s (attempt {attempt + 1} of {options.attempts})")
            if asked.wait(pause):
                return 128 + asked.number
    return code


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, with ``command`` the list behind ``--``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=100)
    parser.add_argument("--wait", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    parser.add_argument("command", nargs="+", help="behind --")
    options = parser.parse_args(arguments)
    if min(options.attempts, options.processes) < 1 or options.wait < 0:
        parser.error("--attempts and --processes want 1 or more, --wait 0 or more")
    return options


class Signals:
    """SIGINT and SIGTERM to this program are handed on, and end it; a second one kills what has not ended."""

    def __init__(self) -> None:
        self.number = 0
        self.hand_on: Callable[[int], None] = lambda number: None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._catch)

    def _catch(self, number: int, _: object) -> None:
        self.hand_on(signal.SIGKILL if self.number else number)
        self.number = number

    def wait(self, seconds: float) -> bool:
        """Whether a signal came before they were over."""
        until = time.monotonic() + seconds
        while not self.number and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
        return bool(self.number)


def run_once(options: argparse.Namespace, progress: Path, asked: Signals) -> tuple[int, str]:
    """Runs all processes to their end: exit code of the first that failed, and what became of it in words."""
    shared = {PROGRESS_FILE: str(progress)}
    if options.processes > 1:
        shared |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(options.processes)}
    processes = [start(number, options, shared) for number in range(options.processes)]

    def hand_on(number: int) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    asked.hand_on = hand_on
    if asked.number:
        hand_on(asked.number)
    first: tuple[int, int] | None = None
    kill_at = float("inf")
    # A list, as every process has to be asked.
    while None in [process.poll() for process in processes]:
        if first is None:
            first = next(((n, p.returncode) for n, p in enumerate(processes) if p.returncode), None)
            if first is not None:
                # One that ended in order has told the others why; of one that was killed they know nothing.
                kill_at = time.monotonic() + (GRACE_SECONDS if first[1] > 0 else 0)
        if time.monotonic() > kill_at:
            hand_on(signal.SIGKILL)
        time.sleep(0.05)
    asked.hand_on = lambda number: None
    if first is None:
        first = next(((n, p.returncode) for n, p in enumerate(processes) if p.returncode), (0, 0))
    number, code = first
    who = f"process {number} of {options.processes}" if options.processes > 1 else "the run"
    others = f" (the others wrote to {options.logs}/)" if options.processes > 1 else ""
    if code < 0:
        return 128 - code, f"{who} was ended by {signal.Signals(-code).name}{others}"
    return code, f"{who} ended with code {code}{others}"


def start(number: int, options: argparse.Namespace, shared: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts process ``number`` in a group of its own, so that what it starts can be ended with it."""
    environment = os.environ | shared
    if options.processes > 1:
        environment["JAX_PROCESS_ID"] = str(number)
    if number == 0:
        return subprocess.Popen(options.command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    del environment[PROGRESS_FILE]
    options.logs.mkdir(parents=True, exist_ok=True)
    with (options.logs / f"{number}.log").open("ab") as log:
        return subprocess.Popen(
            options.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def free_port() -> int:
    """One that nothing listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def say(sentence: str) -> None:
    """To the person at the terminal."""
    print(f"supervise: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
