"""Folders and files made in tmp_path, read back as records."""

import io
import json
import os
import random
import sys
from pathlib import Path

import pytest

from midillm_jax.data.sources import (
    Listing,
    captioned_files,
    decode_text,
    documents,
    midi_files,
    read_texts,
    text_files,
)
from midillm_jax.errors import UserError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def write_captions(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def names(listing: Listing) -> list[str]:
    return [record.name for record in listing.records]


def unmatched(listing: Listing) -> list[tuple[str, str]]:
    """Files without a caption and captions without a file, with the reasons."""
    problems = [(record.name, record.problem) for record in listing.records if record.problem]
    return sorted([*problems, *listing.missing(names(listing))])


def test_midi_folder_is_recursive_and_sorted_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "set", "b/z.mid", "b.mid", "a/Deep/x.MIDI", "C.Kar", "a.txt", "mid", "b/y.mid.gz")
    listing = midi_files([str(tmp_path / "set")], source="", exclude=())
    assert names(listing) == ["C.Kar", "a/Deep/x.MIDI", "b.mid", "b/z.mid"]
    assert names(listing) == names(listing)  # can be walked again
    assert (listing.size_bytes, listing.things) == (4 * 11 + 7 + 5 + 13 + 5, "files")
    assert unmatched(listing) == []
    records = list(listing.records)
    assert {record.source for record in records} == {"set"}
    assert records[1].read() == b"content of a/Deep/x.MIDI"
    assert next(iter(midi_files([str(tmp_path)], source="lakh", exclude=()).records)).source == "lakh"


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("pop", ["a.mid", "jazz/pop.mid", "jazz/x.mid"]),
        ("pop/*", ["a.mid", "jazz/pop.mid", "jazz/x.mid"]),
        ("x.mid", ["a.mid", "jazz/pop.mid", "pop/deep/y.mid"]),
        ("*/x.mid", ["a.mid", "jazz/pop.mid", "pop/deep/y.mid"]),
        ("pop/deep", ["a.mid", "jazz/pop.mid", "jazz/x.mid", "pop/x.mid"]),
        ("POP", ["a.mid", "jazz/pop.mid", "jazz/x.mid", "pop/deep/y.mid", "pop/x.mid"]),
    ],
)
def test_exclude_patterns(tmp_path: Path, pattern: str, left: list[str]) -> None:
    fill(tmp_path, "a.mid", "pop/x.mid", "pop/deep/y.mid", "jazz/x.mid", "jazz/pop.mid")
    assert names(midi_files([str(tmp_path)], source="", exclude=[pattern])) == left


def test_midi_folder_errors(tmp_path: Path) -> None:
    fill(tmp_path, "only.txt", "set/a.mid")
    with pytest.raises(UserError, match=r"nowhere: no such folder; expected a folder with \.mid"):
        midi_files([str(tmp_path / "nowhere")], source="", exclude=())
    with pytest.raises(UserError, match=r"only\.txt: is a file, not a folder"):
        midi_files([str(tmp_path / "only.txt")], source="", exclude=())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no \.mid, \.midi, \.kar file in it; give"):
        midi_files([str(tmp_path / "empty")], source="", exclude=())
    with pytest.raises(UserError, match=r"set: no .* once a\.\* is excluded"):
        midi_files([str(tmp_path / "set")], source="", exclude=["a.*"])


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS file names are always UTF-8")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mid", "wb") as file:
        file.write(b"x")
    (record,) = midi_files([str(tmp_path)], source="", exclude=()).records
    assert os.fsencode(record.name) == b"caf\xe9.mid"
    assert record.read() == b"x"


