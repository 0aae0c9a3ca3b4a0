import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest

from midillm_jax.config import Config
from midillm_jax.training import run_log
from midillm_jax.training.loop import train
from midillm_jax.training.stopping import Stop
from midillm_jax.training.weights import load_params


class Metadata(ThreadingHTTPServer):
    """Answers as Google's metadata server does to a request that waits for a change."""

    def __init__(self) -> None:
        self.preempted = threading.Event()
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.headers["Metadata-Flavor"] != "Google":
            self.send_error(403)
            return
        self.server.preempted.wait(60 if "wait_for_change=true" in self.path else 0)
        content = b"TRUE" if self.server.preempted.is_set() else b"FALSE"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    server = Metadata()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    yield server
    server.preempted.set()
    server.shutdown()
    server.server_close()


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def test_the_platforms_notice_is_a_request_to_stop(metadata: Metadata) -> None:
    with Stop() as stop:
        until(lambda: bool(metadata.asked))
        assert metadata.asked[0].startswith("/computeMetadata/v1/instance/preempted?wait_for_change=true")
        assert stop.asked == 0
        metadata.preempted.set()
        until(lambda: stop.asked == signal.SIGTERM)


def test_nothing_is_asked_where_there_is_no_such_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.delenv("TPU_WORKER_ID", raising=False)
    before = threading.active_count()
    with Stop():
        assert threading.active_count() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Stop() as stop:
        os.kill(os.getpid(), number)
        until(lambda: bool(stop.asked))
        assert stop.asked == number
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once() -> None:
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_preempted_run_saves_and_goes_on_as_if_nothing_had_been(run: Config, metadata: Metadata) -> None:
    whole = Path(f"{run.folder}-whole")
    log = Path(run.folder) / run_log.FILE

    def preempt() -> None:
        until(log.exists)
        metadata.preempted.set()

    watcher = threading.Thread(target=preempt)
    watcher.start()
    long = dataclasses.replace(run, steps=40)
    with pytest.raises(SystemExit) as ended:
        train(long)
    watcher.join()
    assert ended.value.code == 143
    saved = max(int(path.name) for path in (Path(run.folder) / "checkpoints").iterdir() if path.name.isdigit())
    assert saved < 40

    metadata.preempted.clear()
    train(long)
    train(dataclasses.replace(long, run_dir=str(whole)))

    def rows(folder: Path) -> list[dict[str, str]]:
        found = run_log.read(folder / run_log.FILE)
        return [{name: value for name, value in row.items() if name not in run_log.TIMES} for row in found]

    assert rows(Path(run.folder)) == rows(whole)
    jax.tree.map(np.testing.assert_array_equal, load_params(run.folder)[1], load_params(str(whole))[1])
