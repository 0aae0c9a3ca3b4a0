"""The whole command on inputs at the Hugging Face Hub and in Google Cloud Storage, as stand-ins on this machine.

The Hub's stand-in speaks as much of its API as huggingface_hub asks for; the bucket's is gcp-storage-emulator.
"""

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import mido
import pyarrow
import pyarrow.parquet
import pytest

from midillm_jax.text.tokenizer import train_sentencepiece
from tests import bucket_server, http_answers

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


def prepare(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "midillm_jax.prepare", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parquet(texts: list[str]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(len(texts))), "text": texts}), stream)
    return stream.getvalue()


class Hub(http_answers.Handler):
    """One public data set and one that is gated."""

    name = "m-a-p/MusicPile"
    files: dict[str, bytes]

    def entry(self, path: str) -> dict[str, object]:
        data = self.files[path]
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def listing(self, folder: str, recursive: bool) -> list[dict[str, object]]:
        below = [name for name in sorted(self.files) if name.startswith(f"{folder}/" if folder else "")]
        deeper = {name[: name.index("/", len(folder) + 1)] for name in below if "/" in name[len(folder) + 1 :]}
        folders = [{"type": "directory", "path": name, "size": 0, "oid": "0"} for name in sorted(deeper)]
        direct = [name for name in below if recursive or "/" not in name[len(folder) + 1 :]]
        return [*folders, *map(self.entry, direct)]

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        api = f"/api/datasets/{self.name}"
        if path.startswith("/api/datasets/gated/"):
            self.send(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access to this data set is restricted.")
        elif path == api or path.startswith(f"{api}/revision/"):
            self.send_json({"_id": "1", "id": self.name, "sha": "0" * 40, "siblings": []})
        elif match := re.fullmatch(rf"{api}/tree/[^/]+/?(.*)", path):
            self.send_json(self.listing(match[1], recursive="recursive=true" in self.path.lower()))
        elif match := re.fullmatch(rf"/datasets/{self.name}/resolve/[^/]+/(.*)", path):
            self.send_file(self.files[match[1]])
        else:
            self.send(404, b"{}")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        asked = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_json([self.entry(name) for name in asked["paths"] if name in self.files])

    def send_file(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.send(200, data, ETag='"1"')
            return
        start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        self.send(206, data[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(data)}", ETag='"1"')


@pytest.fixture
def hub() -> Iterator[str]:
    texts = [f"Page {i} on the fugue. " + "A voice enters. " * (i % 9) for i in range(80)]
    Hub.files = {f"data/train-{part}.parquet": parquet(texts[part::2]) for part in range(2)} | {"README.md": b"a card"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_text_from_the_hub(hub: str, tmp_path: Path) -> None:
    train_sentencepiece([f"Page {i} on the fugue. A voice enters." for i in range(80)], tmp_path / "t.model", 300)
    for name, data in Hub.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    options = ["--tokenizer", tmp_path / "t.model", "--source", "pile", "--workers", 2]
    environment = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    remote = "hf://datasets/m-a-p/MusicPile/data/*.parquet"
    done = prepare("text", "--input", remote, "--out", tmp_path / "remote", *options, **environment)
    assert done.returncode == 0, done.stderr
    assert prepare("text", "--input", tmp_path / "data", "--out", tmp_path / "local", *options).returncode == 0
    assert files(tmp_path / "remote") == files(tmp_path / "local")


def test_what_the_hub_refuses_is_one_sentence(hub: str, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    for name in ("gated/GigaMIDI", "nobody/nothing"):
        done = prepare("midi", "--input", f"hf://datasets/{name}", "--out", tmp_path / "out", **environment)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: hf://datasets/{name}: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_a_network_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    done = prepare("midi", "--input", "hf://datasets/a/b", "--out", tmp_path / "out", **environment)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: hf://datasets/a/b: cannot be reached (")
    assert "Traceback" not in done.stderr


@pytest.fixture
def bucket() -> Iterator[bucket_server.Bucket]:
    with bucket_server.running("music") as running:
        yield running


def test_midi_from_a_bucket_by_beam_with_blocks_in_the_bucket(bucket: bucket_server.Bucket, tmp_path: Path) -> None:
    import urllib.request

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for i in range(300):
            song = mido.MidiFile(tracks=[mido.MidiTrack()])
            for k in range(5 + i % 40):
                song.tracks[0] += [
                    mido.Message(kind, note=40 + (k * i) % 50, time=60) for kind in ("note_on", "note_off")
                ]
            body = io.BytesIO()
            song.save(file=body)
            member = tarfile.TarInfo(f"lmd_full/{i % 16:x}/{i % 16:x}{i:031x}.mid")
            member.size = len(body.getvalue())
            tar.addfile(member, io.BytesIO(body.getvalue()))
    (tmp_path / "lmd_full.tar.gz").write_bytes(stream.getvalue())
    bucket.upload("lmd_full.tar.gz", stream.getvalue())
    environment = bucket.environment
    remote = ["midi", "--input", "gs://music/lmd_full.tar.gz"]
    beam = ["--runner", "DirectRunner", "--staging", "gs://music/staging"]
    done = prepare(*remote, "--out", tmp_path / "beam", *beam, **environment)
    assert done.returncode == 0, done.stderr
    done = prepare(*remote, "--out", tmp_path / "remote", "--workers", 2, **environment)
    assert done.returncode == 0, done.stderr
    done = prepare("midi", "--input", tmp_path / "lmd_full.tar.gz", "--out", tmp_path / "local")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "remote") == files(tmp_path / "local")
    assert files(tmp_path / "beam") == files(tmp_path / "local")
    with urllib.request.urlopen(f"{bucket.endpoint}/storage/v1/b/music/o") as listing:
        left = [each["name"] for each in json.load(listing)["items"]]
    assert left == ["lmd_full.tar.gz"]
