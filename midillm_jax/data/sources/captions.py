"""Captions beside their files: captions.jsonl, or a data set's own table such as MidiCaps' train.json."""

import dataclasses
import functools
import json
import posixpath
from collections.abc import Collection, Iterator
from typing import Any

from midillm_jax.data.sources import storage
from midillm_jax.data.sources.folders import About
from midillm_jax.data.sources.record import Record
from midillm_jax.errors import UserError

CAPTIONS_NAME = "captions.jsonl"


@dataclasses.dataclass(frozen=True)
class CaptionTable:
    """One JSON object a line: "location" (a file's path), "caption" (a string or a list of them).

    "group" and "test_set" are taken where they are there; other fields are left alone. Several lines about one file
    add their captions. Read when first needed, in the process that needs it.
    """

    path: str

    @functools.cached_property
    def rows(self) -> dict[str, About]:
        """By normalised location, in the file's order.

        Raises:
            UserError: a line is malformed; names it.
        """
        rows: dict[str, About] = {}
        for where, fields in json_lines(self.path):
            location, about = _row(where, fields)
            before = rows.get(location, About())
            rows[location] = dataclasses.replace(about, captions=(*before.captions, *about.captions))
        return rows

    @property
    def name(self) -> str:
        """Of the file, for messages."""
        return storage.base_name(self.path)

    def attach(self, record: Record) -> Record:
        """The record with its captions, or with the problem that it has none.

        A location fits a record of its name, or one whose name ends with it after a slash.
        """
        if record.problem:
            return record
        location = self._location(record.name)
        if location is None:
            return dataclasses.replace(record, problem=self.no_row, content=None)
        about = self.rows[location]
        if not about.captions:
            return dataclasses.replace(record, problem=self.no_words, content=None)
        return dataclasses.replace(record, captions=about.captions, group=about.group, test=about.test)

    @property
    def no_row(self) -> str:
        """Why a file without a line is not used."""
        return f"no caption in {self.name} names it"

    @property
    def no_words(self) -> str:
        """Why a file whose line says nothing is not used."""
        return f"its caption in {self.name} is empty"

    def missing(self, seen: Collection[str]) -> list[tuple[str, str]]:
        """(location, reason) of rows that name none of these records."""
        found = {location for name in seen if (location := self._location(name)) is not None}
        reason = f"named in {self.name}, but there is no such file"
        return [(location, reason) for location in self.rows if location not in found]

    def version(self) -> str:
        """See :meth:`~midillm_jax.data.sources.record.Part.version`."""
        return str(storage.state(self.path))

    def content(self) -> str:
        """SHA-256 (hex) of the file."""
        return storage.digest(self.path)

    def _location(self, name: str) -> str | None:
        while name not in self.rows:
            _, slash, name = name.partition("/")
            if not slash:
                return None
        return name

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # another process reads the rows itself


def json_lines(path: str) -> Iterator[tuple[str, Any]]:
    """The objects of a file with one a line, each with where it stands; blank lines are passed over.

    Raises:
        UserError: a line is no JSON.
    """
    with storage.open_binary(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield f"{path}:{number}", json.loads(line)
                except ValueError as error:
                    raise UserError(
                        f"{path}:{number}: not a JSON object ({error}); expected one object a line"
                    ) from error


def _row(where: str, fields: Any) -> tuple[str, About]:
    location, captions = _field(fields, "location", where), _field(fields, "caption", where)
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(location, str) or not location:
        raise UserError(f"{where}: location is {location!r}; expected the path of a MIDI file")
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f"{where}: caption is {captions!r}; expected a string or a list of strings")
    test = fields.get("test_set", False)
    if not isinstance(test, bool):
        raise UserError(f"{where}: test_set is {test!r}; expected true or false")
    written = tuple(caption.strip() for caption in captions if caption.strip())
    group = str(fields["group"]) if "group" in fields else ""
    return posixpath.normpath(location.replace("\\", "/")), About(written, group, test)


def _field(fields: Any, name: str, where: str) -> Any:
    if not isinstance(fields, dict) or name not in fields:
        raise UserError(f'{where}: no field "{name}"; expected an object with location and caption')
    return fields[name]
