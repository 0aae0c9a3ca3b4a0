"""Parquet and JSON lines in the layouts in which GigaMIDI and MusicPile are published."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from midillm_jax.data.sources import captioned_files, midi_files, read_texts, text_files
from midillm_jax.errors import UserError


def write_table(path: Path, **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Small row groups, so that there are several.
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=50)
    return path


def gigamidi(path: Path, count: int = 130) -> Path:
    """One row a file: md5, music (bytes), metadata."""
    return write_table(
        path,
        md5=[f"{i:032x}" for i in range(count)],
        music=[b"MThd%d" % i for i in range(count)],
        NOMML=[[i, 12] for i in range(count)],
        title=[f"song {i}" for i in range(count)],
    )


def test_gigamidi_as_published(tmp_path: Path) -> None:
    gigamidi(tmp_path / "giga" / "data" / "train-00000-of-00002.parquet")
    gigamidi(tmp_path / "giga" / "data" / "train-00001-of-00002.parquet", 3)
    by_folder = midi_files([str(tmp_path / "giga")], source="", exclude=())
    records = list(by_folder.records)
    assert [record.name for record in records] == [f"{i:032x}" for i in [*range(130), *range(3)]]
    assert [record.read() for record in records[:130]] == [b"MThd%d" % i for i in range(130)]
    assert {record.source for record in records} == {"giga"}
    assert len(by_folder.parts) == 2
    assert 0.9 * by_folder.size_bytes <= sum(record.amount for record in records) <= by_folder.size_bytes
    by_pattern = midi_files([str(tmp_path / "giga" / "data" / "*.parquet")], source="GigaMIDI", exclude=())
    assert [(record.source, record.name) for record in by_pattern.records] == [
        ("GigaMIDI", record.name) for record in records
    ]


def test_rows_without_a_name_and_rows_without_bytes(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", music=[b"one", None, b"three"])
    records = list(midi_files([str(path)], source="", exclude=()).records)
    assert [(record.name, record.content, record.problem) for record in records] == [
        ("t.parquet:0", b"one", ""),
        ("t.parquet:1", None, "row 1 holds nothing"),
        ("t.parquet:2", b"three", ""),
    ]


def test_a_column_of_files_as_the_hub_writes_them(tmp_path: Path) -> None:
    cells = [{"bytes": b"one", "path": "a/1.mid"}, {"bytes": b"two", "path": None}]
    path = write_table(tmp_path / "t.parquet", file=cells, label=[1, 2])
    records = list(midi_files([str(path)], source="", exclude=()).records)
    assert [(record.name, record.read()) for record in records] == [("a/1.mid", b"one"), ("t.parquet:1", b"two")]


def test_which_column(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", midi=[b"one"], png=[b"two"], words=["three"], more=["four"])
    with pytest.raises(
        UserError, match=r"t\.parquet: 2 columns hold bytes, of midi \(binary\), .*name one with --colu"
    ):
        list(midi_files([str(path)], source="", exclude=()).records)
    (record,) = midi_files([str(path)], source="", exclude=(), column="png").records
    assert record.read() == b"two"
    with pytest.raises(UserError, match=r"--column words is not a column of bytes; its columns are midi"):
        list(midi_files([str(path)], source="", exclude=(), column="words").records)
    with pytest.raises(UserError, match=r"2 columns hold text"):
        list(text_files([str(path)], source="", exclude=(), document_bytes=64).records)
    (record,) = text_files([str(path)], source="", exclude=(), document_bytes=64, column="more").records
    assert record.read() == b"four"
    write_table(path, size=[1])
    with pytest.raises(UserError, match=r"no columns hold bytes, of size \(int64\)"):
        list(midi_files([str(path)], source="", exclude=()).records)


def test_no_parquet_at_all(tmp_path: Path) -> None:
    path = gigamidi(tmp_path / "t.parquet")
    whole = path.read_bytes()
    for damaged in (b"", b"<html>not found</html>", whole[: len(whole) // 2], whole[:200] + whole[300:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"t\.parquet: no parquet file, or a damaged one .*; fetch it again"):
            list(midi_files([str(path)], source="", exclude=()).records)


def test_captions_join_a_table_by_its_names(tmp_path: Path) -> None:
    path = gigamidi(tmp_path / "t.parquet", 3)
    (tmp_path / "c.jsonl").write_text(json.dumps({"location": f"{1:032x}", "caption": "a jig"}) + "\n")
    listing = captioned_files(str(tmp_path / "c.jsonl"), midi=str(path), source="", exclude=())
    assert [record.captions for record in listing.records] == [(), ("a jig",), ()]


def test_musicpile_as_published(tmp_path: Path) -> None:
    texts = ["X:1\nT:A jig\nABc", "Human: what is a fugue?\n\nAssistant: " + "a piece of music. " * 20, " "]
    write_table(tmp_path / "pile" / "train-00000.parquet", id=["a", "b", "c"], src=["x", "y", "z"], text=texts)
    listing = text_files([str(tmp_path / "pile")], source="", exclude=(), document_bytes=128)
    records = list(listing.records)
    assert (records[0].name, records[0].read()) == ("train-00000.parquet:0:0", texts[0].encode())
    rest = records[1:]
    assert len(rest) > 2
    assert all(record.name.startswith("train-00000.parquet:1:") for record in rest)
    joined = b"".join(record.read() for record in rest)
    assert b"".join(joined.split()) == b"".join(texts[1].encode().split())
    # All documents of a row are of one group, rows of others.
    assert len({record.group for record in rest}) == 1
    assert records[0].group != rest[0].group
    assert {record.source for record in records} == {"pile"}
    assert next(iter(read_texts([str(tmp_path / "pile")], exclude=()))) == texts[0]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"café number {i}", "meta": {"n": i}} for i in range(5)]
    data = ("\n\n".join(json.dumps(row) for row in rows) + "\n").encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "captions.jsonl").write_text('{"location": "a.mid", "caption": "not text of this kind"}\n')
    for given in (path, tmp_path):
        listing = text_files([str(given)], source="", exclude=(), document_bytes=64)
        assert [record.read().decode() for record in listing.records] == [row["text"] for row in rows]
        assert [record.name for record in listing.records][2] == f"{name}:5:0"
        assert sum(record.amount for record in listing.records) <= path.stat().st_size


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"t\.jsonl:2: not a JSON object"),
        ('{"body": "x"}', r"t\.jsonl:2: no text in a field 'text' \(found body\); name the field with --column"),
        ('{"text": 3}', r"t\.jsonl:2: no text in a field 'text'"),
        ("[1]", r"t\.jsonl:2: no text in a field 'text' \(found list\)"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        list(text_files([str(path)], source="", exclude=(), document_bytes=64).records)


def test_a_list_of_texts_in_a_field(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"location": "a.mid", "caption": ["a jig", "a fast jig"]}\n{"caption": "a reel"}\n')
    assert list(read_texts([str(path)], exclude=(), column="caption")) == ["a jig\n\na fast jig", "a reel"]


def test_json_lines_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "fine"}\n' * 1000)[:-12])
    with pytest.raises(UserError, match=r"t\.jsonl\.gz: damaged or cut short .*; fetch it again"):
        list(text_files([str(path)], source="", exclude=(), document_bytes=64).records)
