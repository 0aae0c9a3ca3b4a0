"""What a prepared folder says of itself: manifest.json, and whether its files are still those that it lists."""

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal, get_args

from midillm_jax.errors import UserError
from midillm_jax.files import write_whole

MANIFEST_VERSION = 1
MANIFEST_NAME = "manifest.json"
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
    path = folder_path(folder) / MANIFEST_NAME
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


def check_files(folder: Path | str, part: Split) -> None:
    """Holds the files of a split to the manifest: by their names and sizes, and a local file that was written after
    the manifest by its content too.

    Raises:
        UserError: one is missing, was cut or became another since it was made.
    """
    local = "://" not in str(folder)
    made = os.stat(Path(folder) / MANIFEST_NAME).st_mtime_ns if local else 0
    again = "copy it there again, or prepare the folder again with --overwrite"
    for file in (*part.shards, part.lengths):
        path = folder_path(folder) / file.name
        if not path.exists():
            raise UserError(f"{path} is missing although {MANIFEST_NAME} lists it: {again}")
        found = path.stat().length
        if found != file.bytes:
            raise UserError(f"{path} has {found} bytes, {MANIFEST_NAME} says {file.bytes}: {again}")
        written = os.stat(path).st_mtime_ns if local else 0
        if written > made and _sha256(str(path), written) != file.sha256:
            raise UserError(f"{path} holds other records than when {MANIFEST_NAME} was written: {again}")


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, written: int) -> str:
    """Of a file's content; the time of writing only tells the cache when to read it again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_path(folder: Path | str) -> Any:
    """A path that also reads gs://."""
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
