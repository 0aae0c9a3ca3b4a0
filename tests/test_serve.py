"""The command: what it says, where it listens, how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from midillm_jax import commands, serve
from tests.serving.parts import make_folder, wait_until

PATIENCE = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def signals_as_they_were() -> Iterator[None]:
    """The command sets what SIGTERM does in this process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--port", "{taken}"], "127.0.0.1 port {taken}: cannot listen there (Address already in use)"),
        (["--host", "192.0.2.1", "--port", "0"], "192.0.2.1 port 0: cannot listen there"),
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["--no-api", "--max-prompt", "0"], "--max-prompt is 0; expected 1 or more"),
        (["--max-waiting", "3"], "--max-waiting is 3; expected --max-outputs or more"),
        (["--timeout", "0"], "--timeout is 0.0; expected a finite number of seconds above 0"),
        (["--max-waitign", "3"], "did you mean --max-waiting?"),
    ],
)
def test_mistakes_end_with_one_sentence_before_anything_listens(
    model: Path,
    taken: int,
    signals_as_they_were: None,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    arguments = ["--api", "--model", str(model), "--port", "0", *(each.format(taken=taken) for each in more)]
    with pytest.raises(SystemExit) as ended:
        commands.run(serve.main, arguments)
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert said.format(taken=taken) in shown.err
    assert len([line for line in shown.err.splitlines() if line.startswith("error: ")]) == 1
    assert not shown.out


class Process:
    """The command in a process of its own."""

    def __init__(self, model: Path, *more: str) -> None:
        command = [sys.executable, "-m", "midillm_jax.serve", "--api", "--model", str(model), "--port", "0", *more]
        self.run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.run.stdout is not None
        self.line = self.run.stdout.readline()
        self.url = self.line.partition(" ")[0]

    def end(self, by: signal.Signals) -> tuple[int, str]:
        """Exit code and stderr."""
        self.run.send_signal(by)
        _, errors = self.run.communicate(timeout=PATIENCE)
        return self.run.returncode, errors

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self.run.kill()
        self.run.communicate()


def test_sigterm_lets_what_is_asked_end_and_takes_nothing_more(model: Path) -> None:
    answers: list[httpx.Response] = []
    with Process(model, "--grace", "300") as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        assert process.line.endswith(f"serves {model.name} on jax; {process.url}/docs says how to ask\n")
        assert client.get("/health").json() == {"status": "ok"}
        asked = threading.Thread(target=lambda: answers.append(client.post("/v1/music", json={"max_notes": 5})))
        asked.start()
        wait_until(lambda: begun(client.get("/metrics").text), "the engine has the request")
        code, errors = process.end(signal.SIGTERM)
        asked.join(PATIENCE)
        assert (code, errors) == (0, "")
        assert answers[0].status_code == 200
        assert 1 <= answers[0].json()["pieces"][0]["notes"] <= 5
        with pytest.raises(httpx.ConnectError):
            client.get("/health")


def begun(metrics: str) -> bool:
    """Whether a request is in the engine, or was: its first takes some seconds to compile."""
    samples = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    names = ("midillm_sequences_waiting", "midillm_sequences_running", "midillm_tokens_total")
    return any(float(samples[name]) > 0 for name in names)


@pytest.mark.slow
def test_ctrl_c_is_130_and_what_the_grace_does_not_suffice_for_is_answered(model: Path) -> None:
    answers: list[httpx.Response] = []
    with Process(model, "--grace", "0") as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        asked = threading.Thread(target=lambda: answers.append(client.post("/v1/music", json={"n": 8})))
        asked.start()
        wait_until(lambda: begun(client.get("/metrics").text), "the engine has the request")
        code, errors = process.end(signal.SIGINT)
        asked.join(PATIENCE)
    assert code == 130
    assert "stopped; " in errors
    assert "Traceback" not in errors
    # An engine that has compiled all before may be done that soon.
    assert answers[0].status_code == 200 or (answers[0].status_code, answers[0].json()) == (
        503,
        {"detail": "the server is stopping"},
    )


@pytest.mark.slow
def test_sigterm_while_the_model_loads_is_a_clean_end_too(model: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "model" / "config.json"  # reading it waits for whoever writes
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "midillm_jax.serve", "--api", "--model", str(fifo.parent), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        with fifo.open("w"):  # opens when the other side has
            run.send_signal(signal.SIGTERM)
            out, errors = run.communicate(timeout=PATIENCE)
        assert (run.returncode, out, errors) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lacking", "option", "extra"), [("fastapi", "--api", "serve"), ("gradio", "--no-api", "page")]
)
def test_without_the_extra_one_sentence_says_what_to_install(
    model: Path, lacking: str, option: str, extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{lacking!r}] = None\n"
        "from midillm_jax import commands, serve\n"
        f"commands.run(serve.main, [{option!r}, '--model', {str(model)!r}, '--port', '0'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert f"pip install 'midillm_jax[{extra}]'" in done.stderr


def test_without_gradio_the_extra_that_brings_the_page_is_named(tmp_path: Path) -> None:
    """Nor fastapi, which the page and the API both need."""
    block = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('gradio', 'fastapi'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'gradio' else found(name, *rest)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from midillm_jax import commands, serve\n"
        "commands.run(serve.main, [])\n"
    )
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "pip install 'midillm_jax[page]'" in done.stderr
