"""Prepared folders lose what another folder or a held-out split has already, and nothing else."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data import dedupe as deduping
from midillm_jax.data.dedupe import Options, dedupe
from midillm_jax.data.shards import (
    Manifest,
    Piece,
    ShardWriter,
    SplitName,
    open_split,
    pack_piece,
    read_manifest,
    write_manifest,
)
from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable

OPTIONS = Options(0.4, within=False, listed=frozenset())


def tune(seed: int, move: int = 0, velocity: int = 64) -> NoteTable:
    """80 notes that no other seed has, ``move`` semitones higher."""
    rng = np.random.default_rng(seed)
    onsets = np.cumsum(rng.choice([12, 25, 50], 80)).astype(np.int32)
    pitches = (rng.integers(40, 80, 80) + move).astype(np.int32)
    return NoteTable(onsets, np.full(80, 10, np.int32), pitches, np.full(80, velocity, np.uint8))


def prepared(folder: Path, **splits: dict[str, NoteTable]) -> Path:
    """A folder of these pieces, by split and name; half of them from one source, half from another."""
    made = {}
    sources: dict[str, int] = {}
    for split, pieces in splits.items():
        with ShardWriter(folder, split, shard_bytes=1_000) as writer:  # type: ignore[arg-type]
            for place, (name, notes) in enumerate(pieces.items()):
                source = f"source {place % 2}"
                sources[source] = sources.get(source, 0) + 1
                packed = pack_piece(Piece(notes, (f"About {name}.",), source, f"id-{folder.name}-{name}", name))
                writer.write(packed, len(notes))
        made[split] = writer.split
    manifest = Manifest("pairs", made, sources, (("bad.mid", "no notes"),), {"min_notes": 1}, {"digest": folder.name})
    write_manifest(folder, manifest)
    return folder


def names(folder: Path, split: SplitName) -> list[str]:
    """In order; the lengths, counts and captions are checked on the way."""
    from midillm_jax.data.shards import unpack_piece

    part = read_manifest(folder).splits[split]
    if not part.records:
        return []
    reader = open_split(folder, split)
    pieces = [unpack_piece(reader[i]) for i in range(len(reader))]
    assert reader.lengths.tolist() == [len(piece.notes) for piece in pieces]
    assert part.size == reader.lengths.sum()
    assert part.records == len(pieces) == sum(shard.records for shard in part.shards)
    assert [piece.captions for piece in pieces] == [(f"About {piece.name}.",) for piece in pieces]
    return [piece.name for piece in pieces]


def report(out: Path) -> list[tuple[str, str, str, str, str]]:
    """(folder/split, name, reason, folder/split and name of the equal one)."""
    found = []
    for line in (out / "removed.jsonl").read_text().splitlines():
        row = json.loads(line)
        equal = row["equals"] or {"folder": "-", "split": "-", "name": "-"}
        place = f"{row['folder']}/{row['split']}"
        found.append((place, row["name"], row["reason"], f"{equal['folder']}/{equal['split']}", equal["name"]))
    return found


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Stage 2 (all three splits) and stage 1 (two): tunes are equal where their seeds are."""
    second = prepared(
        tmp_path / "paired",
        train={"a": tune(1), "b": tune(2), "c": tune(3), "d": tune(4, 3)},
        validation={"e": tune(3, 2), "f": tune(5), "g": tune(6)},
        test={"h": tune(5), "i": tune(4)},
    )
    first = prepared(
        tmp_path / "plain",
        train={"j": tune(7), "k": tune(1, velocity=9), "l": tune(6, -4), "m": tune(8), "n": tune(7, 1), "o": tune(9)},
        validation={"p": tune(2, 5), "q": tune(9), "r": tune(10)},
    )
    return [second, first]


REMOVED = [
    # Of the same folder, the split of lower rank loses; 5 is equal note for note, 3 and 4 are transposed.
    ("paired/validation", "f", "exact", "paired/test", "h"),
    ("paired/train", "c", "near", "paired/validation", "e"),
    ("paired/train", "d", "near", "paired/test", "i"),
    # Of another folder, the later one loses, whatever the splits.
    ("plain/validation", "p", "near", "paired/train", "b"),
    ("plain/train", "k", "exact", "paired/train", "a"),
    ("plain/train", "l", "near", "paired/validation", "g"),
    ("plain/train", "o", "exact", "plain/validation", "q"),
]


