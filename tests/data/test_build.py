"""Folders of real files become shards that read back as what was in the files."""

import collections
import dataclasses
import io
import itertools
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mido
import numpy as np
import pytest

from midillm_jax.data.build import Plan, Runner, build, music_plan, text_plan
from midillm_jax.data.jobs import Filters, MidiJob, TextJob, notes_digest
from midillm_jax.data.shards import Manifest, Piece, open_split, unpack_piece, unpack_text, write_manifest
from midillm_jax.data.sources import Listing, Record, captioned_files, midi_files, text_files
from midillm_jax.data.splits import SplitRule, split_of
from midillm_jax.errors import UserError
from midillm_jax.music.midi import read_midi
from midillm_jax.text.tokenizer import load_tokenizer, train_sentencepiece

NO_FILTERS = Filters()


def midi_bytes(
    notes: int = 4,
    programs: tuple[int, ...] = (0,),
    first: int = 40,
    gap: float = 0.5,
    *,
    scale: int = 1,
    velocity: int = 64,
    silence: int = 0,
) -> bytes:
    """Notes of a quarter second, ``gap`` seconds apart, going round the programs.

    ``scale`` is how finely time is written, ``silence`` the seconds in front: neither is heard in the notes.
    """
    file = mido.MidiFile(ticks_per_beat=100 * scale)  # 200 * scale ticks a second
    track = mido.MidiTrack()
    file.tracks.append(track)
    for channel, program in enumerate(programs):
        track.append(mido.Message("program_change", channel=channel, program=program))
    for i in range(notes):
        pitch, channel = first + i % 40, i % len(programs)
        wait = (round(200 * gap) - 50 if i else 200 * silence) * scale
        track.append(mido.Message("note_on", note=pitch, channel=channel, velocity=velocity, time=wait))
        track.append(mido.Message("note_off", note=pitch, channel=channel, time=50 * scale))
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


