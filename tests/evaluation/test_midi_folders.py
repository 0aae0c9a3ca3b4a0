"""Folders of .mid files with captions that name them in one way or another."""

import json
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.evaluation.midi_folders import folder_references, read_midi_folder
from midillm_jax.music.midi import NoteTable, write_midi


def folder(place: Path, *names: str) -> Path:
    """Files of two notes each, of another pitch for each."""
    for number, name in enumerate(names):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        notes = np.array([60 + number, 72 + number])
        path.write_bytes(write_midi(NoteTable(np.array([0, 50]), np.array([50, 50]), notes, np.array([90, 90]))))
    return place


def captions(place: Path, **texts: str) -> Path:
    """``x__1=...`` is a caption of x/1.mid."""
    path = place / "captions.jsonl"
    rows = [{"location": f"{name.replace('__', '/')}.mid", "caption": text} for name, text in texts.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(done: int, total: int) -> None:
    assert 0 <= done <= total


def words(place: Path, table: Path | None) -> dict[str, tuple[str, ...]]:
    return {piece.name: piece.captions for piece in read_midi_folder(place, table, told).pieces}


def test_captions_find_files_by_their_path_or_either_ones_end(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", "a.mid", "set/b.midi", "deep/set/c.mid", "none.mid")
    table = captions(tmp_path, lmd__1__a="one", set__b="two", c="three", gone="four")
    found = read_midi_folder(made, table, told)
    assert {piece.name: piece.captions for piece in found.pieces} == {
        "a.mid": ("one",),
        "set/b.midi": ("two",),
        "deep/set/c.mid": ("three",),
        "none.mid": (),
    }
    assert found.without_file == ("gone.mid",)
    assert found.pieces[0].notes.notes.tolist() == [60, 72]


def test_the_whole_path_wins_over_an_end(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", "x.mid", "a/x.mid")
    assert words(made, captions(tmp_path, x="outer", a__x="inner")) == {"x.mid": ("outer",), "a/x.mid": ("inner",)}


def test_what_could_be_either_is_refused(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", "a/x.mid", "b/x.mid")
    with pytest.raises(UserError, match=r"x\.mid fits a/x\.mid, b/x\.mid; expected one file"):
        read_midi_folder(made, captions(tmp_path, x="which"), told)
    flat = folder(tmp_path / "flat", "x.mid")
    with pytest.raises(UserError, match=r"a/x\.mid and b/x\.mid both fit x\.mid"):
        read_midi_folder(flat, captions(tmp_path, a__x="one", b__x="other"), told)


def test_captions_of_other_files_are_refused(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", "x.mid")
    with pytest.raises(UserError, match=r"none of its 1 locations names a MIDI file .*'y\.mid'"):
        read_midi_folder(made, captions(tmp_path, y="else"), told)
    with pytest.raises(UserError, match=r"--captions .*nowhere: no such file"):
        read_midi_folder(made, tmp_path / "nowhere", told)


def test_broken_files_are_told_and_not_taken(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", "good.mid")
    (made / "bad.mid").write_bytes(b"MThd and no more")
    found = read_midi_folder(made, None, told)
    assert [piece.name for piece in found.pieces] == ["good.mid"]
    assert [name for name, _ in found.refused] == ["bad.mid"]
    (made / "good.mid").unlink()
    with pytest.raises(UserError, match=r"none of its 1 MIDI files can be read \(bad\.mid: "):
        read_midi_folder(made, None, told)


def test_the_digest_is_that_of_content_names_and_captions(tmp_path: Path) -> None:
    one, same = folder(tmp_path / "one", "x.mid", "y.mid"), folder(tmp_path / "same", "x.mid", "y.mid")
    table, other = captions(tmp_path, x="one"), captions(tmp_path / "one", x="other")
    digest = read_midi_folder(one, table, told).digest
    assert read_midi_folder(same, table, told).digest == digest
    assert read_midi_folder(same, other, told).digest != digest
    (same / "y.mid").rename(same / "z.mid")
    assert read_midi_folder(same, table, told).digest != digest


def test_references_are_drawn_by_the_seed_and_bring_their_captions(tmp_path: Path) -> None:
    real = folder(tmp_path / "real", *(f"{number}.mid" for number in range(9)))
    captions(real, **{str(number): f"caption {number}" for number in range(9)})
    few, same, others = (folder_references(real, 5, seed, told) for seed in (1, 1, 2))
    assert [piece.name for piece in few.pieces] == [piece.name for piece in same.pieces]
    assert few.digest == same.digest != others.digest
    assert len(few.pieces) == 5
    assert all(piece.captions == (f"caption {piece.name[0]}",) for piece in few.pieces)
    assert len(folder_references(real, 20, 1, told).pieces) == 9
