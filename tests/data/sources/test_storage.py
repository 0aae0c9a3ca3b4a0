"""Locations that are not on this machine's disks, by fsspec's file system in memory, and what they need."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from midillm_jax.data.sources import captioned_files, midi_files, storage, text_files
from midillm_jax.errors import UserError


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_a_folder_in_a_bucket(bucket: fsspec.AbstractFileSystem) -> None:
    for name in ("b/z.mid", "b.MID", "a.txt", "skip/x.mid"):
        bucket.pipe(f"/music/set/{name}", f"content of {name}".encode())
    listing = midi_files(["memory://music/set"], source="", exclude=["skip"])
    assert [(record.source, record.name, record.read()) for record in listing.records] == [
        ("set", "b.MID", b"content of b.MID"),
        ("set", "b/z.mid", b"content of b/z.mid"),
    ]
    assert listing.size_bytes == 16 + 18
    before = listing.version()
    assert midi_files(["memory://music/set"], source="", exclude=["skip"]).version() == before
    bucket.pipe("/music/set/b.MID", b"content of b.MId")
    assert midi_files(["memory://music/set"], source="", exclude=["skip"]).version() != before


def test_archives_and_tables_in_a_bucket(bucket: fsspec.AbstractFileSystem) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("lmd_full/0/x.mid")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
    bucket.pipe("/music/midicaps.tar.gz", stream.getvalue())
    bucket.pipe("/music/train.json", b'{"location": "lmd_full/0/x.mid", "caption": "a jig"}\n')
    location = "memory://music/train.json"
    listing = captioned_files(location, midi="memory://music/midicaps.tar.gz", source="", exclude=())
    (record,) = listing.records
    assert (record.source, record.captions, record.read()) == ("midicaps", ("a jig",), b"one")
    for number in range(2):
        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": [f"text {number}"]}), stream)
        bucket.pipe(f"/music/pile/train-{number}.parquet", stream.getvalue())
    for given in ("memory://music/pile", "memory://music/pile/*.parquet"):
        texts = text_files([given], source="", exclude=(), document_bytes=64)
        assert [record.read() for record in texts.records] == [b"text 0", b"text 1"]
    bucket.pipe("/music/t.txt", b"a page")
    (record,) = text_files(["memory://music/t.txt"], source="", exclude=(), document_bytes=64).records
    assert (record.source, record.read()) == ("t.txt", b"a page")


def test_captions_in_a_bucket_beside_their_files(bucket: fsspec.AbstractFileSystem) -> None:
    bucket.pipe("/set/a/one.mid", b"one")
    bucket.pipe("/set/captions.jsonl", json.dumps({"location": "a/one.mid", "caption": "a jig"}).encode())
    (record,) = captioned_files("memory://set", midi=None, source="", exclude=()).records
    assert (record.name, record.captions, record.read()) == ("a/one.mid", ("a jig",), b"one")


def test_locations_that_nothing_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"nope://x/y: Protocol not known: nope; give a path, gs://"):
        midi_files(["nope://x/y"], source="", exclude=())
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)  # as where it is not installed
    with pytest.raises(
        UserError, match=r"gs://b/x: reading gs:// needs another package .*pip install 'midillm_jax\[cl"
    ):
        midi_files(["gs://b/x"], source="", exclude=())
    with pytest.raises(UserError, match=r"memory://none/\*\.tar: nothing fits this pattern"):
        midi_files(["memory://none/*.tar"], source="", exclude=())


def test_patterns(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md", "odd[1].txt"):
        (tmp_path / name).write_text(name)
    assert storage.expand(f"{tmp_path}/?.txt") == [f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"]
    assert storage.expand(f"{tmp_path}/odd[1].txt") == [f"{tmp_path}/odd[1].txt"]  # a file that is there is meant
    assert storage.expand(f"{tmp_path}/gone") == [f"{tmp_path}/gone"]


def test_content_stamps_see_every_kind_of_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the size up to which files are read whole, only a change in the middle goes unseen."""
    path = tmp_path / "a.bin"
    data = bytearray(hashlib.shake_256(b"").digest(5000))
    path.write_bytes(data)
    assert storage.content_stamp(str(path)) == hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(storage, "_WHOLE_BYTES", 4000)
    monkeypatch.setattr(storage, "_END_BYTES", 100)
    seen = {storage.content_stamp(str(path))}
    for changed in (0, 99, 4900, 4999):
        data[changed] ^= 1
        path.write_bytes(data)
        seen.add(storage.content_stamp(str(path)))
    path.write_bytes(data[:2000] + data[2001:])
    seen.add(storage.content_stamp(str(path)))
    assert len(seen) == 6
    data[2500] ^= 1
    path.write_bytes(data)
    assert storage.content_stamp(str(path)) in seen
