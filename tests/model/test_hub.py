"""Models by name, from a stand-in for the Hub on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from midillm_jax.errors import UserError
from midillm_jax.model import hub
from tests.model import hub_server

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"a pickle" * 1000,
    "LICENSE.txt": b"as is",
    "README.md": b"a card",
}


@pytest.fixture
def server() -> Iterator[hub_server.Hub]:
    with hub_server.running({"one/model": dict(FILES)}) as running:
        yield running


def asked_for(name: str, home: Path, endpoint: str, offline: str = "0") -> "subprocess.CompletedProcess[str]":
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    program = (
        "import sys; from midillm_jax import commands; from midillm_jax.model import hub; "
        "commands.run(lambda arguments: print(hub.local_folder(arguments[0])))"
    )
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
    return subprocess.run(
        [sys.executable, "-c", program, name], capture_output=True, text=True, env=environment, check=False
    )


def test_a_model_is_fetched_once_and_what_is_fetched_is_said(server: hub_server.Hub, tmp_path: Path) -> None:
    done = asked_for("one/model", tmp_path, server.endpoint)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    # No pickle, and no card.
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in ("config.json", "model.safetensors", "LICENSE.txt")
    }
    assert f"one/model: fetching 0.00 GB in 3 files from {server.endpoint} into {tmp_path / 'hub'}" in done.stderr
    server.asked.clear()
    again = asked_for("one/model", tmp_path, server.endpoint)
    assert again.stdout == done.stdout
    assert "fetching" not in again.stderr
    assert not [path for path in server.asked if "resolve" in path]
    offline = asked_for("one/model", tmp_path, "http://127.0.0.1:9", offline="1")
    assert offline.stdout == done.stdout


@pytest.mark.parametrize(
    ("name", "offline", "said"),
    [
        ("gated/model", "0", "accepted its licence"),
        ("no/body", "0", "neither a folder here nor a repository that"),
        ("one/model", "1", "HF_HUB_OFFLINE forbids to fetch it"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    server: hub_server.Hub, tmp_path: Path, name: str, offline: str, said: str
) -> None:
    done = asked_for(name, tmp_path, server.endpoint, offline)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_a_hub_that_is_not_reached_is_one_sentence(tmp_path: Path) -> None:
    done = asked_for("one/model", tmp_path, "http://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: one/model: neither a folder here nor to be had from the Hub")


def test_paths_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that looks like a name, if there is a folder for it to be in: a run that was misspelt, say."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/stage1", "nowhere", "a/b/c", str(tmp_path / "x"), "./y"):
        assert hub.local_folder(name) == Path(name)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        hub.local_folder("models/stage1")
