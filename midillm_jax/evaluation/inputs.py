"""What an evaluation reads: the model folder's identity, held-out pieces, the train split, prompts."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.data.jobs import notes_digest
from midillm_jax.data.shards import Manifest, Piece, SplitName, SplitReader, open_split
from midillm_jax.data.splits import stem_of
from midillm_jax.data.windows import LEAST_TRIPLES
from midillm_jax.errors import UserError
from midillm_jax.evaluation.likelihood import Unigram, cut
from midillm_jax.evaluation.ngram import Ngram
from midillm_jax.text.prompt import music_room, prompt_ids
from midillm_jax.text.tokenizer import Tokenizer

_MODEL_FILES = (".json", ".model", ".safetensors")
_REPORT_EVERY = 64
MOST_NGRAM_NOTES = 8_000_000
"""Notes that the 5-gram counts, so that it fits into memory; of a larger train split, a share of the pieces."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Words to make music from."""

    text: str
    name: str
    """Where the words come from: a held-out piece's name, or a line of a file."""
    programs: tuple[int, ...] | None = None
    """Programs of the piece that the words describe, where there is one."""

    @property
    def title(self) -> str:
        """The words, or of a file without any its name."""
        return self.text or self.name


@dataclasses.dataclass(frozen=True)
class Named:
    """How much of a named set is there."""

    ids: int
    held_out: int
    """Those that a held-out piece bears."""
    in_train: int
    """Pieces of the train split that bear one."""

    def line(self) -> str:
        """In a sentence."""
        known = f"; {self.in_train:,} stand in the train split and are not scored" if self.in_train else ""
        return f"Of the {self.ids:,} ids of the named set {self.held_out:,} are among the held-out pieces{known}."


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Pieces that training did not see, and the unigram and the 5-gram of those it did."""

    pieces: tuple[Piece, ...]
    """Each with at least one caption; the first is the one shown."""
    unigram: Unigram
    ngram: Ngram
    ngram_pieces: int
    """Pieces of the train split that the 5-gram counts."""
    train_captions: frozenset[str]
    train_pieces: int
    known_notes: int
    """Held-out pieces passed over because the train split has a piece of the very same notes."""
    known_captions: int
    """Held-out pieces passed over because the train split has the very same caption, though not the notes."""
    long_captions: int
    """Held-out pieces passed over because their caption leaves no room for music."""
    named: Named | None = None
    """Where only pieces of a named set are scored."""

    def prompts(self) -> list[Prompt]:
        """The captions."""
        return [Prompt(piece.captions[0], piece.name, piece.notes.programs()) for piece in self.pieces]


def model_fingerprint(folder: Path, option: str = "--model") -> str:
    """SHA-256 (hex) over the files of a model folder that decide what it writes.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"{option} {folder}: no such folder; expected a model that `python -m midillm_jax.export` wrote"
        )
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def data_fingerprint(manifest: Manifest) -> str:
    """SHA-256 (hex) of a prepared folder's records."""
    shards = [[name, shard.sha256] for name, split in sorted(manifest.splits.items()) for shard in split.shards]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()


def pieces_fingerprint(pieces: Sequence[Piece]) -> str:
    """SHA-256 (hex) of which pieces they are, in order."""
    return fingerprint([[piece.piece_id, notes_digest(piece.notes)] for piece in pieces])


def open_pairs(folder: Path, *, named: bool = False) -> tuple[SplitReader, tuple[SplitReader, ...]]:
    """Train split and held-out splits of a folder made by ``prepare pairs``: validation or, for a named set, also test.

    Raises:
        UserError: it is something else, has no held-out pieces, or shards cannot be read on this machine.
    """
    try:
        train = open_split(folder, "train", kinds=("pairs",))
        splits: list[SplitName] = ["validation"]
        if named:
            splits = [name for name in ("test", "validation") if name in train.manifest.splits] or splits
            splits = [name for name in splits if train.manifest.splits[name].records] or splits
        return train, tuple(open_split(folder, name, kinds=("pairs",)) for name in splits)
    except ModuleNotFoundError as error:
        raise UserError(
            f"reading shards needs the package {error.name}, which is not installed; pip install 'midillm_jax[train]'"
        ) from None


