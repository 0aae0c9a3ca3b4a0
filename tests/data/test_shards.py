"""Records, shards and manifests: what goes in comes out, and what cannot be read is named."""

import dataclasses
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.shards import (
    Manifest,
    Piece,
    ShardWriter,
    SplitReader,
    TextRecord,
    TokenizerId,
    open_split,
    pack_piece,
    pack_text,
    read_manifest,
    unpack_piece,
    unpack_text,
    write_manifest,
)
from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable


def table(onsets: list[int], **columns: np.ndarray) -> NoteTable:
    count = len(onsets)
    return NoteTable(
        onsets=np.array(onsets, np.int32),
        durations=columns.pop("durations", np.arange(count, dtype=np.int32) % 1000),
        notes=columns.pop("notes", np.arange(count, dtype=np.int32) * 37 % 16_512),
        velocities=columns.pop("velocities", (np.arange(count) % 127 + 1).astype(np.uint8)),
        **columns,
    )


def piece(onsets: list[int], captions: tuple[str, ...] = (), name: str = "a.mid", **columns: np.ndarray) -> Piece:
    return Piece(table(onsets, **columns), captions, "source", "id", name)


def write_folder(folder: Path, train: list[Piece], shard_bytes: int = 1 << 20) -> Manifest:
    splits = {}
    for split, pieces in (("train", train), ("validation", train[:1])):
        with ShardWriter(folder, split, shard_bytes) as writer:
            for one in pieces:
                writer.write(pack_piece(one), len(one.notes))
        splits[split] = writer.split
    manifest = Manifest(
        kind="pairs",
        splits=splits,
        sources={"source": len(train) + 1},
        rejected=(("bad.mid", "the file does not begin with MThd"),),
        filters={"least_notes": 100},
        inputs={"files": "0123", "seed": 7},
    )
    write_manifest(folder, manifest)
    return manifest


@pytest.mark.parametrize(
    "original",
    [
        piece([0]),
        piece([0, 0, 3, 300, 300, 90_000], captions=("A song.", "Ein Stück, 歌 🎵", "")),
        piece(list(range(0, 2_000_000, 997)), name="n\udce9.mid"),  # a file name that is not UTF-8
        piece(
            [2_147_483_000, 2_147_483_647],
            notes=np.array([0, 16_511], np.int32),
            durations=np.array([0, 999], np.int32),
            velocities=np.array([1, 127], np.uint8),
            tempos=np.array([[0, 500_000], [7, 16_777_215], [2**40, 1]], np.int64),
            meters=np.array([[0, 4, 4], [0, 7, 8], [70_000, 255, 128]], np.int32),
        ),
    ],
    ids=["one note", "captions", "long", "extremes"],
)
def test_a_piece_comes_back_as_it_was(original: Piece) -> None:
    back = unpack_piece(pack_piece(original))
    for field in dataclasses.fields(NoteTable):
        before, after = getattr(original.notes, field.name), getattr(back.notes, field.name)
        np.testing.assert_array_equal(after, before)
        assert after.dtype == before.dtype, field.name
    assert dataclasses.replace(back, notes=original.notes) == original


@pytest.mark.parametrize("ids", [[], [0], [255, 256, 65_535, 65_536, 183_285]])
def test_text_comes_back_as_it_was(ids: list[int]) -> None:
    back = unpack_text(pack_text(TextRecord(np.array(ids, np.int32), "musicpile", "part 3")))
    assert back.ids.dtype == np.int32
    assert (back.ids.tolist(), back.source, back.name) == (ids, "musicpile", "part 3")


def test_onsets_that_step_back_are_refused() -> None:
    with pytest.raises(ValueError, match="step back"):
        pack_piece(piece([5, 4]))


def test_every_cut_of_a_record_is_named() -> None:
    record = pack_piece(piece([0, 5, 9], captions=("A song.",)))
    for length in range(len(record)):
        with pytest.raises(UserError, match="shard record"):
            unpack_piece(record[:length])
    with pytest.raises(UserError, match="1 bytes after its last field"):
        unpack_piece(record + b"\0")