@dataclasses.dataclass(frozen=True)
class Given:
    """A part whose records are at hand."""

    records: tuple[Record, ...]
    size_bytes: int = 0

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def version(self) -> str:
        return ""

    def content(self) -> None:
        return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 good files of 4 to 43 notes in two subfolders, and three that give no piece."""
    root = tmp_path / "songs"
    for i in range(40):
        path = root / ("a" if i % 2 else "b") / f"{i:02d}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(midi_bytes(4 + i))
    (root / "a" / "text.mid").write_text("not MIDI at all")
    (root / "cut.mid").write_bytes(midi_bytes(20)[:-30])
    (root / "silent.mid").write_bytes(midi_bytes(0))
    return root


def build_midi(
    folder: Path,
    out: Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    share: float = 0.25,
    filters: Filters = NO_FILTERS,
) -> Manifest:
    listing = midi_files([str(folder)], source="", exclude=())
    plan = music_plan(listing, "midi", filters, SplitRule(validation_share=share))
    return build(listing, plan, out, runner=Runner(workers), overwrite=overwrite)


def pieces(out: Path, manifest: Manifest) -> dict[str, tuple[str, Piece]]:
    """Name -> (split, piece)."""
    found = {}
    for split in ("train", "validation"):
        if manifest.splits[split].records:
            reader = open_split(out, split)  # type: ignore[arg-type]
            for i in range(len(reader)):
                piece = unpack_piece(reader[i])
                assert reader.lengths[i] == len(piece.notes)
                found[piece.name] = (split, piece)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_midi_files_become_pieces(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out"
    manifest = build_midi(folder, out)
    found = pieces(out, manifest)
    good = [*sorted((folder / "a").glob("[0-9]*")), *sorted((folder / "b").glob("*"))]
    assert list(manifest.sources.items()) == [("songs", 40)]
    assert sorted(found) == [path.relative_to(folder).as_posix() for path in good]
    for path in good:
        _, piece = found[path.relative_to(folder).as_posix()]
        want = read_midi(path.read_bytes())
        for field in ("onsets", "durations", "notes", "velocities", "tempos", "meters"):
            np.testing.assert_array_equal(getattr(piece.notes, field), getattr(want, field))
        assert (piece.source, piece.captions) == ("songs", ())
    assert len({piece.piece_id for _, piece in found.values()}) == 40
    assert [name for name, _ in manifest.rejected] == ["a/text.mid", "cut.mid", "silent.mid"]
    reasons = dict(manifest.rejected)
    assert "does not begin with MThd" in reasons["a/text.mid"]
    assert "no notes" in reasons["silent.mid"]
    assert all("byte" in reason for reason in reasons.values())
    # Within a split, records stand in the order of their names.
    for split in ("train", "validation"):
        in_split = [name for name, (side, _) in found.items() if side == split]
        assert in_split == sorted(in_split)
        assert len(in_split) == manifest.splits[split].records > 0
    said = capsys.readouterr().out
    assert f"train: {manifest.splits['train'].records} pieces" in said
    assert "left out: 3" in said
    assert "text.mid" in said
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_shards_do_not_depend_on_the_number_of_processes(folder: Path, tmp_path: Path) -> None:
    build_midi(folder, tmp_path / "one", workers=1)
    build_midi(folder, tmp_path / "three", workers=3)
    assert files(tmp_path / "one") == files(tmp_path / "three")


def test_captions_and_groups(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        (tmp_path / f"{i:02d}.mid").write_bytes(midi_bytes(4 + i))
        rows.append({"location": f"{i:02d}.mid", "caption": [f"piece {i}", "short"], "group": f"group {i % 12}"})
    rows.append({"location": "gone.mid", "caption": "nowhere"})
    (tmp_path / "bare.mid").write_bytes(midi_bytes())
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    listing = captioned_files(str(tmp_path), midi=None, source="s", exclude=())
    out = tmp_path / "out"
    manifest = build(
        listing,
        music_plan(listing, "pairs", NO_FILTERS, SplitRule(validation_share=0.4)),
        out,
        runner=Runner(1),
        overwrite=False,
    )
    assert manifest.kind == "pairs"
    assert [name for name, _ in manifest.rejected] == ["bare.mid", "gone.mid"]
    found = pieces(out, manifest)
    assert found["07.mid"][1].captions == ("piece 7", "short")
    sides = collections.defaultdict(set)
    for name, (split, _) in found.items():
        sides[int(name[:2]) % 12].add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert set(itertools.chain(*sides.values())) == {"train", "validation"}


def test_split_depends_on_content_alone(folder: Path, tmp_path: Path) -> None:
    before = {
        piece.piece_id: split for split, piece in pieces(tmp_path / "x", build_midi(folder, tmp_path / "x")).values()
    }
    moved = tmp_path / "moved"
    for i, path in enumerate(sorted(folder.rglob("*.mid"))[5:30]):
        (moved / f"{99 - i}").mkdir(parents=True)
        (moved / f"{99 - i}" / "x.mid").write_bytes(path.read_bytes())
    after = pieces(tmp_path / "y", build_midi(moved, tmp_path / "y"))
    assert len(after) > 20
    assert all(before[piece.piece_id] == split for split, piece in after.values())


def write_copies(folder: Path, grouped: bool) -> None:
    """20 songs, each as four files of other bytes but the same notes, all captioned; ``grouped`` by copy, not song."""
    rows = []
    for song in range(20):
        ways = ({}, {"scale": 3}, {"velocity": 99}, {"silence": 2})
        for copy, way in enumerate(ways):
            name = f"{song:02d}-{copy}.mid"
            (folder / name).write_bytes(midi_bytes(4 + song, **way))  # type: ignore[arg-type]
            row = {"location": name, "caption": f"song {song} as {way}"}
            rows.append(row | ({"group": f"way {copy}"} if grouped else {}))
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_equal_notes_fall_on_one_side(tmp_path: Path) -> None:
    """However they are written down, and whether or not their captions are read: the two stages share one split."""
    write_copies(tmp_path, grouped=False)
    alone = pieces(tmp_path / "midi", build_midi(tmp_path, tmp_path / "midi", share=0.4))
    listing = captioned_files(str(tmp_path), midi=None, source="", exclude=())
    plan = music_plan(listing, "pairs", NO_FILTERS, SplitRule(validation_share=0.4))
    paired = pieces(tmp_path / "pairs", build(listing, plan, tmp_path / "pairs", runner=Runner(2), overwrite=False))
    assert {name: side for name, (side, _) in alone.items()} == {name: side for name, (side, _) in paired.items()}
    assert len({piece.piece_id for _, piece in alone.values()}) == 80
    sides = [{alone[f"{song:02d}-{copy}.mid"][0] for copy in range(4)} for song in range(20)]
    assert all(len(side) == 1 for side in sides)
    assert set().union(*sides) == {"train", "validation"}


def test_a_group_that_is_given_goes_before_the_notes(tmp_path: Path) -> None:
    write_copies(tmp_path, grouped=True)
    listing = captioned_files(str(tmp_path), midi=None, source="", exclude=())
    plan = music_plan(listing, "pairs", NO_FILTERS, SplitRule(validation_share=0.4))
    found = pieces(tmp_path / "out", build(listing, plan, tmp_path / "out", runner=Runner(1), overwrite=False))
    for copy in range(4):
        expected = split_of(f"way {copy}", 0.4)
        assert {found[f"{song:02d}-{copy}.mid"][0] for song in range(20)} == {expected}
    assert len({side for side, _ in found.values()}) == 2


def test_notes_decide_the_digest_and_nothing_else() -> None:
    table = read_midi(midi_bytes(8, programs=(0, 33)))
    same = notes_digest(table)
    later = dataclasses.replace(table, onsets=table.onsets + np.int32(7), velocities=table.velocities - np.uint8(1))
    assert notes_digest(later) == same
    together = dataclasses.replace(table, onsets=table.onsets * np.int32(0))
    backwards = {name: getattr(together, name)[::-1] for name in ("durations", "notes")}
    assert notes_digest(dataclasses.replace(together, **backwards)) == notes_digest(together)
    changes = {name: getattr(table, name).copy() for name in ("onsets", "durations", "notes")}
    for name, column in changes.items():
        column[5] += 1
        assert notes_digest(dataclasses.replace(table, **{name: column})) != same


def test_a_folder_split_by_an_older_rule_is_not_taken_for_the_new(folder: Path, tmp_path: Path) -> None:
    manifest = build_midi(folder, tmp_path / "out")
    options = {name: value for name, value in manifest.inputs["options"].items() if name != "split version"}
    older = dataclasses.replace(manifest, inputs=manifest.inputs | {"options": options})
    write_manifest(tmp_path / "out", older)
    with pytest.raises(UserError, match=r"made differently \(split version\)"):
        build_midi(folder, tmp_path / "out")


@pytest.mark.parametrize("count", [19, 20])
def test_pages_of_a_book_stay_together_where_there_are_books_enough(tmp_path: Path, count: int) -> None:
    books = tmp_path / "books"
    books.mkdir()
    for book in range(count):
        pages = [f"Page {page} of book {book}, in which nothing happens at all." for page in range(6)]
        (books / f"{book:02d}.txt").write_text("\n\n".join(pages))
    train_sentencepiece([f"Page of book, in which nothing happens {i}" for i in range(50)], tmp_path / "t.model", 300)
    listing = text_files([str(books)], source="", exclude=(), document_bytes=64)
    plan = text_plan(str(tmp_path / "t.model"), SplitRule(validation_share=0.4))
    build(listing, plan, tmp_path / "out", runner=Runner(1), overwrite=False)
    sides = collections.defaultdict(list)
    for split in ("train", "validation"):
        reader = open_split(tmp_path / "out", split)  # type: ignore[arg-type]
        for i in range(len(reader)):
            sides[unpack_text(reader[i]).name.split(":")[0]].append(split)
    assert {len(side) for side in sides.values()} == {6}
    whole = [len(set(side)) == 1 for side in sides.values()]
    assert len(whole) == count
    # 19 times six pages drawn one by one are all but never all on one side.
    assert all(whole) if count == 20 else sum(whole) < 6


def test_split_share() -> None:
    groups = [f"group {i}" for i in range(4000)]
    held_out = {share: {g for g in groups if split_of(g, share) == "validation"} for share in (0.0, 0.05, 0.25)}
    assert not held_out[0.0]
    assert held_out[0.05] < held_out[0.25]  # a larger share only adds
    assert abs(len(held_out[0.05]) / 4000 - 0.05) < 0.015  # four standard deviations
    assert abs(len(held_out[0.25]) / 4000 - 0.25) < 0.03


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (Filters(), None),
        (Filters(min_notes=20), None),
        (Filters(min_notes=21), "has 20 notes, fewer than the filter's 21"),
        (Filters(min_seconds=9.5), None),
        (Filters(min_seconds=9.6), "ends after 9.5 s, before the filter's 9.6 s"),
        (Filters(max_seconds=9.5), None),
        (Filters(max_seconds=9.4), "ends after 9.5 s, beyond the filter's 9.4 s"),
        (Filters(max_programs=3), None),
        (Filters(max_programs=2), "has 3 instruments, more than the filter's 2"),
    ],
)
def test_filters_at_their_limits(filters: Filters, reason: str | None) -> None:
    record = Record("s", "n", content=midi_bytes(20, programs=(0, 33, 48)))  # onsets 0, .5 ... 9.5 s
    outcome = MidiJob(filters, compiled=False)(record)
    assert outcome.reason == (reason or "")
    assert (outcome.packed is None) == (reason is not None)
    assert outcome.length == (0 if reason else 20)


def test_filters_are_in_the_manifest(folder: Path, tmp_path: Path) -> None:
    manifest = build_midi(folder, tmp_path / "out", filters=Filters(min_notes=30))
    assert sum(split.records for split in manifest.splits.values()) == 14  # 30 .. 43 notes
    assert manifest.filters == {"min_notes": 30, "min_seconds": 0.0, "max_seconds": None, "max_programs": None}
    assert len(manifest.rejected) == 26 + 3


def test_unreadable_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "good.mid").write_bytes(midi_bytes())
    (tmp_path / "dangling.mid").symlink_to(tmp_path / "nowhere")
    manifest = build_midi(tmp_path, tmp_path / "out", share=0)
    assert manifest.rejected == (("dangling.mid", "cannot be read: No such file or directory"),)
    assert manifest.splits["train"].records == 1
    build_midi(tmp_path, tmp_path / "out", share=0)  # the same inputs, dangling link included: nothing to do


def test_nothing_usable_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mid").write_text("no")
    (tmp_path / "in" / "b.mid").write_bytes(midi_bytes(0))
    with pytest.raises(UserError, match=r"nothing was usable, of 2 inputs; the first, a\.mid: .*\(byte 2\)"):
        build_midi(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_finished_folder_is_left_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    first = build_midi(folder, out)
    made = {path: path.stat().st_ino for path in out.iterdir()}
    for path in folder.rglob("*.mid"):
        os.utime(path, (1, 1))  # copied or touched files are the same files
    capsys.readouterr()
    assert build_midi(folder, out) == first
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_ino for path in out.iterdir()} == made


def test_a_folder_made_otherwise_is_not_overwritten_unasked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_midi(folder, out)
    before = files(out)
    with pytest.raises(UserError, match=r"made differently \(filters\); give another --out, or --overwrite"):
        build_midi(folder, out, filters=Filters(max_programs=16))
    with pytest.raises(UserError, match=r"made differently \(validation share\)"):
        build_midi(folder, out, share=0.5)
    good = (folder / "a" / "01.mid").read_bytes()
    (folder / "a" / "01.mid").write_bytes(midi_bytes(5, first=60))
    with pytest.raises(UserError, match=r"made differently \(input files\)"):
        build_midi(folder, out)
    assert files(out) == before
    build_midi(folder, out, overwrite=True)
    assert files(out) != before
    (folder / "a" / "01.mid").write_bytes(good)
    build_midi(folder, out, overwrite=True)
    assert files(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "songs"]


def test_a_folder_that_is_not_ours_is_never_touched(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        for place in (home, home / "thesis.tex"):
            with pytest.raises(UserError, match="was not made by"):
                build_midi(folder, place, overwrite=overwrite)
    assert files(home) == {"thesis.tex": b"years of work"}


def test_what_a_killed_build_left_is_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "train-00000.array_record.partial").write_bytes(b"half")
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    build_midi(folder, tmp_path / "out")
    build_midi(folder, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out", "songs"]


def test_a_fault_in_a_job_names_the_record_and_leaves_nothing(tmp_path: Path) -> None:
    def job(record: Record) -> None:
        raise ZeroDivisionError(record.name)

    listing = Listing((Given((Record("s", "a.mid", content=b""),)),), "files")
    with pytest.raises(ZeroDivisionError) as error:
        build(listing, Plan("midi", job, SplitRule()), tmp_path / "out", runner=Runner(1), overwrite=False)  # type: ignore[arg-type]
    assert error.value.__notes__ == ["while preparing a.mid"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("share", "workers", "message"), [(1.0, 1, "--validation-share 1.0"), (0.1, -1, "--workers -1")]
)
def test_numbers_out_of_range(folder: Path, tmp_path: Path, share: float, workers: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_midi(folder, tmp_path / "out", share=share, workers=workers)


def test_text_becomes_token_ids(tmp_path: Path) -> None:
    books = tmp_path / "books"
    books.mkdir()
    paragraphs = [f"Chapter {i}.\nOn the {'very ' * (i % 7)}slow waltz and its café, part {i}." for i in range(60)]
    (books / "a.txt").write_text("\n\n".join(paragraphs[:40]) + "\n")
    (books / "b.md").write_text("\ufeff" + "\r\n\r\n".join(paragraphs[40:]).replace("\n", "\n"))
    (books / "latin.txt").write_bytes("été\n".encode("latin-1"))
    model = tmp_path / "t.model"
    tokenizer = train_sentencepiece(paragraphs, model, 320)
    listing = text_files([str(books)], source="", exclude=(), document_bytes=256)
    out = tmp_path / "out"
    manifest = build(
        listing, text_plan(str(model), SplitRule(validation_share=0.3)), out, runner=Runner(2), overwrite=False
    )
    assert manifest.tokenizer is not None
    assert manifest.tokenizer.fingerprint == tokenizer.fingerprint
    assert manifest.tokenizer.vocab_size == 320
    assert manifest.rejected == (("latin.txt:0", "byte 0 of this part is not UTF-8 (invalid continuation byte)"),)
    texts = {}
    for split in ("train", "validation"):
        reader = open_split(out, split, kinds=("text",), fingerprint=tokenizer.fingerprint)  # type: ignore[arg-type]
        for i in range(len(reader)):
            record = unpack_text(reader[i])
            assert reader.lengths[i] == len(record.ids)
            texts[record.name] = load_tokenizer(model).decode(record.ids)
            assert record.source == "books"
    assert manifest.sources == {"books": len(texts)}
    in_order = sorted(texts, key=lambda name: (name.split(":")[0], int(name.split(":")[1])))
    again = "\n\n".join(texts[name].strip("\n") for name in in_order)
    assert again == "\n\n".join(paragraphs)
    other = tmp_path / "other.model"
    train_sentencepiece(paragraphs, other, 300)
    with pytest.raises(UserError, match=r"made differently \(tokenizer\)"):
        build(listing, text_plan(str(other), SplitRule(validation_share=0.3)), out, runner=Runner(1), overwrite=False)


def test_white_space_alone_is_not_usable(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\n \n")
    train_sentencepiece(["a few words of text here"], tmp_path / "t.model", 275)
    listing = text_files([str(tmp_path)], source="", exclude=(), document_bytes=64)
    with pytest.raises(UserError, match="nothing but white space"):
        build(
            listing,
            text_plan(str(tmp_path / "t.model"), SplitRule(validation_share=0.1)),
            tmp_path / "out",
            runner=Runner(1),
            overwrite=False,
        )
    assert TextJob(str(tmp_path / "t.model"))(Record("s", "n", content=b"\xef\xbb\xbf")).reason == (
        "the tokenizer finds nothing in it"
    )


def test_a_test_split_is_made_where_the_rule_has_one(tmp_path: Path) -> None:
    for i in range(48):
        (tmp_path / "lakh").mkdir(exist_ok=True)
        (tmp_path / "lakh" / f"{i % 16:x}{i:031x}.mid").write_bytes(midi_bytes(4 + i))
    out = tmp_path / "out"
    manifest = build_midi(tmp_path / "lakh", out)
    assert {name: split.records for name, split in manifest.splits.items()} == {
        "train": 42,
        "validation": 3,
        "test": 3,
    }
    reader = open_split(out, "test")
    assert [unpack_piece(reader[i]).name[0] for i in range(3)] == ["f"] * 3
    listing = midi_files([str(tmp_path / "lakh")], source="", exclude=())
    chosen = SplitRule("hash", 0.0, frozenset({f"{3:x}{3:031x}"}))
    plan = music_plan(listing, "midi", NO_FILTERS, chosen)
    manifest = build(listing, plan, tmp_path / "ids", runner=Runner(1), overwrite=False)
    assert {name: split.records for name, split in manifest.splits.items()} == {
        "train": 47,
        "validation": 0,
        "test": 1,
    }


def test_an_archive_counts_by_its_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished folder is known again by the archive that it was made of, captions included."""

    def write(first: int) -> None:
        with zipfile.ZipFile(tmp_path / "songs.zip", "w") as file:
            for i in range(6):
                file.writestr(zipfile.ZipInfo(f"{i}.mid"), midi_bytes(first + i))

    def build_pairs(share: float = 0.0) -> Manifest:
        archive, table = str(tmp_path / "songs.zip"), str(tmp_path / "c.jsonl")
        listing = captioned_files(table, midi=archive, source="", exclude=())
        plan = music_plan(listing, "pairs", NO_FILTERS, SplitRule(validation_share=share))
        return build(listing, plan, tmp_path / "out", runner=Runner(1), overwrite=False)

    write(4)
    rows = [{"location": f"{i}.mid", "caption": f"piece {i}"} for i in range(5)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = build_pairs()
    assert made.rejected == (("5.mid", "no caption in c.jsonl names it"),)
    os.utime(tmp_path / "songs.zip", (1, 1))
    capsys.readouterr()
    assert build_pairs() == made
    assert "nothing to do" in capsys.readouterr().out
    write(5)
    with pytest.raises(UserError, match=r"made differently \(input files\)"):
        build_pairs()
    write(4)
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row | {"caption": "other"}) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"made differently \(input files\)"):
        build_pairs()


