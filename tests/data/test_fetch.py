"""Fetching against a server on this machine that cuts connections, lies, changes its mind and sends wrong bytes."""

import dataclasses
import hashlib
import http.server
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midillm_jax.data.fetch import RemoteFile, _checksum, download, fetch, published
from midillm_jax.errors import UserError

DATA = random.Random(0).randbytes(3_000_000)
"""Three times what is read at once."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclasses.dataclass
class Act:
    """How the server answers one request for a file."""

    cut: int | None = None
    """Closes the connection after so many bytes."""
    ignore_range: bool = False
    ignore_if_range: bool = False
    """Goes on with whatever it has, whether or not the client's part is of the same version."""
    status: int = 0
    """Answers nothing but this."""
    redirect: str = ""
    lengthless: bool = False
    """Does not say how much is to come."""
    hold: threading.Event | None = None
    """With ``cut``: waits for it before the connection is closed."""


class Server(http.server.ThreadingHTTPServer):
    """Holds files and a script of acts, one a request for a file; afterwards it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.documents: dict[str, object] = {}
        """What the Hub's API answers."""
        self.validators: dict[str, tuple[str, str]] = {}
        self.acts: deque[Act] = deque()
        self.asked: list[tuple[str, int]] = []
        """(path, byte to start from) of each request for a file."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what these tests are about."""

    def remote(self, name: str, data: bytes, **changes: object) -> RemoteFile:
        """The file as its publisher would describe it, and served."""
        self.files[f"/{name}"] = data
        file = RemoteFile(name, f"{self.url}/{name}", len(data), "SHA-256", hashlib.sha256(data).hexdigest())
        return dataclasses.replace(file, **changes)

    def hub(self, repository: str, files: dict[str, bytes], in_git: tuple[str, ...] = ()) -> None:
        """Serves a data set as the Hub does."""
        tree: list[dict[str, object]] = [{"type": "directory", "path": "data", "size": 0, "oid": "0" * 40}]
        for path, data in files.items():
            self.files[f"/datasets/{repository}/resolve/{COMMIT}/{path}"] = data
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": blob}
            if path not in in_git:
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            tree.append(entry)
        self.documents[f"/api/datasets/{repository}/revision/main"] = {"sha": COMMIT}
        self.documents[f"/api/datasets/{repository}/tree/{COMMIT}?recursive=true"] = tree


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path in self.server.documents:
            document = self.server.documents[self.path]
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.answer(200, {"Content-Length": str(len(body))})
            self.wfile.write(body)
            return
        start = int(re.sub(r"\D", "", self.headers.get("Range", "0")))
        self.server.asked.append((self.path, start))
        act = self.server.acts.popleft() if self.server.acts else Act()
        if act.redirect:
            self.answer(302, {"Location": act.redirect})
            return
        data = self.server.files.get(self.path)
        if act.status or data is None:
            self.answer(act.status or 404, {"Content-Length": "0"})
            return
        strong = f'"{hashlib.md5(data).hexdigest()}"'
        name, validator = self.server.validators.get(self.path, ("ETag", strong))
        same = act.ignore_if_range or self.headers.get("If-Range") == validator
        headers = {name: validator} if validator else {}
        if start and same and not act.ignore_range:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
            self.answer(206, headers | {"Content-Length": str(len(data))})
        else:
            self.answer(200, headers if act.lengthless else headers | {"Content-Length": str(len(data))})
        self.wfile.write(data[: act.cut])
        self.wfile.flush()
        if act.hold:
            act.hold.wait(30)

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def get(tmp_path: Path) -> Callable[[RemoteFile], Path]:
    """Downloads into tmp_path without waiting between attempts."""
    return lambda file: download(file, tmp_path, lambda have: None, wait=lambda seconds: None)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_and_nothing_is_left_beside_it(server, get, tmp_path) -> None:
    seen: list[int] = []
    file = server.remote("music.tar.gz", DATA)
    assert download(file, tmp_path, seen.append) == tmp_path / "music.tar.gz"
    assert (tmp_path / "music.tar.gz").read_bytes() == DATA
    assert left(tmp_path) == ["music.tar.gz"]
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)


@pytest.mark.parametrize("seed", range(5))
def test_cut_connections_go_on_where_they_were(server, get, tmp_path, seed) -> None:
    rng = random.Random(seed)
    server.acts.extend(Act(cut=rng.choice([0, 1, rng.randrange(1_500_000)])) for _ in range(6))
    file = server.remote("music.tar.gz", DATA)
    cuts = [act.cut for act in server.acts]
    assert get(file).read_bytes() == DATA
    reached = [sum(cuts[:index]) for index in range(len(server.asked))]
    assert [start for _, start in server.asked] == reached  # every byte was asked for once
    assert len(server.asked) > 3
    assert left(tmp_path) == ["music.tar.gz"]