def test_the_piece_of_lower_rank_goes(two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clean"
    dedupe(two, out, OPTIONS)
    assert report(out) == REMOVED
    assert names(out / "paired", "test") == ["h", "i"]
    assert names(out / "paired", "validation") == ["e", "g"]
    assert names(out / "paired", "train") == ["a", "b"]
    assert names(out / "plain", "validation") == ["q", "r"]
    # j and n are the same tune, both in train: they stay.
    assert names(out / "plain", "train") == ["j", "m", "n"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[:6]]
    assert rows == [
        ["folder", "split", "pieces", "listed", "exact", "near", "kept"],
        ["paired", "test", "2", "0", "0", "0", "2"],
        ["paired", "validation", "3", "0", "1", "0", "2"],
        ["paired", "train", "4", "0", "0", "2", "2"],
        ["plain", "validation", "3", "0", "0", "1", "2"],
        ["plain", "train", "6", "0", "2", "1", "3"],
    ]
    lines = [json.loads(line) for line in (out / "removed.jsonl").read_text().splitlines()]
    assert all(line["similarity"] == 1 for line in lines)  # a transposed tune has all its runs
    assert lines[4]["piece_id"] == "id-plain-k"
    assert lines[4]["equals"]["piece_id"] == "id-paired-a"


def test_records_and_the_manifest_stay_what_they_were(two: list[Path], tmp_path: Path) -> None:
    before = [read_manifest(folder) for folder in two]
    dedupe(two, tmp_path / "clean", OPTIONS)
    after = [read_manifest(tmp_path / "clean" / folder.name) for folder in two]
    reader, original = open_split(tmp_path / "clean" / "plain", "train"), open_split(two[1], "train")
    assert [reader[i] for i in range(3)] == [original[i] for i in (0, 3, 4)]
    # Left of paired: a, b (sources 0, 1), e, g (0, 0), h, i (0, 1); of plain: j, m, n (0, 1, 0), q, r (1, 0).
    assert [manifest.sources for manifest in after] == [{"source 0": 4, "source 1": 2}, {"source 0": 3, "source 1": 2}]
    for old, new in zip(before, after, strict=True):
        assert dataclasses.replace(new, splits=old.splits, sources=old.sources, inputs=old.inputs) == old
        assert new.inputs["prepared"] == old.inputs
        assert list(new.splits) == list(old.splits)


def test_a_second_run_does_nothing_and_another_is_refused(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clean"
    dedupe(two, out, OPTIONS)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    dedupe(two, out, OPTIONS)
    assert "nothing to do" in capsys.readouterr().out
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    assert after == before
    for folders, options in (
        (two, dataclasses.replace(OPTIONS, threshold=0.5)),
        (two, dataclasses.replace(OPTIONS, within=True)),
        (two, dataclasses.replace(OPTIONS, listed=frozenset({"j"}))),
        (two[::-1], OPTIONS),
    ):
        with pytest.raises(UserError, match="made of other folders or with other options"):
            dedupe(folders, out, options)
    dedupe(two[::-1], out, OPTIONS, overwrite=True)
    assert names(out / "plain", "train") == ["j", "k", "l", "m", "n"]
    assert sorted(path.name for path in out.iterdir()) == ["paired", "plain", "removed.jsonl"]


def test_a_run_that_was_stopped_goes_on(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dedupe(two, tmp_path / "whole", OPTIONS)
    out, writes = tmp_path / "clean", []

    def stop(folder: Path, manifest: Manifest) -> None:
        writes.append(folder)
        if len(writes) == 2:
            raise KeyboardInterrupt
        write_manifest(folder, manifest)

    monkeypatch.setattr("midillm_jax.data.dedupe.write_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        dedupe(two, out, OPTIONS)
    monkeypatch.undo()
    assert sorted(path.name for path in out.iterdir()) == ["paired", "removed.jsonl"]
    dedupe(two, out, OPTIONS)
    made = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    whole = tmp_path / "whole"
    assert made == {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_within_keeps_the_first_of_equal_pieces(two: list[Path], tmp_path: Path) -> None:
    dedupe(two, tmp_path / "clean", dataclasses.replace(OPTIONS, within=True))
    assert report(tmp_path / "clean") == [*REMOVED[:6], ("plain/train", "n", "near", "plain/train", "j"), REMOVED[6]]
    assert names(tmp_path / "clean" / "plain", "train") == ["j", "m"]


def test_a_removed_piece_removes_nothing(tmp_path: Path) -> None:
    """b is like a, c is like b but not like a: c stays, as b goes."""
    one, other = tune(1), tune(2)
    cut = {0: slice(0, 80), 1: slice(40, 80)}

    def joined(first: slice, second: slice) -> NoteTable:
        onsets = np.concatenate([one.onsets[first], 9_000 + other.onsets[second]])
        notes = np.concatenate([one.notes[first], other.notes[second]])
        count = len(notes)
        return NoteTable(onsets, np.full(count, 10, np.int32), notes, np.full(count, 64, np.uint8))

    a, b, c = joined(cut[0], slice(0, 0)), joined(cut[0], slice(0, 60)), joined(cut[1], slice(0, 80))
    folders = [prepared(tmp_path / name, train={name: notes}) for name, notes in (("a", a), ("b", b), ("c", c))]
    dedupe(folders[1:], tmp_path / "two", OPTIONS)
    assert [line[1:3] for line in report(tmp_path / "two")] == [("c", "near")]
    dedupe(folders, tmp_path / "three", OPTIONS)
    assert [line[1:3] for line in report(tmp_path / "three")] == [("b", "near")]
    assert names(tmp_path / "three" / "c", "train") == ["c"]
    assert read_manifest(tmp_path / "three" / "b").splits["train"].records == 0


def test_listed_pieces_leave_every_training_split(tmp_path: Path) -> None:
    paired = prepared(
        tmp_path / "paired", train={"f/x1.mid": tune(1), "f/x2.mid": tune(2)}, test={"f/x3.mid": tune(3, 1)}
    )
    plain = prepared(
        tmp_path / "plain", train={"x1": tune(1), "x4": tune(3), "x5": tune(4, 2)}, validation={"x6": tune(1, 2)}
    )
    listed = frozenset({"x1", "x5", "not there"})
    late = prepared(tmp_path / "late", train={"y1": tune(4), "y2": tune(5)})
    dedupe([late, paired, plain], tmp_path / "clean", dataclasses.replace(OPTIONS, listed=listed))
    assert report(tmp_path / "clean") == [
        ("late/train", "y1", "near", "plain/train", "x5"),  # the listed piece stands in a folder of lower rank
        ("paired/train", "f/x1.mid", "listed", "-/-", "-"),
        ("plain/train", "x1", "listed", "-/-", "-"),
        ("plain/train", "x4", "near", "paired/test", "f/x3.mid"),
        ("plain/train", "x5", "listed", "-/-", "-"),
    ]
    # A held-out piece that is like a listed one stays: it is not trained on.
    assert names(tmp_path / "clean" / "plain", "validation") == ["x6"]


def test_a_report_alone_writes_no_folder(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "clean"
    dedupe(two, out, OPTIONS, report_only=True)
    assert report(out) == REMOVED
    assert [path.name for path in out.iterdir()] == ["removed.jsonl"]
    dedupe(two, out, OPTIONS)
    assert names(out / "paired", "train") == ["a", "b"]


def test_what_cannot_be_done_is_said(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a similarity above 0"):
        dedupe(two, tmp_path / "clean", dataclasses.replace(OPTIONS, threshold=0))
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        dedupe([tmp_path / "nowhere"], tmp_path / "clean", OPTIONS)
    with pytest.raises(UserError, match=r"holds .*paired itself"):
        dedupe(two, tmp_path, OPTIONS)
    twin = prepared(tmp_path / "other" / "paired", train={"a": tune(1)})
    with pytest.raises(UserError, match="two folders are called paired"):
        dedupe([*two, twin], tmp_path / "clean", OPTIONS)
    write_manifest(twin, dataclasses.replace(read_manifest(twin), kind="text"))
    with pytest.raises(UserError, match="holds text"):
        dedupe([twin], tmp_path / "clean", OPTIONS)
    (tmp_path / "clean" / "paired").mkdir(parents=True)
    (tmp_path / "clean" / "paired" / "mine").write_text("precious")
    with pytest.raises(UserError, match="was not made by"):
        dedupe(two, tmp_path / "clean", OPTIONS, overwrite=True)
    assert [path.name for path in (tmp_path / "clean").iterdir()] == ["paired"]


def test_several_processes_remove_the_same(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduping, "_PIECES_A_PROCESS", 1)  # as if that few were many
    dedupe(two, tmp_path / "clean", OPTIONS, workers=2)
    assert report(tmp_path / "clean") == REMOVED
    with pytest.raises(UserError, match="--workers -1"):
        dedupe(two, tmp_path / "other", OPTIONS, workers=-1)


def test_the_command_gives_the_same_answer_in_every_process(two: list[Path], tmp_path: Path) -> None:
    """Python's own hashes, which differ from process to process, decide nothing."""
    found = []
    for seed in ("1", "2"):
        out = tmp_path / f"clean {seed}"
        command = [sys.executable, "-m", "midillm_jax.prepare", "dedupe", "--within", "--report-only"]
        command += ["--input", *map(str, two), "--out", str(out)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
        found.append((out / "removed.jsonl").read_bytes())
    assert found[0] == found[1]
    assert found[0].count(b"\n") == len(REMOVED) + 1