def test_another_record_version_and_another_kind_are_named() -> None:
    record = pack_piece(piece([0]))
    with pytest.raises(UserError, match=r"version \[2\].*reads version 1"):
        unpack_piece(record[:2] + b"\x02" + record[3:])
    with pytest.raises(UserError, match="does not hold text"):
        unpack_text(record)


def test_a_note_takes_at_most_eight_bytes_on_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 5_000  # independent draws: real music is far more regular
    notes = piece(
        np.cumsum(rng.integers(0, 40, count)).tolist(),
        durations=rng.integers(1, 400, count).astype(np.int32),
        notes=rng.integers(0, 16_512, count).astype(np.int32),
        velocities=rng.integers(1, 128, count).astype(np.uint8),
    )
    manifest = write_folder(tmp_path, [notes] * 20)  # a file is whole blocks of 64 KiB, which few notes do not fill
    assert manifest.splits["train"].shards[0].bytes <= 8 * manifest.splits["train"].size


def test_records_keep_their_order_across_shards(tmp_path: Path) -> None:
    pieces = [piece(list(range(n)), name=f"{n}.mid") for n in range(1, 41)]
    manifest = write_folder(tmp_path, pieces, shard_bytes=1_000)
    shards = manifest.splits["train"].shards
    assert len(shards) > 3
    assert [shard.name for shard in shards[:2]] == [
        f"train-{number:05d}-of-{len(shards):05d}.array_record" for number in (0, 1)
    ]
    assert sum(shard.records for shard in shards) == 40
    reader = open_split(tmp_path, "train")
    assert len(reader) == 40
    assert [unpack_piece(reader[i]).name for i in (39, 0, 17)] == ["40.mid", "1.mid", "18.mid"]
    assert reader.lengths.tolist() == list(range(1, 41))
    assert manifest.splits["train"].size == 40 * 41 / 2


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    pieces = [piece(list(range(n))) for n in range(1, 41)]
    first = write_folder(tmp_path / "a", pieces, shard_bytes=1_000)
    assert write_folder(tmp_path / "b", pieces, shard_bytes=1_000) == first
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_failed_build_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, "train", 100) as writer:
            for _ in range(5):
                writer.write(pack_piece(piece([0, 1, 2])), 3)
            raise RuntimeError("out of disk")

    with pytest.raises(RuntimeError, match="out of disk"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_shards_bear_their_names_only_when_closed(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", 100)
    for _ in range(5):
        writer.write(pack_piece(piece([0, 1, 2])), 3)
    assert not list(tmp_path.glob("*.array_record"))
    writer.close()
    assert not list(tmp_path.glob("*.partial"))
    assert list(tmp_path.glob("*.array_record"))


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path, [piece([0, 1])])
    assert read_manifest(tmp_path) == manifest
    text = dataclasses.replace(manifest, kind="text", tokenizer=TokenizerId("ab" * 32, 400))
    write_manifest(tmp_path, text)
    assert read_manifest(tmp_path) == text


def change_manifest(folder: Path, **fields: object) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    for name, value in fields.items():
        if value is None:
            del document[name]
        else:
            document[name] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 2}, "format 2, this program reads format 1"),
        ({"format": None}, "lacks the field format"),
        ({"sources": None}, "lacks the field sources"),
        ({"extra": 1}, "unknown field extra"),
        ({"kind": "video"}, "kind 'video'"),
        ({"splits": {"train": {"records": 3}}}, r"splits\.train lacks the field lengths"),
        ({"splits": {}}, "lacks the split train"),
    ],
)
def test_a_manifest_of_another_form_is_named(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    write_folder(tmp_path, [piece([0, 1])])
    change_manifest(tmp_path, **fields)
    with pytest.raises(UserError, match=message):
        open_split(tmp_path, "train")


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere holds no manifest\.json"):
        open_split(tmp_path / "nowhere", "train")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        open_split(tmp_path, "train")


def test_a_shard_that_is_missing_or_cut_is_named(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path, [piece(list(range(100)))])
    shard = tmp_path / manifest.splits["train"].shards[0].name
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{shard.name} has {len(content) - 1} bytes.*says {len(content)}"):
        open_split(tmp_path, "train")
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        open_split(tmp_path, "train")
    assert len(open_split(tmp_path, "validation")) == 1


def test_a_shard_that_became_another_of_the_same_size_is_named(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path / "one", [piece(list(range(100)))])
    write_folder(tmp_path / "other", [piece([*range(99), 101])])
    name = manifest.splits["train"].shards[0].name
    assert (tmp_path / "one" / name).stat().st_size == (tmp_path / "other" / name).stat().st_size
    # Written anew, but as it was.
    (tmp_path / "one" / name).write_bytes((tmp_path / "one" / name).read_bytes())
    assert len(open_split(tmp_path / "one", "train")) == 1
    (tmp_path / "one" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(UserError, match=rf"{name} holds other records than when manifest\.json was written"):
        open_split(tmp_path / "one", "train")


def test_a_record_that_is_no_record_is_named(tmp_path: Path) -> None:
    record = pack_piece(piece([0, 5]))
    with ShardWriter(tmp_path, "train") as writer:
        writer.write(record, 2)
        writer.write(record[:-1], 2)
    manifest = write_folder(tmp_path / "model", [piece([0])])
    write_manifest(tmp_path, dataclasses.replace(manifest, splits={"train": writer.split}))
    reader = open_split(tmp_path, "train")
    assert reader.piece(0).notes.onsets.tolist() == [0, 5]
    with pytest.raises(
        UserError, match=rf"{tmp_path}: record 1 of train, in train-00000.*: a shard record ends inside"
    ):
        reader.piece(1)


def test_another_tokenizer_or_kind_is_named(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path, [piece([0])])
    with pytest.raises(UserError, match=r"made by `prepare pairs`.*`prepare text`"):
        open_split(tmp_path, "train", kinds=("text",))
    write_manifest(tmp_path, dataclasses.replace(manifest, kind="text", tokenizer=TokenizerId("ab" * 32, 400)))
    assert len(open_split(tmp_path, "train", kinds=("text",), fingerprint="ab" * 32)) == 1
    with pytest.raises(UserError, match=r"tokenizer abababababab, the config's tokenizer is cdcdcdcdcdcd"):
        open_split(tmp_path, "train", kinds=("text",), fingerprint="cd" * 32)


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path, [piece([0])])
    with ShardWriter(tmp_path, "validation") as writer:
        pass
    write_manifest(tmp_path, dataclasses.replace(manifest, splits=manifest.splits | {"validation": writer.split}))
    with pytest.raises(UserError, match="has no validation records"):
        open_split(tmp_path, "validation")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path, [piece(list(range(5_000)))])
    shard = tmp_path / manifest.splits["train"].shards[0].name
    content = bytearray(shard.read_bytes())
    content[1_000:1_100] = bytes(byte ^ 255 for byte in content[1_000:1_100])
    written = shard.stat().st_mtime
    shard.write_bytes(content)
    # As a disk damages a file: nothing says that it was written to.
    os.utime(shard, (written, written))
    reader = open_split(tmp_path, "train")
    words = f"{tmp_path}: record 0 of train, in {shard.name}, cannot be read .*copy the folder again"
    with pytest.raises(UserError, match=words):
        reader[0]
    with pytest.raises(UserError, match=f"record 0 of train, in {shard.name}, cannot be read"):
        reader.__getitems__([0])