def test_rules_that_hold_out_nothing_for_testing_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong list, or captions without the column, would have test pieces trained on unnoticed."""

    def build_with(rule: SplitRule) -> Manifest:
        listing = midi_files([str(folder)], source="", exclude=())
        plan = music_plan(listing, "midi", NO_FILTERS, rule)
        return build(listing, plan, tmp_path / "out", runner=Runner(1), overwrite=False)

    with pytest.raises(UserError, match=r"--test-ids: none of its 2 names \(such as nobody\) is that of a file"):
        build_with(SplitRule(test_ids=frozenset({"nobody", "nothing"})))
    with pytest.raises(UserError, match="none of the pieces has it true; use --split hash"):
        build_with(SplitRule("midicaps"))
    assert [path.name for path in tmp_path.iterdir()] == ["songs"]
    capsys.readouterr()
    manifest = build_with(SplitRule(test_ids=frozenset({"nobody", "07", "08"})))
    assert manifest.splits["test"].records == 2
    assert "test ids: 2 of 3 are here" in capsys.readouterr().out


def test_a_finished_folder_that_lost_a_shard_is_not_called_finished(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_midi(folder, out)
    before = files(out)
    shard = out / "train-00000-of-00001.array_record"
    for spoil, found in ((shard.unlink, "is missing"), (lambda: shard.write_bytes(b"cut"), "has 3 bytes")):
        spoil()
        with pytest.raises(UserError, match=rf"{shard.name} {found}.*--overwrite"):
            build_midi(folder, out)
    build_midi(folder, out, overwrite=True)
    assert files(out) == before


def test_options_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    listing = midi_files([str(folder)], source="", exclude=())
    with pytest.raises(UserError, match=r"--filters\.min-notes -5: expected a number from 0 up"):
        music_plan(listing, "midi", Filters(min_notes=-5), SplitRule())
    plan = music_plan(listing, "midi", NO_FILTERS, SplitRule())
    for runner, option in ((Runner(staging="x"), "--staging"), (Runner(beam_options=("a=b",)), "--beam-options")):
        with pytest.raises(UserError, match=f"{option} is for Apache Beam; add --runner"):
            build(listing, plan, tmp_path / "out", runner=runner, overwrite=False)
    with pytest.raises(UserError, match=r"--out gs://mine/data: shards are written to a folder of this machine"):
        build(listing, plan, Path("gs://mine/data"), runner=Runner(1), overwrite=False)


def test_what_was_left_out_is_told_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(20):
        (tmp_path / f"{i:02d}.mid").write_bytes(midi_bytes(4 + i) if i < 15 else midi_bytes(0) if i < 19 else b"no")
    build_midi(tmp_path, tmp_path / "out", filters=Filters(min_notes=10), share=0)
    said = capsys.readouterr().out
    assert "left out: 11" in said
    assert "  00.mid: has 4 notes, fewer than the filter's 10; 5 more like it\n" in said
    assert "  15.mid: the file has no notes (byte " in said
    assert "; 3 more like it\n" in said
    assert "validation: no pieces\n" in said  # none was asked for
