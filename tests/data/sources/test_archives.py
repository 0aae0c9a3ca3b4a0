"""Archives in the layouts in which Lakh and MidiCaps are published, read without unpacking."""

import io
import json
import os
import random
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from midillm_jax.data.sources import Listing, captioned_files, midi_files
from midillm_jax.errors import UserError


def content(name: str) -> bytes:
    return random.Random(name).randbytes(500 + 7 * len(name))


def write_tar(path: Path, names: list[str], mode: str = "w:gz") -> Path:
    """An archive as `tar c lmd_full` makes it: folders are members too."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("lmd_full")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content(name))
            archive.addfile(member, io.BytesIO(content(name)))
    return path


def write_zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lmd_full/", b"")
        for name in names:
            archive.writestr(name, content(name))
    return path


LAKH = [f"lmd_full/{digit}/{digit}{i:031x}.mid" for digit in "02ef" for i in range(3)]


def midi(path: Path, exclude: tuple[str, ...] = ()) -> Listing:
    return midi_files([str(path)], source="", exclude=exclude)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("lmd_full.tar.gz", "w:gz"), ("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")],
)
def test_tar(tmp_path: Path, name: str, mode: str) -> None:
    path = write_tar(tmp_path / name, [*LAKH, "lmd_full/README.txt", "./dot/x.MID", "skip/y.mid"], mode)
    listing = midi(path, ("skip",))
    records = list(listing.records)
    assert [record.name for record in records] == [*LAKH, "dot/x.MID"]  # in the archive's own order
    assert [record.read() for record in records[:-1]] == [content(member) for member in LAKH]
    assert {record.source for record in records} == {name.partition(".")[0]}
    assert [record.name for record in listing.records] == [record.name for record in records]  # may be walked again
    assert 0.5 * path.stat().st_size < sum(record.amount for record in records) <= path.stat().st_size
    assert listing.size_bytes == path.stat().st_size


def test_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "songs.zip", [*LAKH, "notes.txt"])
    records = list(midi(path).records)
    assert [(record.source, record.name, record.read()) for record in records] == [
        ("songs", name, content(name)) for name in LAKH
    ]


def test_a_damaged_member_of_a_zip_is_one_rejected_file(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "songs.zip", LAKH)
    data = bytearray(path.read_bytes())
    data[data.index(LAKH[2].encode()) + len(LAKH[2]) + 40] ^= 0xFF
    path.write_bytes(data)
    problems = {record.name: record.problem for record in midi(path).records}
    assert [name for name, problem in problems.items() if problem] == [LAKH[2]]
    assert problems[LAKH[2]].startswith("cannot be unpacked from its archive: ")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.tar.xz", "a.zip"])
def test_an_archive_cut_short_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("zip"):
        write_zip(path, LAKH)
    else:
        write_tar(path, LAKH, {"a.tar.gz": "w:gz", "a.tar": "w", "a.tar.xz": "w:xz"}[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"{name}: .*cut short.*; fetch it again"):
        list(midi(path).records)
    path.write_bytes(b"<html>404 not found</html>" * 100)
    begins = "" if name.endswith("zip") else r".*begins with b'<html>404"
    with pytest.raises(UserError, match=rf"{name}: no .* archive{begins}.*; fetch it again"):
        list(midi(path).records)


def test_a_member_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        huge = tarfile.TarInfo("huge.mid")
        huge.size = 300 * 2**20
        archive.addfile(huge, io.BytesIO(bytes(huge.size)))
        small = tarfile.TarInfo("small.mid")
        small.size = 3
        archive.addfile(small, io.BytesIO(b"abc"))
    first, second = midi(path).records
    assert (first.name, first.problem) == ("huge.mid", "is said to have 314,572,800 bytes, which no MIDI file has")
    assert second.read() == b"abc"


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    """20,000 members hold 26 MB of headers and content; what was read is let go."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for i in range(20_000):
            member = tarfile.TarInfo(f"lmd_full/{i:06d}.mid")
            member.size = 300
            archive.addfile(member, io.BytesIO(bytes(300)))
    peaks = []
    for stop in (2_000, 20_000):
        tracemalloc.start()
        for count, _record in enumerate(midi(path).records, 1):
            if count == stop:
                break
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_midicaps_as_published(tmp_path: Path) -> None:
    """train.json beside midicaps.tar.gz, joined by location; what does not match is told both ways."""
    write_tar(tmp_path / "midicaps.tar.gz", [*LAKH[:6], "lmd_full/9/bare.mid"])
    rows = [
        {
            "location": name,
            "caption": f"Caption of {name}.",
            "genre": ["rock"],
            "tempo": 120,
            "test_set": i == 2,
            "all_chords_timestamps": [0.4],
        }
        for i, name in enumerate([*LAKH[:5], LAKH[7]])
    ]
    (tmp_path / "train.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    archive = str(tmp_path / "midicaps.tar.gz")
    listing = captioned_files(str(tmp_path / "train.json"), midi=archive, source="", exclude=())
    records = list(listing.records)
    used = [record for record in records if not record.problem]
    assert [(record.name, record.captions, record.test) for record in used] == [
        (name, (f"Caption of {name}.",), i == 2) for i, name in enumerate(LAKH[:5])
    ]
    assert used[3].read() == content(LAKH[3])
    assert [(record.name, record.problem, record.content) for record in records if record.problem] == [
        (LAKH[5], "no caption in train.json names it", None),
        ("lmd_full/9/bare.mid", "no caption in train.json names it", None),
    ]
    assert listing.missing([record.name for record in records]) == [
        (LAKH[7], "named in train.json, but there is no such file")
    ]


def test_captions_join_an_archive_that_has_a_folder_around_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", ["./mirror/data/lmd_full/0/x.mid", "mirror/0/x.mid"])
    (tmp_path / "c.jsonl").write_text('{"location": "lmd_full/0/x.mid", "caption": "a jig"}\n')
    listing = captioned_files(str(tmp_path / "c.jsonl"), midi=str(tmp_path / "a.tar.gz"), source="", exclude=())
    records = list(listing.records)
    assert [(record.name, record.captions) for record in records if not record.problem] == [
        ("mirror/data/lmd_full/0/x.mid", ("a jig",))
    ]
    assert listing.missing([record.name for record in records]) == []


def test_what_an_archive_holds_is_told_from_its_content(tmp_path: Path) -> None:
    first = midi(write_tar(tmp_path / "a.tar", LAKH, "w")).parts[0]
    stamp, version = first.content(), first.version()
    os.utime(tmp_path / "a.tar", (1, 1))
    assert first.content() == stamp
    assert first.version() != version
    other = midi(write_tar(tmp_path / "a.tar", LAKH[1:], "w")).parts[0]
    assert other.content() != stamp


def test_a_folder_of_archives_says_what_to_name(tmp_path: Path) -> None:
    write_zip(tmp_path / "songs.zip", LAKH)
    with pytest.raises(UserError, match=r"to read an archive in it \(songs\.zip\), name that itself"):
        midi(tmp_path)
    (tmp_path / "songs.rar").touch()
    with pytest.raises(UserError, match=r"songs\.rar: is a file, not a folder; expected .* an archive \(\.tar, "):
        midi(tmp_path / "songs.rar")
