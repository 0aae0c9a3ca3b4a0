"""A prepared folder: shards of records, their lengths, and a manifest that says what they are.

    manifest.json                       see :class:`Manifest`; written last, so a folder that has one is whole
    train-00000-of-00002.array_record   records of data/records.py, in ArrayRecord files of group size 1
    train-lengths.npy                   int32 [records]: notes of each piece, or tokens of each text, in shard order
    validation-...                      the same for the held-out split

Records of a split are numbered from 0 through its shards in order. Shards are compressed with zstd by ArrayRecord;
the same records give the same bytes. A folder may be read from a bucket (``gs://``): ArrayRecord fetches each record
by a request of its own, the other files are read through etils.epath and gcsfs.
"""

import array
import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from midillm_jax.data.manifest import (
    KINDS,
    MANIFEST_NAME,
    Kind,
    Manifest,
    ShardFile,
    Split,
    SplitName,
    TokenizerId,
    check_files,
    folder_path,
    read_manifest,
    write_manifest,
)
from midillm_jax.data.records import (
    Piece,
    TextRecord,
    pack_piece,
    pack_text,
    unpack_piece,
    unpack_text,
)
from midillm_jax.errors import UserError

__all__ = [
    "KINDS",
    "MANIFEST_NAME",
    "Kind",
    "Manifest",
    "Piece",
    "ShardFile",
    "ShardWriter",
    "Split",
    "SplitName",
    "SplitReader",
    "TextRecord",
    "TokenizerId",
    "check_files",
    "open_split",
    "pack_piece",
    "pack_text",
    "read_manifest",
    "unpack_piece",
    "unpack_text",
    "write_manifest",
]

SHARD_BYTES = 128 * 2**20
"""A shard is closed once its records, before compression, reach this many bytes."""
_WRITER_OPTIONS = "group_size:1,zstd:3"

Record = TypeVar("Record")


class ShardWriter:
    """Writes one split's records into shards; files bear their final names only after :meth:`close`.

    Used as a context manager it closes at the end of the block, or removes what it wrote when the block raises::

        with ShardWriter(folder, "train") as writer:
            for piece in pieces:
                writer.write(pack_piece(piece), len(piece.notes))
        split = writer.split
    """

    split: Split
    """What was written; set by :meth:`close`."""

    def __init__(self, folder: Path, split: SplitName, shard_bytes: int = SHARD_BYTES) -> None:
        """``folder`` is made if need be; a shard ends once its records reach ``shard_bytes``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._split = split
        self._shard_bytes = shard_bytes
        self._lengths = array.array("i")  # a hundred million records would not fit as Python's integers
        self._counts: list[int] = []
        self._writer: Any = None
        self._written_bytes = 0

    def write(self, record: bytes, length: int) -> None:
        """Appends a record; ``length`` is its number of notes or tokens, at least 1."""
        if length < 1:
            raise ValueError(f"a record of {length} notes or tokens cannot be read back as an example")
        if self._writer is None:
            from array_record.python import array_record_module

            self._writer = array_record_module.ArrayRecordWriter(str(self._partial(len(self._counts))), _WRITER_OPTIONS)
            self._counts.append(0)
            self._written_bytes = 0
        self._writer.write(record)
        self._lengths.append(length)
        self._counts[-1] += 1
        self._written_bytes += len(record)
        if self._written_bytes >= self._shard_bytes:
            self._finish_shard()

    def close(self) -> Split:
        """Ends the last shard, writes the lengths, and gives every file its final name."""
        self._finish_shard()
        shards = []
        for shard, records in enumerate(self._counts):
            name = f"{self._split}-{shard:05d}-of-{len(self._counts):05d}.array_record"
            os.replace(self._partial(shard), self._folder / name)
            shards.append(_describe(self._folder / name, records))
        name = f"{self._split}-lengths.npy"
        partial = self._folder / f"{name}.partial"
        with partial.open("wb") as file:
            np.save(file, np.array(self._lengths, np.int32))
        os.replace(partial, self._folder / name)
        lengths = _describe(self._folder / name, len(self._lengths))
        self.split = Split(len(self._lengths), sum(self._lengths), tuple(shards), lengths)
        return self.split

    def abort(self) -> None:
        """Removes what was written so far."""
        self._finish_shard()
        for shard in range(len(self._counts)):
            self._partial(shard).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _partial(self, shard: int) -> Path:
        return self._folder / f"{self._split}-{shard:05d}.array_record.partial"

    def _finish_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class SplitReader:
    """Random access to the records of one split: ``len(reader)``, ``reader[i]`` -> bytes."""

    def __init__(self, folder: str, name: SplitName, manifest: Manifest, lengths: np.ndarray) -> None:
        """Use :func:`open_split`, which checks the files first."""
        from array_record.python import array_record_data_source

        self.folder = folder
        self.name = name
        self.manifest = manifest
        self.lengths = lengths
        """int32 [records]: notes or tokens of each record."""
        # Naming each file's range spares opening all of them only to count.
        files = [
            _Range(f"{folder_path(folder)}/{shard.name}", 0, shard.records, shard.records)
            for shard in manifest.splits[name].shards
        ]
        self._source = array_record_data_source.ArrayRecordDataSource(files)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over those of the shards: other records, or another order, give another."""
        shards = [shard.sha256 for shard in self.manifest.splits[self.name].shards]
        return hashlib.sha256(" ".join(shards).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, record: int) -> bytes:
        """The bytes of one record. Raises UserError: it is damaged, or the disk or the bucket does not give it."""
        try:
            return self._source[record]
        except RuntimeError as error:
            raise self._unreadable([record], error) from error

    def __getitems__(self, records: Sequence[int]) -> Sequence[bytes]:
        """Those of several records, fetched side by side. Raises UserError as for one."""
        try:
            return self._source.__getitems__(records)
        except RuntimeError as error:
            raise self._unreadable(records, error) from error

    def piece(self, record: int) -> Piece:
        """One record of music. Raises UserError: it is damaged; file and record are named."""
        return self._unpacked(record, unpack_piece)

    def text(self, record: int) -> TextRecord:
        """One record of text. Raises UserError: it is damaged; file and record are named."""
        return self._unpacked(record, unpack_text)

    def _unpacked(self, record: int, unpack: Callable[[bytes], Record]) -> Record:
        content = self[record]
        try:
            return unpack(content)
        except UserError as error:
            where = f"{self.folder}: record {record} of {self.name}, in {self._file(record)}"
            raise UserError(f"{where}: {error}") from None

    def _file(self, record: int) -> str:
        """Name of the shard that holds a record."""
        shards = self.manifest.splits[self.name].shards
        ends = np.cumsum([shard.records for shard in shards])
        return shards[int(np.searchsorted(ends, record, side="right"))].name

    def __repr__(self) -> str:
        return f"SplitReader({self.folder}, {self.name}, {len(self)} records)"

    def _unreadable(self, records: Sequence[int], error: RuntimeError) -> UserError:
        files = dict.fromkeys(map(self._file, records))
        which = f"record {records[0]}" if len(records) == 1 else f"one of the records {min(records)} to {max(records)}"
        return UserError(
            f"{self.folder}: {which} of {self.name}, in {' or '.join(files)}, cannot be read ({error}); copy the "
            "folder again or prepare it again; where it lies in a bucket, see that this machine may read it, or mount "
            "the bucket with gcsfuse"
        )