def test_captions_join_their_files(tmp_path: Path) -> None:
    fill(tmp_path / "set", "a/one.mid", "a/two.mid", "three.mid", "bare.mid", "mute.mid", "skipped.mid")
    write_captions(
        tmp_path / "set" / "captions.jsonl",
        {"location": "three.mid", "caption": ["a waltz ", "a slow waltz"], "group": "waltzes", "key": "C major"},
        {"location": "./a/one.mid", "caption": "a march"},
        {"location": "gone.mid", "caption": "a jig"},
        {"location": "a\\two.mid", "caption": "a reel"},
        {"location": "a/one.mid", "caption": "a loud march"},
        {"location": "mute.mid", "caption": [" "]},
        {"location": "skipped.mid", "caption": "a tango"},
    )
    for given in (tmp_path / "set", tmp_path / "set" / "captions.jsonl"):
        listing = captioned_files(str(given), midi=None, source="", exclude=["skipped*"])
        used = [record for record in listing.records if not record.problem]
        assert [(record.name, record.captions, record.group) for record in used] == [
            ("a/one.mid", ("a march", "a loud march"), ""),
            ("a/two.mid", ("a reel",), ""),
            ("three.mid", ("a waltz", "a slow waltz"), "waltzes"),
        ]
        assert unmatched(listing) == [
            ("bare.mid", "no caption in captions.jsonl names it"),
            ("gone.mid", "named in captions.jsonl, but there is no such file"),
            ("mute.mid", "its caption in captions.jsonl is empty"),
        ]
    assert [record.read() for record in listing.records][1] == b"content of a/two.mid"


def test_captions_beside_the_corpus(tmp_path: Path) -> None:
    fill(tmp_path / "set", "a/one.mid", "a/bare.mid", "a/deep/three.mid", "a/x/unrelated.mid", "b/two.mid", "z.mid")
    fill(tmp_path / "out", "other.mid")
    captions = write_captions(
        tmp_path / "out" / "any.jsonl",
        {"location": "../set/a/one.mid", "caption": "a march"},
        {"location": str(tmp_path / "set/b/two.mid"), "caption": "a reel"},
        {"location": "../set/a/deep/three.mid", "caption": "a jig"},
    )
    listing = captioned_files(str(captions), midi=None, source="", exclude=())
    assert names(listing) == ["a/bare.mid", "a/deep/three.mid", "a/one.mid", "b/two.mid"]
    assert {record.source for record in listing.records} == {"set"}
    # Only folders with a captioned file are looked into: what lies above and around is none of the captions' business.
    assert unmatched(listing) == [("a/bare.mid", "no caption in any.jsonl names it")]

    captions = write_captions(tmp_path / "train.json", {"location": "a/one.mid", "caption": "a march"})
    listing = captioned_files(str(captions), midi=str(tmp_path / "set"), source="midicaps", exclude=())
    used = [(record.source, record.name) for record in listing.records if not record.problem]
    assert used == [("midicaps", "a/one.mid")]
    assert [name for name, _ in unmatched(listing)] == [
        *("a/bare.mid", "a/deep/three.mid", "a/x/unrelated.mid", "b/two.mid", "z.mid")
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"captions\.jsonl:3: not a JSON object"),
        ("[1]", r'captions\.jsonl:3: no field "location"'),
        ('{"location": "a.mid"}', r'captions\.jsonl:3: no field "caption"'),
        ('{"location": "", "caption": "x"}', r"captions\.jsonl:3: location is ''; expected the path"),
        ('{"location": "a.mid", "caption": 3}', r"captions\.jsonl:3: caption is 3; expected a string or a list"),
        ('{"location": "a.mid", "caption": ["x", 3]}', r"captions\.jsonl:3: caption is \['x', 3\]"),
    ],
)
def test_malformed_captions_name_the_line(tmp_path: Path, line: str, message: str) -> None:
    fill(tmp_path, "a.mid")
    (tmp_path / "captions.jsonl").write_text('{"location": "a.mid", "caption": "x"}\n\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        captioned_files(str(tmp_path), midi=None, source="", exclude=())


def test_captions_without_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"captions\.jsonl: no such file; expected one JSON object a line"):
        captioned_files(str(tmp_path), midi=None, source="", exclude=())
    captions = write_captions(tmp_path / "c.jsonl", {"location": "x/gone.mid", "caption": "a jig"})
    fill(tmp_path, "a.mid")
    with pytest.raises(UserError, match=r"none of its 1 locations is a MIDI file .*'x/gone.mid'.* --midi"):
        captioned_files(str(captions), midi=None, source="", exclude=())
    with pytest.raises(UserError, match=r"nowhere: no such file or folder; expected what the locations in"):
        captioned_files(str(captions), midi=str(tmp_path / "nowhere"), source="", exclude=())
    captions.write_text("")
    with pytest.raises(UserError, match="none of its 0 locations"):
        captioned_files(str(captions), midi=None, source="", exclude=())


