"""What is counted of the train split, and how much of a large one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.shards import Manifest, Piece, ShardWriter, Split, SplitName, pack_piece, write_manifest
from midillm_jax.errors import UserError
from midillm_jax.evaluation import inputs
from midillm_jax.evaluation.inputs import HeldOut, Named, open_pairs, read_held_out
from midillm_jax.evaluation.likelihood import cut
from midillm_jax.evaluation.ngram import Ngram
from midillm_jax.music.midi import NoteTable
from midillm_jax.text.prompt import PROMPT_PREFIX, music_room, prompt_ids
from midillm_jax.text.tokenizer import Tokenizer, train_sentencepiece

TRAIN, NOTES, LENGTH = 40, 30, 192


def piece(number: int) -> Piece:
    rng = np.random.default_rng(number)
    onsets = np.cumsum(rng.integers(0, 40, NOTES))
    notes = NoteTable(onsets, np.full(NOTES, 20), rng.integers(50, 70, NOTES), np.full(NOTES, 90))
    return Piece(notes, (f"slow waltz number {number}",), "s", str(number), "n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pieces of 30 notes to train on, and two held out."""
    root = tmp_path_factory.mktemp("pairs")
    splits = {}
    for name, numbers in (("train", range(TRAIN)), ("validation", range(TRAIN, TRAIN + 2))):
        with ShardWriter(root, name) as writer:
            for number in numbers:
                writer.write(pack_piece(piece(number)), NOTES)
        splits[name] = writer.split
    write_manifest(root, Manifest("pairs", splits, {"s": TRAIN + 2}, (), {}, {}))
    return root


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_sentencepiece(
        [PROMPT_PREFIX, "slow waltz number 0123456789"], tmp_path_factory.mktemp("sp") / "t", 300
    )


def read(folder: Path, tokenizer: Tokenizer) -> HeldOut:
    return read_held_out(*open_pairs(folder), tokenizer, LENGTH, pieces=2, seed=0, report=lambda done, total: None)


def test_the_5_gram_counts_every_piece_of_the_train_split_whole(folder: Path, tokenizer: Tokenizer) -> None:
    found = read(folder, tokenizer)
    assert found.ngram_pieces == found.train_pieces == TRAIN
    same = Ngram()
    for number in range(TRAIN):
        each = piece(number)
        room = music_room(prompt_ids(tokenizer, each.captions[0]), LENGTH)
        same.add([window.amt_ids for window in cut(each.notes, room)])
    (window, *_) = cut(found.pieces[0].notes, 40)
    assert found.ngram.nats(window.amt_ids) == pytest.approx(same.nats(window.amt_ids), rel=1e-12)


def test_of_a_large_train_split_it_counts_a_share_of_the_pieces(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(folder, tokenizer)
    monkeypatch.setattr(inputs, "MOST_NGRAM_NOTES", TRAIN * NOTES // 2)
    found = read(folder, tokenizer)
    assert TRAIN / 4 < found.ngram_pieces < 3 * TRAIN / 4
    assert found.train_pieces == TRAIN
    counted, all_counted = (each.ngram.slots[2][-1].counts.sum() for each in (found, whole))
    assert counted / all_counted == pytest.approx(found.ngram_pieces / TRAIN, abs=0.05)


def test_a_named_set_is_looked_for_in_all_that_is_held_out(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Names are those of files; what stands in the train split, or nowhere, is counted and not scored."""
    splits: dict[str, Split] = {}
    numbers: dict[SplitName, range] = {"train": range(10), "validation": range(10, 13), "test": range(13, 18)}
    for name, part in numbers.items():
        with ShardWriter(tmp_path, name) as writer:
            for number in part:
                writer.write(pack_piece(dataclasses.replace(piece(number), name=f"lmd/{number}.mid")), NOTES)
        splits[name] = writer.split
    write_manifest(tmp_path, Manifest("pairs", splits, {"s": 18}, (), {}, {}))
    assert [reader.name for reader in open_pairs(tmp_path)[1]] == ["validation"]
    train, held_out = open_pairs(tmp_path, named=True)
    assert {reader.name for reader in held_out} == {"validation", "test"}

    def named(*ids: str, pieces: int | None = None) -> HeldOut:
        ids_ = frozenset(ids)
        return read_held_out(
            train, held_out, tokenizer, LENGTH, pieces=pieces, seed=0, ids=ids_, report=lambda done, total: None
        )

    found = named("3", "11", "14", "17", "99")
    assert sorted(each.name for each in found.pieces) == ["lmd/11.mid", "lmd/14.mid", "lmd/17.mid"]
    assert found.named == Named(ids=5, held_out=3, in_train=1)
    assert found.named.line().endswith(
        "3 are among the held-out pieces; 1 stand in the train split and are not scored."
    )
    some = named("11", "14", "17", pieces=2)
    assert (len(some.pieces), some.named) == (2, Named(ids=3, held_out=3, in_train=0))
    with pytest.raises(UserError, match=r"none of the 8 held-out pieces that bear one of the 2 names of --ids can be"):
        named("3", "99")