def read_held_out(
    train: SplitReader,
    held_out: Sequence[SplitReader],
    tokenizer: Tokenizer,
    length: int,
    *,
    pieces: int | None,
    seed: int,
    ids: frozenset[str] | None = None,
    report: Callable[[int, int], None],
) -> HeldOut:
    """Counts the train split and draws held-out pieces.

    Args:
        train, held_out: the splits.
        tokenizer: of the model, which says how much room a caption leaves.
        length: tokens of a row.
        pieces: to draw at most; None for all.
        seed: of the draw.
        ids: names of files, without folder and suffix, that are drawn from; None for any.
        report: called now and then with records read and records to read.

    Raises:
        UserError: no held-out piece has notes that are new and a caption that is new and fits.
    """
    unigram, ngram = Unigram(), Ngram()
    counted = _counted(train)
    known: set[str] = set()
    played: set[str] = set()
    named: set[str] = set()
    named_in_train = 0
    for record in range(len(train)):
        piece = train.piece(record)
        named_in_train += ids is not None and stem_of(piece.name) in ids
        known.update(piece.captions)
        played.add(notes_digest(piece.notes))
        triples = _room(tokenizer, piece, length)
        if triples >= LEAST_TRIPLES:
            windows = [window.amt_ids for window in cut(piece.notes, triples)]
            for window in windows:
                unigram.add(window)
            if counted[record]:
                ngram.add(windows)
        if record % _REPORT_EVERY == 0:
            report(record, len(train))
    chosen: list[Piece] = []
    known_notes = known_captions = long_captions = 0
    places = [(reader, record) for reader in held_out for record in range(len(reader))]
    for place in np.random.default_rng(seed).permutation(len(places)).tolist():
        reader, record = places[place]
        piece = reader.piece(record)
        if ids is not None and stem_of(piece.name) not in ids:
            continue
        named.add(stem_of(piece.name))
        if not piece.captions:
            continue
        if notes_digest(piece.notes) in played:
            known_notes += 1
        elif piece.captions[0] in known:
            known_captions += 1
        elif _room(tokenizer, piece, length) < LEAST_TRIPLES:
            long_captions += 1
        elif pieces is None or len(chosen) < pieces:
            chosen.append(piece)
        if len(chosen) == pieces and ids is None:
            break
    report(len(train), len(train))
    if not chosen:
        raise UserError(
            f"{train.folder}: none of the {len(places)} held-out pieces {_named(ids)}can be used ({known_notes} have "
            f"the notes of a piece of the train split, {known_captions} a caption that it has too, {long_captions} one "
            f"too long for a row of {length} tokens, the others none); prepare the folder from more pieces or with a "
            "larger --validation-share"
        )
    return HeldOut(
        pieces=tuple(chosen),
        unigram=unigram,
        ngram=ngram,
        ngram_pieces=int(counted.sum()),
        train_captions=frozenset(known),
        train_pieces=len(train),
        known_notes=known_notes,
        known_captions=known_captions,
        long_captions=long_captions,
        named=None if ids is None else Named(len(ids), len(named), named_in_train),
    )


def _named(ids: frozenset[str] | None) -> str:
    return "" if ids is None else f"that bear one of the {len(ids):,} names of --ids "


def read_prompts(path: Path) -> list[Prompt]:
    """One prompt a line; empty lines are passed over.

    Raises:
        UserError: no such file, not text, or nothing in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts-file {path}: cannot be read ({error}); expected text, one prompt a line") from None
    prompts = [
        Prompt(line.strip(), f"{path.name}:{number}") for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not prompts:
        raise UserError(f"--prompts-file {path}: is empty; expected one prompt a line")
    return prompts


def fingerprint(fields: Any) -> str:
    """SHA-256 (hex) of plain JSON values."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _counted(train: SplitReader) -> np.ndarray:
    """Which pieces the 5-gram counts, bool [records]: all, or as many as have about MOST_NGRAM_NOTES notes."""
    share = MOST_NGRAM_NOTES / max(train.manifest.splits["train"].size, 1)
    return np.random.default_rng(0).random(len(train)) < share


def _room(tokenizer: Tokenizer, piece: Piece, length: int) -> int:
    return music_room(prompt_ids(tokenizer, piece.captions[0] if piece.captions else None), length)
