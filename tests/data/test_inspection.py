"""What is said of a folder is what is in it, and the picture is there."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midillm_jax import prepare
from midillm_jax.data.inspection import inspect
from midillm_jax.data.records import Piece, TextRecord, pack_piece, pack_text
from midillm_jax.data.shards import Manifest, ShardWriter, SplitName, TokenizerId, read_manifest, write_manifest
from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable
from midillm_jax.text.tokenizer import load_tokenizer, train_sentencepiece

REJECTED = (
    ("a.mid", "has 5 notes, fewer than the filter's 100"),
    ("b.mid", "has 12 notes, fewer than the filter's 100"),
    ("c\udce9.mid", "the file has no notes (byte 1,200)"),
)


def piece(number: int, notes: int) -> Piece:
    """Notes a quarter second apart on piano, every third one on drums from the tenth piece on."""
    numbers = np.full(notes, 60 + number, np.int32)
    if number >= 10:
        numbers[::3] = 128 * 128 + 38
    onsets = np.arange(notes, dtype=np.int32) * 25
    table = NoteTable(onsets, np.full(notes, 20, np.int32), numbers, np.full(notes, 90, np.uint8))
    captions = (f"Piece number {number}.",) if number % 2 else ()
    return Piece(table, captions, "mine", f"{number:016x}", f"folder/{number}.mid")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """16 pieces for training, of 20 to 35 notes, 4 held out, of 36 to 39 notes, and a test split that is empty."""
    folder = tmp_path / "shards"
    splits = {}
    places: dict[SplitName, range] = {"train": range(16), "validation": range(16, 20), "test": range(0)}
    for split, numbers in places.items():
        with ShardWriter(folder, split) as writer:
            for number in numbers:
                writer.write(pack_piece(piece(number, 20 + number)), 20 + number)
        splits[split] = writer.split
    write_manifest(
        folder, Manifest("pairs", splits, {"mine": 20}, REJECTED, {"min_notes": 20, "max_seconds": None}, {})
    )
    return folder


def said(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """The lines of the report, runs of spaces as one."""
    prepare.main(["inspect", str(folder), *map(str, arguments)])
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_music_in_words(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(music, capsys, "--examples", 20)
    stored = [sum(shard.bytes for shard in split.shards) for split in read_manifest(music).splits.values()]
    assert f"train 16 440 {stored[0]:,} {stored[0] / 440:.2f} 1" in lines
    assert f"validation 4 150 {stored[1]:,} {stored[1] / 150:.2f} 1" in lines
    assert "test 0 0 0 - 0" in lines
    assert "sources: mine 20" in lines
    assert "filters: min_notes 20" in lines
    assert lines[lines.index("left out: 3") + 1 :][:2] == [
        "2 has # notes, fewer than the filter's #",
        "1 the file has no notes (byte #)",
    ]
    assert "pieces read: all 20" in lines
    assert "notes a piece (all) 20 21 30 38 39 30" in lines
    assert "beats a minute 120 120 120 120 120 120" in lines
    assert "instruments, by share of pieces: Acoustic Grand Piano 100%, Drums 50%" in lines
    assert "meter: not stated 100%" in lines
    assert "pieces with a caption: 50% (0.5 captions a piece)" in lines
    start = lines.index("validation 3: folder/19.mid (mine, 0000000000000013)")
    assert lines[start + 1 : start + 7] == [
        "caption: Piece number 19.",
        "39 notes, 9.7 s, 120 beats a minute",
        "Drums, Acoustic Grand Piano",
        "0.00 s Drums Snare, 0.20 s, 90",
        "0.25 s Acoustic Grand Piano G5, 0.20 s, 90",
        "0.50 s Acoustic Grand Piano G5, 0.20 s, 90",
    ]
    # (onset, 10,000 + duration, 11,000 + 128 * program + pitch)
    assert (
        lines[start + 10] == "as events: (0, 10020, 27422) (25, 10020, 11079) (50, 10020, 11079) (75, 10020, 27422) ..."
    )


def test_a_sample_is_drawn_by_its_seed_and_said_to_be_one(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(music, capsys, "--sample", 5, "--seed", 3)
    assert "pieces read: 5 of 20, drawn with seed 3" in lines
    assert "notes a piece (all) 20 21 30 38 39 30" in lines
    assert said(music, capsys, "--sample", 5, "--seed", 3) == lines

    def examples(seed: int) -> set[str]:
        return {line for line in said(music, capsys, "--sample", 5, "--seed", seed) if "(mine, " in line}

    assert len(examples(3)) == 3
    assert len(set().union(*(examples(seed) for seed in range(10)))) > 10  # of 20 pieces, and 30 drawn


@pytest.mark.parametrize("sample", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_the_picture(music: Path, tmp_path: Path, sample: int) -> None:
    inspect(music, picture=tmp_path / "new" / "a.png", examples=0, sample=sample, seed=0, tokenizer=None)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    pixels = np.asarray(Image.open(tmp_path / "new" / "a.png").convert("RGB")).astype(int)
    assert pixels.shape[1] > 1000
    assert np.count_nonzero(pixels[..., 2] > pixels[..., 0] + 40) > 10_000  # blue: bars were drawn


def test_text_in_words_and_as_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "text.model"
    words = ["a waltz in the key of C", "the bass plays the root of every chord", "drums begin in bar nine"]
    tokenizer = train_sentencepiece(words * 20, model, 300)
    folder = tmp_path / "shards"
    encoded = [tokenizer.encode(text) for text in words]
    with ShardWriter(folder, "train") as writer:
        for number, ids in enumerate(encoded):
            writer.write(pack_text(TextRecord(np.array(ids, np.int32), "books", f"{number}.txt:0")), len(ids))
    identity = TokenizerId(tokenizer.fingerprint, tokenizer.vocab_size)
    write_manifest(folder, Manifest("text", {"train": writer.split}, {"books": 3}, (), {}, {}, identity))
    lines = said(folder, capsys, "--out", tmp_path / "text.png", "--tokenizer", model)
    lengths = [len(ids) for ids in encoded]
    assert f"train 3 {sum(lengths)}" in " ".join(lines)
    assert f"tokens of the vocabulary that occur: {len(set().union(*encoded))} of 300" in lines
    for number, text in enumerate(words):
        start = lines.index(f"train {number}: {number}.txt:0 (books), {lengths[number]} tokens")
        assert lines[start + 1] == text
    assert Image.open(tmp_path / "text.png").width > 500
    bare = said(folder, capsys)
    assert bare[bare.index("train 0: 0.txt:0 (books), " + f"{lengths[0]} tokens") + 1].split() == [
        str(number) for number in encoded[0]
    ]
    other = tmp_path / "other.model"
    train_sentencepiece([*words, "more words than that"] * 20, other, 300)
    assert load_tokenizer(other).fingerprint != tokenizer.fingerprint
    with pytest.raises(UserError, match="was made with the tokenizer"):
        said(folder, capsys, "--tokenizer", other)


def test_what_cannot_be_inspected_is_named(music: Path, tmp_path: Path) -> None:
    options = {"picture": None, "examples": 1, "sample": 10, "seed": 0, "tokenizer": None}
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        inspect(tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--sample 0"):
        inspect(music, **{**options, "sample": 0})  # type: ignore[arg-type]
    manifest = read_manifest(music)
    write_manifest(music, dataclasses.replace(manifest, splits={"test": manifest.splits["test"]}))
    with pytest.raises(UserError, match="holds no records"):
        inspect(music, **options)  # type: ignore[arg-type]