@pytest.mark.parametrize("how", ["cut", "overwritten"])
def test_a_shard_that_changes_after_it_was_opened_gives_no_garbage(tmp_path: Path, how: str) -> None:
    rng = np.random.default_rng(0)
    manifest = write_folder(
        tmp_path, [piece(sorted(rng.integers(0, 10**8, 30_000).tolist())) for _ in range(8)], 1 << 30
    )
    (shard,) = manifest.splits["train"].shards
    whole = [open_split(tmp_path, "train")[record] for record in range(8)]
    reader = open_split(tmp_path, "train")
    path = tmp_path / shard.name
    with path.open("r+b") as file:
        if how == "cut":
            file.truncate(path.stat().st_size // 2)
        else:
            file.write(rng.bytes(path.stat().st_size))
    told = []
    for record in range(8):
        try:
            assert reader[record] == whole[record]
        except UserError as error:
            told.append(f"record {record} of train, in {shard.name}, cannot be read" in str(error))
    assert told
    assert all(told)


class _Bucket(http.server.BaseHTTPRequestHandler):
    """Gives the objects of a folder as Google's storage does."""

    folder: Path

    def do_GET(self) -> None:
        name = re.fullmatch(r"/storage/v1/b/bucket/o/([^?]+)\?alt=media", self.path)
        path = self.folder / urllib.parse.unquote(name[1]) if name else self.folder
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(content) - int(last))
        part = content[start : int(last) + 1 if first and last else None]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("x-goog-generation", "1")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *message: object) -> None:
        pass


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for gs://bucket in what ArrayRecord reads."""
    handler = type("Bucket", (_Bucket,), {"folder": tmp_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield tmp_path
        server.shutdown()


def test_records_are_read_from_a_bucket(bucket: Path) -> None:
    pieces = [piece(list(range(n)), name=f"{n}.mid") for n in range(1, 41)]
    manifest = write_folder(bucket / "some" / "shards", pieces, shard_bytes=1_000)
    here = open_split(bucket / "some" / "shards", "train")
    there = SplitReader("gs://bucket/some/shards", "train", manifest, here.lengths)
    assert [there[i] for i in (39, 0, 17)] == [here[i] for i in (39, 0, 17)]
    assert there.__getitems__([3, 30]) == here.__getitems__([3, 30])
    nowhere = SplitReader("gs://bucket/other", "train", manifest, here.lengths)
    with pytest.raises(UserError, match=r"gs://bucket/other: record 0 of train, in .*, cannot be read .*404.*gcsfuse"):
        nowhere[0]


def test_a_bucket_without_its_package_is_named() -> None:
    script = (
        "import sys; sys.modules['gcsfs'] = None; from midillm_jax.data.shards import open_split; "
        "open_split('gs://bucket/shards', 'train')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    error = done.stderr.splitlines()[-1]
    assert re.search(r"UserError: gs://bucket/shards lies in a bucket .*pip install gcsfs, or mount", error), error


def test_a_place_that_shards_cannot_be_read_from_is_named() -> None:
    with pytest.raises(UserError, match=r"s3://bucket/shards: .*not from s3://"):
        open_split("s3://bucket/shards", "train")


@pytest.mark.parametrize("items", [0, 1, 2, 8, 9, 40])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_column_is_a_width_and_planes_of_bytes(items: int, width: int) -> None:
    """As data/records.py describes it, however many items there are: read here by its description alone."""
    ids = np.random.default_rng(items).integers(0, 256**width, items).astype(np.int32)
    if items:
        ids[items // 2] = 256**width - 1
    record = pack_text(TextRecord(ids, "s", "n"))
    column = record[-(1 + (width if items else 1) * items) :]
    assert column[0] == (width if items else 1)
    planes = [column[1 + plane * items :][:items] for plane in range(column[0])]
    assert [sum(plane[i] << (8 * k) for k, plane in enumerate(planes)) for i in range(items)] == ids.tolist()
    np.testing.assert_array_equal(unpack_text(record).ids, ids)


@pytest.mark.parametrize("items", [3, 30])
def test_numbers_below_zero_are_refused(items: int) -> None:
    ids = np.arange(items, dtype=np.int32) - 1
    with pytest.raises(ValueError, match="unsigned numbers that never step back, found -1"):
        pack_text(TextRecord(ids, "s", "n"))
