"""A folder of MIDI files becomes captions.jsonl."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midillm_jax.data.captioning import caption_files
from midillm_jax.data.demo import write_band
from midillm_jax.data.sources import captioned_files
from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable, write_midi

PIANO, BASS, DRUMS = 0, 33, 128


def band(drums: bool) -> NoteTable:
    """40 seconds of piano and bass at 100 BPM in 3/4."""
    notes = [(at, 50, PIANO, 60) for at in range(0, 4000, 100)]
    notes += [(at, 30, BASS, 40) for at in range(0, 4000, 100)]
    notes += [(at, 10, DRUMS, 36) for at in range(0, 4000, 50)] if drums else []
    onsets, durations, programs, pitches = np.array(sorted(notes)).T
    return NoteTable(
        onsets.astype(np.int32),
        durations.astype(np.int32),
        (128 * programs + pitches).astype(np.int32),
        np.full(len(notes), 80, np.uint8),
        np.array([[0, 600_000]]),
        np.array([[0, 3, 4]], np.int32),
    )


MANIFEST = (
    "path\ttitle\tcomposer\tgroup\tnote\n"
    "a/one.mid\t3 The Hill\tNother, Ann\tset one\tvoice and piano song (MusicXML -> MIDI)\n"
    "two.MID\ttwo_cptd\ttrad. Irish\t\tjig; key=C:maj\n"
    "gone.mid\t\t\t\t\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    midi = tmp_path / "midi"
    (midi / "a").mkdir(parents=True)
    (midi / "a" / "one.mid").write_bytes(write_midi(band(drums=True)))
    (midi / "two.MID").write_bytes(write_midi(band(drums=False)))
    (midi / "bad.mid").write_bytes(b"not a midi file")
    (midi / "left" / "deep").mkdir(parents=True)
    (midi / "left" / "deep" / "three.mid").write_bytes(write_midi(band(drums=True)))
    return midi


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {row["location"]: row for row in rows}


def test_a_folder_becomes_captions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = folder.parent / "MANIFEST.tsv"
    manifest.write_text(MANIFEST, encoding="utf-8")
    out = folder.parent / "out" / "captions.jsonl"
    report = caption_files([str(folder)], out, manifest=manifest, exclude=("left",), seed=1)
    assert (report.written, report.without_row, report.without_file) == (2, 0, 1)
    assert [name for name, _ in report.rejected] == ["bad.mid"]
    assert "MThd" in capsys.readouterr().out
    rows = rows_of(out)
    assert list(rows) == ["../midi/a/one.mid", "../midi/two.MID"]
    assert all((out.parent / location).is_file() for location in rows)
    one, two = rows.values()
    assert all(len(set(row["caption"])) == 3 for row in rows.values())
    assert all(text.startswith("Voice and piano song") for text in one["caption"])
    assert "MusicXML" not in str(one)
    assert (one["group"], one["genre"]) == ("set one", ["voice and piano song"])
    assert two["genre"] == ["jig"]
    assert "group" not in two
    assert [one["drums"], two["drums"]] == [True, False]
    assert [path.name for path in out.parent.iterdir()] == ["captions.jsonl"]


def test_catalogue_words_are_put_in_order(folder: Path) -> None:
    manifest = folder.parent / "MANIFEST.tsv"
    manifest.write_text(MANIFEST, encoding="utf-8")
    texts = []
    for seed in range(25):
        out = folder.parent / f"{seed}.jsonl"
        caption_files([str(folder)], out, manifest=manifest, exclude=("left",), seed=seed)
        texts += [text for row in rows_of(out).values() for text in row["caption"]]
    assert {match for text in texts for match in re.findall(r"The composer is ([^.]*)\.", text)} == {"Ann Nother"}
    assert {match for text in texts for match in re.findall(r"The title is ([^.]*)\.", text)} == {"The Hill"}


def test_wording_depends_on_seed_and_name_alone(folder: Path) -> None:
    out = folder.parent / "captions.jsonl"
    caption_files([str(folder)], out, manifest=None, seed=1)
    every = rows_of(out)
    caption_files([str(folder)], out, manifest=None, exclude=("a",), seed=1)
    assert rows_of(out)["midi/two.MID"] == every["midi/two.MID"]
    captions = set()
    for seed in range(5):
        caption_files([str(folder)], out, manifest=None, seed=seed)
        captions.add(tuple(rows_of(out)["midi/two.MID"]["caption"]))
    assert len(captions) == 5


def test_files_of_the_same_notes_get_captions_of_their_own(folder: Path) -> None:
    out = folder.parent / "captions.jsonl"
    caption_files([str(folder)], out, manifest=None)
    rows = rows_of(out)
    assert rows["midi/a/one.mid"]["caption"] != rows["midi/left/deep/three.mid"]["caption"]


def test_bad_input_is_told_and_leaves_nothing(folder: Path) -> None:
    out = folder.parent / "captions.jsonl"
    with pytest.raises(UserError, match="0 captions a piece"):
        caption_files([str(folder)], out, manifest=None, count=0)
    with pytest.raises(UserError, match="no such folder"):
        caption_files([str(folder / "nowhere")], out, manifest=None)
    with pytest.raises(UserError, match=r"none of 1 MIDI files could be read, the first, bad\.mid"):
        caption_files([str(folder)], out, manifest=None, exclude=("left", "a", "two.MID"))
    manifest = folder.parent / "MANIFEST.tsv"
    with pytest.raises(UserError, match=r"MANIFEST\.tsv"):
        caption_files([str(folder)], out, manifest=manifest)
    manifest.write_text("file,title\n", encoding="utf-8")
    with pytest.raises(UserError, match='no column "path"'):
        caption_files([str(folder)], out, manifest=manifest)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["MANIFEST.tsv", "midi"]


def test_a_file_name_that_is_not_utf8_is_captioned_and_found_again(tmp_path: Path) -> None:
    name = b"caf\xe9.mid".decode("utf-8", "surrogateescape")
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / name).write_bytes(write_midi(band(drums=True)))
    out = tmp_path / "captions.jsonl"
    assert caption_files([str(tmp_path / "songs")], out, manifest=None, seed=1).written == 1
    location = json.loads(out.read_text())["location"]
    assert (tmp_path / location).is_file()


def test_fewer_captions_are_the_first_of_more(folder: Path) -> None:
    out = folder.parent / "captions.jsonl"
    caption_files([str(folder)], out, manifest=None, count=5)
    more = {location: row["caption"] for location, row in rows_of(out).items()}
    caption_files([str(folder)], out, manifest=None, count=2)
    fewer = {location: row["caption"] for location, row in rows_of(out).items()}
    assert [len(texts) for texts in more.values()] == [5, 5, 5]
    assert fewer == {location: texts[:2] for location, texts in more.items()}


def test_a_manifest_in_a_person_s_words_says_mood_and_genre(folder: Path) -> None:
    manifest = folder.parent / "MANIFEST.tsv"
    manifest.write_text("path\tgenre\tmood\na/one.mid\tslow air; lament\tdark, calm\n", encoding="utf-8")
    out = folder.parent / "captions.jsonl"
    report = caption_files([str(folder)], out, manifest=manifest, exclude=("left",), count=12)
    assert report.without_row == 1
    one, two = rows_of(out).values()
    assert (one["genre"], one["mood"]) == (["slow air", "lament"], ["dark", "calm"])
    assert "dark and calm" in " ".join(one["caption"])
    assert not {"genre", "mood"} & two.keys()


def test_the_lines_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    write_band(tmp_path / "band", 40, seed=1, profile="small", documents=0)
    for workers in (1, 2):
        caption_files([str(tmp_path / "band")], tmp_path / f"{workers}.jsonl", manifest=None, workers=workers)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_prepare_pairs_reads_what_is_written(folder: Path) -> None:
    out = folder.parent / "captions.jsonl"
    caption_files([str(folder)], out, manifest=None, exclude=("left", "bad.mid"))
    listing = captioned_files(str(out), midi=None, source="", exclude=())
    used = [record for record in listing.records if not record.problem]
    assert {record.name: list(record.captions) for record in used} == {
        location: row["caption"] for location, row in rows_of(out).items()
    }


def test_members_of_an_archive_are_named_as_pairs_finds_them(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "songs.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("a/one.mid", "two.MID", "bad.mid"):
            file.write(folder / name, f"songs/{name}")
    out = tmp_path / "made" / "captions.jsonl"
    report = caption_files([str(archive)], out, manifest=None)
    assert (report.written, len(report.rejected)) == (2, 1)
    listing = captioned_files(str(out), midi=str(archive), source="", exclude=())
    rows = rows_of(out)
    assert {record.name: list(record.captions) for record in listing.records if not record.problem} == {
        name: rows[name]["caption"] for name in ("songs/a/one.mid", "songs/two.MID")
    }