def random_text(rng: random.Random) -> str:
    """Paragraphs of lines of words, of all sizes, with odd characters, odd ends of lines and long words."""
    words = ["a", "waltz", "café", "音楽", "🎵" * 40, "x" * 300, "\t", "|:", "é" * 90]
    return "".join(
        " ".join(rng.choices(words, k=rng.choice([0, 1, 3, 30]))) + rng.choice(["\n", "\n", "\r\n", "\n\n\n", " \n\n"])
        for _ in range(rng.randrange(40))
    )


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("limit", [64, 200, 4096])
def test_documents_hold_the_whole_text_in_bounds(seed: int, limit: int) -> None:
    data = random_text(random.Random(seed)).encode()
    found = list(documents(io.BytesIO(data), limit))
    for offset, amount, document in found:
        assert 0 < len(document) <= min(limit, amount)
        assert data[offset : offset + len(document)] == document
        document.decode()  # no character is cut in two
    assert b"".join(b"".join(document.split()) for _, _, document in found) == b"".join(data.split())
    assert sum(amount for _, amount, _ in found) <= len(data)


def test_documents_keep_paragraphs_together() -> None:
    paragraphs = [f"X:{i}\nT:Tune {i}\n" + "ABcd " * 10 for i in range(20)]
    text = "\n\n" + "\n\n".join(paragraphs) + "\n"
    found = [document.decode() for _, _, document in documents(io.BytesIO(text.encode()), 300)]
    assert [part.strip() for document in found for part in document.split("\n\n")] == [p.strip() for p in paragraphs]
    assert all(document.startswith("X:") for document in found)
    assert len(found) == 5  # of 67 or 69 bytes each with its blank line, four go into 300


def test_text_files_of_folders_and_named_files(tmp_path: Path) -> None:
    fill(tmp_path / "books", "b.txt", "sub/a.MD", "MANIFEST.tsv", "left.txt")
    (tmp_path / "notes.dat").write_text("first\n\nsecond\n")
    paths = [str(tmp_path / "notes.dat"), str(tmp_path / "books")]
    listing = text_files(paths, source="", exclude=["left*"], document_bytes=64)
    records = list(listing.records)
    assert [(record.source, record.name, record.read()) for record in records] == [
        ("notes.dat", "notes.dat:0", b"first\n\nsecond"),
        ("books", "b.txt:0", b"content of b.txt"),
        ("books", "sub/a.MD:0", b"content of sub/a.MD"),
    ]
    assert listing.things == "documents"
    assert listing.size_bytes == sum(record.amount for record in records) == 14 + 16 + 19
    assert len(list(listing.records)) == 3
    assert {record.source for record in text_files(paths, source="s", exclude=(), document_bytes=64).records} == {"s"}


def test_text_files_errors(tmp_path: Path) -> None:
    fill(tmp_path, "a.mid")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match="every text file there is empty"):
        text_files([str(tmp_path)], source="", exclude=(), document_bytes=64)
    with pytest.raises(UserError, match=r"no \.txt, .* file in it once \*\.txt is excluded"):
        text_files([str(tmp_path)], source="", exclude=["*.txt"], document_bytes=64)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        text_files([str(tmp_path / "nowhere")], source="", exclude=(), document_bytes=64)
    with pytest.raises(UserError, match="at most 3 bytes"):
        text_files([str(tmp_path)], source="", exclude=(), document_bytes=3)


def test_decode_text() -> None:
    assert decode_text("\ufeffcafé\r\n\r\nend\r".encode()) == "café\n\nend\r"
    with pytest.raises(ValueError, match="byte 3 of this part is not UTF-8"):
        decode_text("café".encode("latin-1"))
    with pytest.raises(ValueError, match="character 1 of this part is zero"):
        decode_text("ab".encode("utf-16-be")[1:])


def test_read_texts_names_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good\n")
    assert list(read_texts([str(tmp_path)], exclude=())) == ["good"]
    (tmp_path / "b.txt").write_bytes(b"caf\xe9 au lait\n")
    with pytest.raises(UserError, match=r"b\.txt:0: byte 3 of this part is not UTF-8 .* --exclude"):
        list(read_texts([str(tmp_path)], exclude=()))
    assert list(read_texts([str(tmp_path)], exclude=["b.txt"])) == ["good"]