def test_a_server_that_falls_silent_is_asked_again(server, get, monkeypatch) -> None:
    monkeypatch.setattr("midillm_jax.data.fetch._TIMEOUT_SECONDS", 0.3)
    silence = threading.Event()
    server.acts.append(Act(cut=1_000_000, hold=silence))
    assert get(server.remote("music.tar.gz", DATA)).read_bytes() == DATA
    silence.set()
    assert [path for path, _ in server.asked] == ["/music.tar.gz"] * 2


def test_a_server_that_knows_no_ranges_starts_again(server, get) -> None:
    server.acts.extend([Act(cut=1_000_000), Act(cut=2_000_000, ignore_range=True), Act(ignore_range=True)])
    assert get(server.remote("music.tar.gz", DATA)).read_bytes() == DATA
    assert [start for _, start in server.asked] == [0, 1_000_000, 2_000_000]


def test_a_server_that_knows_no_ranges_and_always_cuts_is_given_up(server, get, tmp_path) -> None:
    server.acts.extend([Act(cut=1_000_000, ignore_range=True)] * 50)
    with pytest.raises(UserError, match=r"cut.*1,000,000 of 3,000,000 bytes are kept"):
        get(server.remote("music.tar.gz", DATA))
    assert len(server.asked) == 9


def test_as_long_as_something_comes_it_goes_on(server, get) -> None:
    """More cuts than attempts in vain are allowed."""
    server.acts.extend([Act(cut=100_000)] * 20)
    assert get(server.remote("music.tar.gz", DATA)).read_bytes() == DATA
    assert len(server.asked) == 21


@pytest.mark.parametrize("honest", [True, False], ids=["answers 200", "answers 206 for the new file"])
def test_two_versions_of_a_file_are_never_joined(server, tmp_path, honest) -> None:
    """The file is replaced, at the same size, after half of the old one came."""
    new = random.Random(1).randbytes(len(DATA))
    server.acts.extend([Act(cut=1_500_000), Act(ignore_if_range=not honest)])
    file = server.remote("music.tar.gz", DATA, checksum=hashlib.sha256(new).hexdigest())

    def replaced(seconds: float) -> None:
        server.files["/music.tar.gz"] = new

    assert download(file, tmp_path, lambda have: None, wait=replaced).read_bytes() == new
    assert [start for _, start in server.asked] == [0, 1_500_000] + ([] if honest else [0])


@pytest.mark.parametrize(
    ("name", "validator", "resumes"),
    [
        ("ETag", '"abc"', True),
        ("ETag", 'W/"abc"', False),
        ("Last-Modified", "Tue, 24 Nov 2026 10:00:00 GMT", True),
        ("", "", False),
    ],
)
def test_going_on_needs_something_that_names_the_version(server, get, name, validator, resumes) -> None:
    server.acts.append(Act(cut=1_000_000))
    file = server.remote("music.tar.gz", DATA)
    server.validators["/music.tar.gz"] = (name, validator)
    assert get(file).read_bytes() == DATA
    assert [start for _, start in server.asked] == [0, 1_000_000 if resumes else 0]


def test_a_part_of_another_version_is_not_gone_on_from(server, get, tmp_path) -> None:
    """Left by an earlier command, of a file whose checksum was another."""
    file = server.remote("music.tar.gz", DATA)
    (tmp_path / "music.tar.gz.partial").write_bytes(b"old" * 1000)
    state = {"validator": f'"{hashlib.md5(DATA).hexdigest()}"', "checksum": "0" * 64}
    (tmp_path / "music.tar.gz.partial.json").write_text(json.dumps(state))
    assert get(file).read_bytes() == DATA
    assert server.asked == [("/music.tar.gz", 0)]


@pytest.mark.parametrize("state", ["", "[]", '{"validator": 3}'], ids=["empty", "list", "no checksum"])
def test_a_part_of_unknown_origin_is_not_gone_on_from(server, get, tmp_path, state) -> None:
    (tmp_path / "music.tar.gz.partial").write_bytes(DATA[:1000])
    (tmp_path / "music.tar.gz.partial.json").write_text(state)
    assert get(server.remote("music.tar.gz", DATA)).read_bytes() == DATA
    assert server.asked == [("/music.tar.gz", 0)]


def test_wrong_bytes_are_deleted_and_said(server, get, tmp_path) -> None:
    file = server.remote("music.tar.gz", DATA)
    server.files["/music.tar.gz"] = DATA[:-1] + b"?"
    with pytest.raises(UserError, match=r"SHA-256 .* has been deleted: run the same command again"):
        get(file)
    assert left(tmp_path) == []


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_refused_before_it_is_received(server, get, tmp_path, change) -> None:
    file = server.remote("music.tar.gz", DATA)
    with pytest.raises(UserError, match="the server's file has 3000000 bytes"):
        get(dataclasses.replace(file, size=len(DATA) + change))
    assert left(tmp_path) == []


