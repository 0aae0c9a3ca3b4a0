"""The splits of several prepared folders as parts, by rank, and what each of their pieces is compared by."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from midillm_jax.data.fingerprints import Fingerprint, fingerprint
from midillm_jax.data.shards import Manifest, Piece, SplitName, SplitReader, open_split, unpack_piece

RANKED: tuple[SplitName, ...] = ("test", "validation", "train")
"""The splits of a folder, the one whose pieces stay first."""
_BATCH = 128


class Place(NamedTuple):
    """Where a piece stands."""

    part: int
    """Number of the part, by rank."""
    record: int


@dataclasses.dataclass(frozen=True)
class Batch:
    """Records of one part that follow one another."""

    part: int
    folder: str
    split: SplitName
    digest: str
    """Of the split (:attr:`~midillm_jax.data.shards.SplitReader.digest`)."""
    records: range

    def __str__(self) -> str:
        return f"{self.folder} {self.split} records {self.records.start} to {self.records.stop - 1}"


@dataclasses.dataclass(frozen=True)
class Marked:
    """A piece without its notes."""

    place: Place
    name: str
    piece_id: str
    source: str
    mark: Fingerprint


class Parts:
    """The splits that hold anything: by folder in the order given, within a folder as RANKED."""

    def __init__(self, folders: Sequence[Path], manifests: Sequence[Manifest]) -> None:
        self.readers: list[SplitReader] = []
        self.folder_of: list[int] = []
        """Number of each part's folder."""
        for number, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
            for split in RANKED:
                if split in manifest.splits and manifest.splits[split].records:
                    self.readers.append(open_split(folder, split))
                    self.folder_of.append(number)

    def piece(self, place: Place) -> Piece:
        return self.readers[place.part].piece(place.record)

    def fingerprint(self, place: Place) -> Fingerprint:
        return fingerprint(self.piece(place).notes)

    def batches(self) -> Iterator[Batch]:
        """All records, by rank and then in order."""
        for part, reader in enumerate(self.readers):
            digest = reader.digest
            for start in range(0, len(reader), _BATCH):
                records = range(start, min(start + _BATCH, len(reader)))
                yield Batch(part, reader.folder, reader.name, digest, records)


def pieces(batch: Batch) -> Iterator[tuple[Place, Piece]]:
    """The pieces of a batch, in order."""
    packed = _reader(batch.folder, batch.split, batch.digest).__getitems__(batch.records)
    for record, content in zip(batch.records, packed, strict=True):
        yield Place(batch.part, record), unpack_piece(content)


def marked(batch: Batch) -> list[Marked]:
    """What the pieces of a batch are compared by: a function of the batch alone, for any process."""
    found = []
    for place, piece in pieces(batch):
        mark = fingerprint(piece.notes)
        mark.sketches  # noqa: B018  made here, where many processes may share the work
        found.append(Marked(place, piece.name, piece.piece_id, piece.source, mark))
    return found


@functools.lru_cache(8)
def _reader(folder: str, split: SplitName, digest: str) -> SplitReader:
    """A process opens a split once; ``digest`` tells a folder from an older one at its place."""
    return open_split(folder, split)
