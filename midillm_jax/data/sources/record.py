"""What every source gives: records, in parts that are read from beginning to end."""

import dataclasses
import fnmatch
import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from midillm_jax.data.sources import storage

MIDI_SUFFIXES = (".mid", ".midi", ".kar")
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".abc", ".ly", ".tex")
"""What counts as text inside a folder; a file that is named by itself may have any suffix."""
PARQUET_SUFFIXES = (".parquet",)
JSON_LINES_SUFFIXES = (".jsonl", ".jsonl.gz")

Things = Literal["files", "documents"]


@dataclasses.dataclass(frozen=True)
class Record:
    """A file, or a part of one, before anything has been read out of it."""

    source: str
    """Which data set it belongs to."""
    name: str
    """Where it stands in its source, with forward slashes; a part of a text adds ``:`` and its first byte."""
    amount: int = 0
    """Bytes of its part that it stands for, for progress."""
    captions: tuple[str, ...] = ()
    group: str = ""
    """Records of one group fall on the same side of the split; if empty, their content decides."""
    test: bool = False
    """Whether its source counts it among the pieces that are for testing."""
    problem: str = ""
    """Why the source itself cannot use it; such a record has no bytes."""
    location: str = ""
    content: bytes | None = None
    """The bytes themselves, where the source had to read them anyway."""

    def read(self) -> bytes:
        """The record's bytes. Raises OSError."""
        if self.content is not None:
            return self.content
        if not self.location:
            raise ValueError(f"{self.name}: a record needs a location or its content")
        return storage.read_bytes(self.location)


class Part(Protocol):
    """A folder, an archive, a table: read from beginning to end by one process, as often as need be."""

    @property
    def size_bytes(self) -> int:
        """As stored: the sum of its records' amounts, roughly."""

    def __iter__(self) -> Iterator[Record]:
        """Its records, in an order that depends on the part alone."""

    def version(self) -> str:
        """Another one after every write to any of its files; cheap."""

    def content(self) -> str | None:
        """Tells its content from any other without reading records; None: that is told by the records themselves."""


class Captions(Protocol):
    """What people wrote about the pieces of a source."""

    def missing(self, seen: Collection[str]) -> list[tuple[str, str]]:
        """(location, reason) of all that name none of the records of these names."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The records of a source, part after part."""

    parts: tuple[Part, ...]
    things: Things
    captions: Captions | None = None

    @property
    def size_bytes(self) -> int:
        """Of all parts."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def records(self) -> Iterator[Record]:
        """All records; may be walked again and again."""
        return itertools.chain.from_iterable(self.parts)

    def version(self) -> str:
        """See :meth:`Part.version`."""
        return hashlib.sha256(json.dumps([part.version() for part in self.parts]).encode()).hexdigest()

    def missing(self, seen: Collection[str]) -> list[tuple[str, str]]:
        """(name, reason) of what was expected and has no record, given the names of all records; sorted."""
        return [] if self.captions is None else sorted(self.captions.missing(seen))


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first three, and how many more."""
    named = list(names)
    more = f" and {len(named) - 3:,} more" if len(named) > 3 else ""
    return ", ".join(named[:3]) + more


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits a name, the last part of it, or a folder on the way to it."""
    parts = name.split("/")
    candidates = [*parts, *("/".join(parts[:depth]) for depth in range(2, len(parts) + 1))]
    return any(fnmatch.fnmatchcase(candidate, pattern) for pattern in patterns for candidate in candidates)


def nothing_in(where: str, suffixes: tuple[str, ...], exclude: Sequence[str]) -> str:
    """The message for a place without anything of use."""
    left = f" once {', '.join(exclude)} is excluded" if exclude else ""
    return f"{where}: no {', '.join(suffixes)} file in it{left}; give a folder that holds some"