def test_a_server_that_does_not_say_how_much_comes(server, get, tmp_path) -> None:
    server.acts.extend([Act(lengthless=True), Act(lengthless=True)])
    file = server.remote("music.tar.gz", DATA)
    assert get(file).read_bytes() == DATA
    with pytest.raises(UserError, match=r"more than the published 2,999,999 bytes came; they have been deleted"):
        get(dataclasses.replace(file, name="other.tar.gz", size=len(DATA) - 1))
    assert left(tmp_path) == ["music.tar.gz"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_another_try_cannot_mend_is_said_at_once(server, get, status) -> None:
    server.acts.append(Act(status=status))
    with pytest.raises(UserError, match=rf"music\.tar\.gz: the server answered {status}"):
        get(server.remote("music.tar.gz", DATA))
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_for_longer_and_longer(server, tmp_path, status) -> None:
    server.acts.extend([Act(status=status)] * 8)
    waits: list[float] = []
    file = server.remote("music.tar.gz", DATA)
    assert download(file, tmp_path, lambda have: None, waits.append).read_bytes() == DATA
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_lasting_trouble_is_given_up_and_what_came_is_kept(server, get, tmp_path) -> None:
    server.acts.extend([Act(cut=1_000_000), *[Act(status=503)] * 20])
    file = server.remote("music.tar.gz", DATA)
    with pytest.raises(UserError, match=r"503.*1,000,000 of 3,000,000 bytes are kept in .*music\.tar\.gz\.partial"):
        get(file)
    assert left(tmp_path) == ["music.tar.gz.partial", "music.tar.gz.partial.json"]
    server.acts.clear()
    assert get(file).read_bytes() == DATA
    assert server.asked[-1] == ("/music.tar.gz", 1_000_000)


def test_redirects_are_followed_with_the_range(server, get) -> None:
    file = server.remote("stored", DATA)
    asked = dataclasses.replace(file, name="music.tar.gz", url=f"{server.url}/resolve")
    server.acts.extend([Act(redirect="/stored"), Act(cut=500_000), Act(redirect="/stored"), Act()])
    assert get(asked).read_bytes() == DATA
    assert server.asked[-1] == ("/stored", 500_000)


def test_git_hashes_the_length_too(tmp_path) -> None:
    """The value is git's own: ``echo hello | git hash-object --stdin``."""
    (tmp_path / "a").write_bytes(b"hello\n")
    assert _checksum(tmp_path / "a", "git SHA-1") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_lakh_is_known_without_asking_anybody() -> None:
    (file,) = published("lakh").files
    assert file.url == "http://hog.ee.columbia.edu/craffel/lmd/lmd_full.tar.gz"
    assert (file.size, len(file.checksum)) == (1_768_163_879, 64)
    (elsewhere,) = published("lakh", "http://127.0.0.1/copies/").files
    assert elsewhere == dataclasses.replace(file, url="http://127.0.0.1/copies/lmd_full.tar.gz")


MIDICAPS = {"README.md": b"# MidiCaps", "midicaps.tar.gz": DATA, "train.json": b'{"location": "a.mid"}\n'}
MUSICPILE = {f"data/train-{part:05d}-of-00003.parquet": DATA[part : part + 1000] for part in range(3)}


def test_the_hub_says_what_there_is(server) -> None:
    server.hub("amaai-lab/MidiCaps", MIDICAPS, in_git=("README.md", "train.json"))
    captions = published("midicaps", server.url)
    assert [(file.name, file.size, file.algorithm) for file in captions.files] == [
        ("midicaps.tar.gz", len(DATA), "SHA-256"),
        ("train.json", 22, "git SHA-1"),
    ]
    assert COMMIT[:12] in captions.known_from
    server.hub("m-a-p/MusicPile", {**MUSICPILE, "other/train.parquet": b"", "README.md": b""})
    assert [file.name for file in published("musicpile", server.url).files] == [Path(path).name for path in MUSICPILE]


@pytest.mark.parametrize("answer", [b"<html>Sign in</html>", b"[]", b'[{"type": "file", "path": "train.json"}]'])
def test_a_hub_that_is_none_is_told_by_its_answer(server, answer) -> None:
    server.hub("amaai-lab/MidiCaps", MIDICAPS)
    server.documents[f"/api/datasets/amaai-lab/MidiCaps/tree/{COMMIT}?recursive=true"] = answer
    with pytest.raises(UserError, match=r"list of files|0 of the expected files"):
        published("midicaps", server.url)


def test_what_is_there_and_right_is_left_alone(server, tmp_path, capsys) -> None:
    server.hub("amaai-lab/MidiCaps", MIDICAPS)
    (tmp_path / "train.json").write_bytes(MIDICAPS["train.json"])
    before = (tmp_path / "train.json").stat().st_mtime_ns
    fetch("midicaps", tmp_path, yes=True, mirror=server.url)
    assert [Path(path).name for path, _ in server.asked] == ["midicaps.tar.gz"]
    fetch("midicaps", tmp_path, yes=True, mirror=server.url)
    assert len(server.asked) == 1
    assert (tmp_path / "train.json").stat().st_mtime_ns == before
    assert "2 files, which are right" in capsys.readouterr().out
    assert left(tmp_path) == ["midicaps.tar.gz", "train.json"]


def test_a_file_of_that_name_that_is_another_is_not_replaced(server, tmp_path) -> None:
    server.hub("amaai-lab/MidiCaps", MIDICAPS)
    (tmp_path / "train.json").write_bytes(b"my own notes")
    with pytest.raises(UserError, match=r"train\.json is not the file that is published"):
        fetch("midicaps", tmp_path, yes=True, mirror=server.url)
    assert (tmp_path / "train.json").read_bytes() == b"my own notes"
    assert not server.asked


def test_a_full_disk_is_seen_before_anything_comes(server, tmp_path) -> None:
    server.hub("amaai-lab/MidiCaps", MIDICAPS)
    server.documents[f"/api/datasets/amaai-lab/MidiCaps/tree/{COMMIT}?recursive=true"][2]["size"] = 10**18
    with pytest.raises(UserError, match=r"1\.0 EB are to come .* are free"):
        fetch("midicaps", tmp_path / "new", yes=True, mirror=server.url)
    assert not server.asked
    assert not (tmp_path / "new").exists()


# ----------------------------------------------------------------------------------------- the command, as a process


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "midillm_jax.prepare", "fetch", *arguments]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, text=True, **options)


