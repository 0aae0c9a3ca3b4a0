"""Processes that build: one that dies, and all of them when the build is stopped."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest


def start(folder: Path, job: str) -> subprocess.Popen[str]:
    """A process of its own that builds ``folder``/out from 400 records with a job of these lines, by two workers."""
    script = folder / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys, time
        from pathlib import Path
        from midillm_jax import commands
        from midillm_jax.data.build import Plan, Runner, build
        from midillm_jax.data.sources import Listing, Record
        from midillm_jax.data.splits import SplitRule

        class Given(list):
            size_bytes = 0
            version = lambda self: ""
            content = lambda self: None

        class Job:
            def __call__(self, record):
        """)
        + textwrap.indent(textwrap.dedent(job), " " * 8)
        + textwrap.dedent("""
        def main(arguments):
            listing = Listing((Given(Record("s", f"{i}.mid", content=b"") for i in range(400)),), "files")
            build(listing, Plan("midi", Job(), SplitRule()), Path(arguments[0]), runner=Runner(2), overwrite=False)

        if __name__ == "__main__":
            commands.run(main)
        """)
    )
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_a_worker_that_dies_is_one_sentence(tmp_path: Path) -> None:
    process = start(tmp_path, "os._exit(9)")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith("error: a worker process ended while preparing 0.mid or one of the records after it")
    assert errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_stopping_a_build_stops_its_workers(tmp_path: Path, by: signal.Signals) -> None:
    """Both pipes end only once every process that holds them has: communicate() would time out otherwise."""
    process = start(tmp_path, f"Path({str(tmp_path / 'working')!r}).touch(); time.sleep(0.1)")
    deadline = time.monotonic() + 30
    while not (tmp_path / "working").exists():
        assert time.monotonic() < deadline, "no worker began"
        time.sleep(0.02)
    if by == signal.SIGINT:
        os.killpg(process.pid, by)  # as a terminal does
    else:
        process.kill()
    _, errors = process.communicate(timeout=30)
    assert not (tmp_path / "out").exists()
    if by == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert not (tmp_path / "out.partial").exists()
