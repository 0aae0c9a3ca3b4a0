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
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np

from midillm_jax.data.records import (
    Piece,
    TextRecord,
    pack_piece,
    pack_text,
    unpack_piece,
    unpack_text,
)
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole

__all__ = [
    "KINDS",
    "Manifest",
    "Piece",
    "ShardFile",
    "ShardWriter",
    "Split",
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

MANIFEST_VERSION = 1
MANIFEST_NAME = "manifest.json"
SHARD_BYTES = 128 * 2**20
"""A shard is closed once its records, before compression, reach this many bytes."""
_WRITER_OPTIONS = "group_size:1,zstd:3"

Kind = Literal["midi", "pairs", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SplitName = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """One file of a prepared folder."""

    name: str
    bytes: int
    records: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """The train, validation or test part of a prepared folder."""

    records: int
    size: int
    """Notes of music, or tokens of text, over all records."""
    shards: tuple[ShardFile, ...]
    lengths: ShardFile


@dataclasses.dataclass(frozen=True)
class TokenizerId:
    """The tokenizer that made a text folder."""

    fingerprint: str
    """sha256 of the model's content."""
    vocab_size: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What manifest.json says, field by field."""

    kind: Kind
    splits: dict[str, Split]
    """By name: train, validation, and test where the way of splitting makes one."""
    sources: dict[str, int]
    """Records of each source id, both splits together."""
    rejected: tuple[tuple[str, str], ...]
    """(name, reason) of every input that gave no record."""
    filters: dict[str, Any]
    """The filters in force, as given."""
    inputs: dict[str, Any]
    """What the folder was made from, opaque here: an equal dict means that making it again would change nothing."""
    tokenizer: TokenizerId | None = None
    """Only for text."""
    format: int = MANIFEST_VERSION


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json, beside and renamed; the last act of making a folder."""
    write_whole(folder / MANIFEST_NAME, json.dumps(dataclasses.asdict(manifest), indent=1) + "\n")


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest of a prepared folder, local or in a bucket.

    Raises:
        UserError: no such folder or manifest, another format, a field that is missing, unknown or malformed, or a
            bucket that cannot be read from here.
    """
    path = _path(folder) / MANIFEST_NAME
    try:
        exists = path.exists()
    except ImportError as error:
        raise UserError(
            f"{folder} lies in a bucket and the package that reads those is missing ({error}); pip install gcsfs, or "
            "mount the bucket with gcsfuse, or copy the folder here with `gcloud storage cp -r`"
        ) from error
    if not exists:
        raise UserError(f"{folder} holds no {MANIFEST_NAME}: give a folder made by `python -m midillm_jax.prepare`")
    try:
        document = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}): prepare the folder again") from error
    if not isinstance(document, dict) or "format" not in document:
        raise UserError(f"{path} lacks the field format: prepare the folder again")
    if document["format"] != MANIFEST_VERSION:
        raise UserError(
            f"{path} has format {document['format']}, this program reads format {MANIFEST_VERSION}: "
            "prepare the folder again or use the program that wrote it"
        )
    where = str(path)
    fields = _fields(Manifest, document, where)
    if fields["kind"] not in KINDS:
        raise UserError(f"{where} has kind {fields['kind']!r}, one of {', '.join(KINDS)} was expected")
    splits = {}
    for name, split in fields["splits"].items():
        parts = _fields(Split, split, f"{where} splits.{name}")
        shards = tuple(
            ShardFile(**_fields(ShardFile, shard, f"{where} splits.{name}.shards")) for shard in parts["shards"]
        )
        lengths = ShardFile(**_fields(ShardFile, parts["lengths"], f"{where} splits.{name}.lengths"))
        splits[name] = Split(parts["records"], parts["size"], shards, lengths)
    if fields["tokenizer"] is not None:
        fields["tokenizer"] = TokenizerId(**_fields(TokenizerId, fields["tokenizer"], f"{where} tokenizer"))
    fields["splits"] = splits
    fields["rejected"] = tuple((name, reason) for name, reason in fields["rejected"])
    return Manifest(**fields)


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
            _Range(f"{_path(folder)}/{shard.name}", 0, shard.records, shard.records)
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

    def __repr__(self) -> str:
        return f"SplitReader({self.folder}, {self.name}, {len(self)} records)"

    def _unreadable(self, records: Sequence[int], error: RuntimeError) -> UserError:
        shards = self.manifest.splits[self.name].shards
        ends = np.cumsum([shard.records for shard in shards])
        files = dict.fromkeys(shards[int(np.searchsorted(ends, record, side="right"))].name for record in records)
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
    with (_path(folder) / part.lengths.name).open("rb") as stream:
        lengths = np.load(stream)
    return SplitReader(str(folder), split, manifest, lengths)


def check_files(folder: Path | str, part: Split) -> None:
    """Holds the files of a split to the manifest, by their names and sizes.

    Raises:
        UserError: one is missing, or was cut since it was made.
    """
    again = "copy it there again, or prepare the folder again with --overwrite"
    for file in (*part.shards, part.lengths):
        path = _path(folder) / file.name
        if not path.exists():
            raise UserError(f"{path} is missing although {MANIFEST_NAME} lists it: {again}")
        found = path.stat().length
        if found != file.bytes:
            raise UserError(f"{path} has {found} bytes, {MANIFEST_NAME} says {file.bytes}: {again}")


@dataclasses.dataclass(frozen=True)
class _Range:
    """Records ``skip`` to ``skip + take`` of a file, in the form that ArrayRecordDataSource takes."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def _path(folder: Path | str) -> Any:
    # A path that also reads gs://; typed Any because epath's stubs follow none of pathlib's.
    from etils import epath

    return epath.Path(folder)


def _fields(kind: type, document: Any, where: str) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(document, dict):
        raise UserError(f"{where} is {document!r}, an object with {', '.join(sorted(names))} was expected")
    for name in sorted(names - document.keys()):
        raise UserError(f"{where} lacks the field {name}: prepare the folder again")
    for name in sorted(document.keys() - names):
        raise UserError(f"{where} has the unknown field {name}: prepare the folder again")
    return dict(document)


def _describe(path: Path, records: int) -> ShardFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardFile(path.name, path.stat().st_size, records, digest)