def test_the_command_fetches_over_a_bad_line(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.hub("amaai-lab/MidiCaps", MIDICAPS)
    server.acts.extend([Act(cut=700_000), Act(status=500)])
    done = start("midicaps", "--out", str(tmp_path / "out"), "--yes")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, "")
    assert "3.0 MB in 2 files" in out
    assert "CC BY-SA 4.0" in out
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        name: MIDICAPS[name] for name in ("midicaps.tar.gz", "train.json")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lakh"], "add --yes to get lakh"),
        (["gigamidi", "--yes"], "hf download Metacreation/GigaMIDI"),
        (["lakh", "--yes", "--mirror", "{url}"], "lmd_full.tar.gz: the server answered 404"),
        (
            ["lakh", "--yes", "--mirror", "{url}/small"],
            "the server's file has 5 bytes, the published one 1,768,163,879",
        ),
        (["lakh", "--yes", "--mirror", "elsewhere"], "an address begins with http"),
        (["musicpile", "--yes", "--mirror", "{url}"], "the server answered 404"),
    ],
)
def test_the_command_says_in_a_sentence_what_is_wrong(server, tmp_path, arguments, message) -> None:
    server.files["/small/lmd_full.tar.gz"] = b"small"
    done = start(*[part.format(url=server.url) for part in arguments], "--out", str(tmp_path / "out"))
    _, err = done.communicate(timeout=60)
    assert done.returncode == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists() or left(tmp_path / "out") == []


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_the_command_asks_at_a_terminal(server, tmp_path, answer) -> None:
    server.hub("m-a-p/MusicPile", MUSICPILE)
    ours, theirs = pty.openpty()
    done = start("musicpile", "--out", str(tmp_path / "out"), "--mirror", server.url, stdin=theirs)
    os.write(ours, f"{answer}\n".encode())
    out, err = done.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, err) == (0, "")
    assert "Fetch? [y/N]" in out
    assert (tmp_path / "out").exists() == (answer == "y")
    assert len(server.asked) == (3 if answer == "y" else 0)


def test_ctrl_c_leaves_a_part_that_the_next_command_goes_on_from(server, tmp_path) -> None:
    server.hub("amaai-lab/MidiCaps", MIDICAPS)
    release = threading.Event()
    server.acts.append(Act(cut=2_000_000, hold=release))
    arguments = ("midicaps", "--out", str(tmp_path), "--yes", "--mirror", server.url)
    running = start(*arguments)
    partial = tmp_path / "midicaps.tar.gz.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size >= 1_000_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    release.set()
    assert running.returncode == 130
    assert "the same command goes on where this one was" in err
    kept = partial.stat().st_size
    assert 1_000_000 <= kept <= 2_000_000
    again = start(*arguments)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert server.asked[1] == (server.asked[0][0], kept)
    assert (tmp_path / "midicaps.tar.gz").read_bytes() == DATA
    assert left(tmp_path) == ["midicaps.tar.gz", "train.json"]