def open_split(
    folder: Path | str, split: SplitName, *, kinds: tuple[Kind, ...] = KINDS, fingerprint: str | None = None
) -> SplitReader:
    """Opens one split of a prepared folder after checking it against its manifest.

    ``kinds`` are the kinds that will do; ``fingerprint`` that of the tokenizer in use, checked when it is given.

    Raises:
        UserError: no manifest, another format, kind or tokenizer, an empty split, or a file that is missing or has
            another size than the manifest says.
    """
    if (scheme := str(folder).partition("://")[0]) != str(folder) and scheme != "gs":
        raise UserError(
            f"{folder}: shards are read from this machine's folders and from gs:// buckets, not from {scheme}://; copy "
            "the folder here"
        )
    manifest = read_manifest(folder)
    if manifest.kind not in kinds:
        raise UserError(
            f"{folder} was made by `prepare {manifest.kind}`, a folder made by "
            f"`prepare {' or '.join(kinds)}` was expected here"
        )
    if fingerprint is not None and (manifest.tokenizer is None or manifest.tokenizer.fingerprint != fingerprint):
        made = manifest.tokenizer.fingerprint[:12] if manifest.tokenizer is not None else "none"
        raise UserError(
            f"{folder} was made with the tokenizer {made}, the config's tokenizer is {fingerprint[:12]}: "
            "prepare the folder with this tokenizer or set data.tokenizer to that one"
        )
    if split not in manifest.splits:
        raise UserError(f"{folder}/{MANIFEST_NAME} lacks the split {split}: prepare the folder again")
    part = manifest.splits[split]
    if part.records == 0:
        raise UserError(
            f"{folder} has no {split} records: prepare it with a larger share for {split} or from more files"
        )
    check_files(folder, part)
    with (folder_path(folder) / part.lengths.name).open("rb") as stream:
        lengths = np.load(stream)
    return SplitReader(str(folder), split, manifest, lengths)


@dataclasses.dataclass(frozen=True)
class _Range:
    """Records ``skip`` to ``skip + take`` of a file, in the form that ArrayRecordDataSource takes."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def _describe(path: Path, records: int) -> ShardFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardFile(path.name, path.stat().st_size, records, digest)
