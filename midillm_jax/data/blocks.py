"""A build's unit of work: a block of records that stand together, prepared by one process and kept in one file.

Blocks are cut from each part of a listing by number and bytes of its records alone. A finished block is a file,
so whoever makes blocks, in whatever order and on whatever machine, leaves the same ones, and a build that was stopped
goes on with those that it has.

    bytes 0..3   b"MBK1"
    bytes 4..7   uint32, little-endian: bytes of the header
    header       JSON: last (whether the part ends here), amount (its bytes of the part), entries
    then         the packed records of the entries end to end
"""

import dataclasses
import hashlib
import json
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from midillm_jax.data.jobs import Job, unreadable
from midillm_jax.data.jobs import content_digest as digest_of
from midillm_jax.data.shards import SplitName
from midillm_jax.data.sources import Listing, Record, storage
from midillm_jax.data.splits import SplitRule
from midillm_jax.files import write_whole

BLOCK_RECORDS = 256
BLOCK_BYTES = 8 * 2**20
"""A block is full once it has so many records, or so many bytes that its source read."""
_MAGIC = b"MBK1"


@dataclasses.dataclass(frozen=True)
class Block:
    """Records of a part that are to be prepared together."""

    part: int
    number: int
    records: tuple[Record, ...] | None
    """None where their file is there already."""
    last: bool
    """Whether the part ends with them."""

    def __str__(self) -> str:
        first = self.records[0].name if self.records else "nothing"
        return f"{first} or one of the records after it"

    def place(self, staging: str) -> str:
        """Its file among those of a build."""
        return place_of(staging, self.part, self.number)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What became of one record."""

    name: str
    source: str
    digest: str
    """SHA-256 (hex) of all that the record was."""
    side: SplitName
    length: int
    """Notes or tokens."""
    reason: str
    """Why it was rejected; empty when it was not."""
    packed: bytes


@dataclasses.dataclass(frozen=True)
class Finished:
    """A block's file, read."""

    entries: tuple[Entry, ...]
    amount: int
    last: bool


@dataclasses.dataclass(frozen=True)
class BlockJob:
    """Prepares the records of a block and writes its file. Can be pickled."""

    job: Job
    rule: SplitRule
    staging: str

    def __call__(self, block: Block) -> str:
        """Returns the file's place."""
        place = block.place(self.staging)
        if block.records is None:
            return place
        entries, packed = [], []
        for record in block.records:
            try:
                outcome = self.job(record)
            except Exception as error:
                error.add_note(f"while preparing {record.name}")
                raise
            side = "" if outcome.packed is None else self.rule.side(record, outcome.group)
            size = 0 if outcome.packed is None else len(outcome.packed)
            identity = record_digest(record, outcome.digest)
            entries.append([record.name, record.source, identity, side, outcome.length, outcome.reason, size])
            packed.append(outcome.packed or b"")
        amount = sum(record.amount for record in block.records)
        header = json.dumps({"last": block.last, "amount": amount, "entries": entries}).encode()
        content = b"".join([_MAGIC, len(header).to_bytes(4, "little"), header, *packed])
        if storage.is_remote(place):
            storage.write_bytes(place, content)  # a bucket shows a file once it is whole
        else:
            write_whole(Path(place), content)
        return place


def blocks_of(listing: Listing, part: int, staging: str) -> Iterator[Block]:
    """The blocks of a part, in order; a part without records is one block without any."""
    number, held, size = 0, list[Record](), 0
    last = False
    records = iter(listing.parts[part])
    record = next(records, None)
    while not last:
        while record is not None and len(held) < BLOCK_RECORDS and size < BLOCK_BYTES:
            held.append(record)
            size += len(record.content or b"")
            record = next(records, None)
        last = record is None
        made = storage.is_file(place_of(staging, part, number))
        yield Block(part, number, None if made else tuple(held), last)
        number, held, size = number + 1, [], 0


def read_block(place: str) -> Finished:
    """Reads what :class:`BlockJob` wrote."""
    content = storage.read_bytes(place)
    if content[:4] != _MAGIC:
        raise ValueError(f"{place} is not a block of a build")
    at = 8 + int.from_bytes(content[4:8], "little")
    header = json.loads(content[8:at])
    entries = []
    for name, source, digest, side, length, reason, size in header["entries"]:
        entries.append(Entry(name, source, digest, side, length, reason, content[at : at + size]))
        at += size
    return Finished(tuple(entries), header["amount"], header["last"])


def place_of(staging: str, part: int, number: int) -> str:
    """A block's file."""
    name = f"part-{part:05d}-block-{number:06d}"
    return posixpath.join(staging, name) if storage.is_remote(staging) else os.path.join(staging, name)


def record_digest(record: Record, content_digest: str) -> str:
    """SHA-256 (hex) of all that a record is; ``content_digest`` is that of its bytes."""
    fields: list[Any] = [record.source, record.name, record.captions, record.group, record.test, record.problem]
    return hashlib.sha256(json.dumps([*fields, content_digest]).encode()).hexdigest()


def digest_again(record: Record) -> str:
    """A record's digest, from reading it without preparing it: equal to that of its entry."""
    if record.problem:
        return record_digest(record, "")
    try:
        digest = digest_of(record.read())
    except OSError as error:
        digest = unreadable(error).digest
    return record_digest(record, digest)
