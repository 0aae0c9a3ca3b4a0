"""Models by name, from a stand-in for the Hub on this machine that speaks as much of its API as is asked for."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from midillm_jax.errors import UserError
from midillm_jax.model import hub

COMMIT = "c" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"a pickle" * 1000,
    "LICENSE.txt": b"as is",
    "README.md": b"a card",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """one/model is public, one/gated wants its licence accepted, nothing else is there."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        if self.command == "GET":
            self.asked.append(path)
        if "one/gated" in path:
            self.send(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")
        elif path.startswith("/api/models/one/model/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in FILES.items()
            ]
            self.send(200, json.dumps(entries).encode(), Content_Type="application/json")
        elif path.startswith("/api/models/one/model"):
            names = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            answer = {"_id": "1", "id": "one/model", "sha": COMMIT, "siblings": names}
            self.send(200, json.dumps(answer).encode(), Content_Type="application/json")
        elif path.startswith("/one/model/resolve/"):
            data = FILES[path.rpartition("/")[2]]
            self.send(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)
        else:
            self.send(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")

    do_HEAD = do_GET


@pytest.fixture
def server() -> Iterator[str]:
    Hub.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


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


def test_a_model_is_fetched_once_and_what_is_fetched_is_said(server: str, tmp_path: Path) -> None:
    done = asked_for("one/model", tmp_path, server)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    # No pickle, and no card.
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in ("config.json", "model.safetensors", "LICENSE.txt")
    }
    assert f"one/model: fetching 0.00 GB in 3 files from {server} into {tmp_path / 'hub'}" in done.stderr
    Hub.asked.clear()
    again = asked_for("one/model", tmp_path, server)
    assert again.stdout == done.stdout
    assert "fetching" not in again.stderr
    assert not [path for path in Hub.asked if "resolve" in path]
    offline = asked_for("one/model", tmp_path, "http://127.0.0.1:9", offline="1")
    assert offline.stdout == done.stdout


@pytest.mark.parametrize(
    ("name", "offline", "said"),
    [
        ("one/gated", "0", "accepted its licence"),
        ("no/body", "0", "neither a folder here nor a repository that"),
        ("one/model", "1", "HF_HUB_OFFLINE forbids to fetch it"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(server: str, tmp_path: Path, name: str, offline: str, said: str) -> None:
    done = asked_for(name, tmp_path, server, offline)
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
