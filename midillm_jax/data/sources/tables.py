"""Tables with a row a piece or a document: parquet as data sets publish it, and JSON lines of text."""

import dataclasses
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

from midillm_jax.data.sources import storage
from midillm_jax.data.sources.captions import CaptionTable
from midillm_jax.data.sources.documents import documents
from midillm_jax.data.sources.record import Record, listed
from midillm_jax.errors import UserError

_BATCH_ROWS = 64
"""Rows in memory at a time, beside the row group that they are read from."""
_NAME_COLUMN = "md5"
"""GigaMIDI's name of a piece; without it a row is named by its table and number."""


@dataclasses.dataclass(frozen=True)
class ParquetPart:
    """Rows of a parquet file: a column of bytes (GigaMIDI's ``music``) or of text (MusicPile's ``text``)."""

    location: str
    source: str
    holds: str
    """``midi`` or ``text``."""
    column: str
    """Empty for the only column that can hold it."""
    document_bytes: int = 0
    """For text: a longer row becomes several documents."""
    captions: CaptionTable | None = None

    @property
    def size_bytes(self) -> int:
        return storage.state(self.location)[0]

    def __iter__(self) -> Iterator[Record]:
        import pyarrow
        import pyarrow.parquet

        with storage.open_binary(self.location) as file:
            try:
                table = pyarrow.parquet.ParquetFile(file)
                column, names = self._columns(table.schema_arrow)
                each = self.size_bytes // max(table.metadata.num_rows, 1)
                row = 0
                for batch in table.iter_batches(_BATCH_ROWS, columns=[column, *names]):
                    values = batch.column(0).to_pylist()
                    stems = batch.column(1).to_pylist() if names else [None] * len(values)
                    for value, stem in zip(values, stems, strict=True):
                        yield from self._records(value, stem, row, each)
                        row += 1
            except (pyarrow.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                what = " ".join(str(error).split())  # libraries' messages run over several lines
                raise UserError(
                    f"{self.location}: no parquet file, or a damaged one ({what}); fetch it again"
                ) from error

    def version(self) -> str:
        return ":".join([str(storage.state(self.location)), "" if self.captions is None else self.captions.version()])

    def content(self) -> str:
        captions = "" if self.captions is None else self.captions.content()
        options = f"{self.column}:{self.document_bytes}:{captions}"
        return hashlib.sha256((storage.content_stamp(self.location) + options).encode()).hexdigest()

    def _columns(self, schema: Any) -> tuple[str, list[str]]:
        """The column that holds what is wanted, and the one that names it, if there is one."""
        import pyarrow.types as types

        def fits(kind: Any) -> bool:
            if self.holds == "text":
                return bool(types.is_string(kind) or types.is_large_string(kind))
            # A column of files, as the Hub's libraries write them, has the bytes and the path in each cell.
            if types.is_struct(kind):
                return any(field.name == "bytes" and fits(field.type) for field in kind)
            return bool(types.is_binary(kind) or types.is_large_binary(kind))

        wanted = "text" if self.holds == "text" else "bytes"
        if self.column:
            if self.column not in schema.names or not fits(schema.field(self.column).type):
                raise UserError(
                    f"{self.location}: --column {self.column} is not a column of {wanted}; its columns are "
                    f"{_typed(schema)}"
                )
            column = self.column
        else:
            fitting = [field.name for field in schema if fits(field.type) and field.name != _NAME_COLUMN]
            if "text" in fitting and self.holds == "text":
                fitting = ["text"]
            if len(fitting) != 1:
                raise UserError(
                    f"{self.location}: {len(fitting) or 'no'} columns hold {wanted}, of {_typed(schema)}; name one "
                    "with --column"
                )
            column = fitting[0]
        names = [_NAME_COLUMN] if self.holds == "midi" and _NAME_COLUMN in schema.names else []
        return column, names

    def _records(self, value: Any, stem: Any, row: int, amount: int) -> Iterator[Record]:
        name = f"{storage.base_name(self.location)}:{row}"
        if isinstance(value, dict):
            name, value = value.get("path") or name, value["bytes"]
        name = str(stem or name)
        if value is None:
            yield Record(self.source, name, amount=amount, problem=f"row {row} holds nothing")
        elif self.holds == "text":
            yield from _documents(self.source, name, value.encode(), self.document_bytes, amount)
        else:
            record = Record(self.source, name, amount=amount, content=value)
            yield record if self.captions is None else self.captions.attach(record)


@dataclasses.dataclass(frozen=True)
class JsonLinesPart:
    """Text in a field of every line of a .jsonl or .jsonl.gz file: a string, or a list of them."""

    location: str
    source: str
    column: str
    document_bytes: int

    @property
    def size_bytes(self) -> int:
        return storage.state(self.location)[0]

    def __iter__(self) -> Iterator[Record]:
        base = storage.base_name(self.location)
        before = 0
        with storage.open_binary(self.location) as raw:
            lines = gzip.GzipFile(fileobj=raw) if self.location.endswith(".gz") else raw
            try:
                for number, line in enumerate(lines, 1):
                    amount, before = raw.tell() - before, raw.tell()
                    if line.strip():
                        text = self._text(number, line)
                        yield from _documents(self.source, f"{base}:{number}", text, self.document_bytes, amount)
            except (gzip.BadGzipFile, EOFError) as error:
                raise UserError(f"{self.location}: damaged or cut short ({error}); fetch it again") from error

    def version(self) -> str:
        return str(storage.state(self.location))

    def content(self) -> str:
        options = f"{self.column}:{self.document_bytes}"
        return hashlib.sha256((storage.content_stamp(self.location) + options).encode()).hexdigest()

    def _text(self, number: int, line: bytes) -> bytes:
        where, column = f"{self.location}:{number}", self.column or "text"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not a JSON object ({error}); expected one object a line") from error
        text = fields.get(column) if isinstance(fields, dict) else None
        if isinstance(text, list) and all(isinstance(each, str) for each in text):
            text = "\n\n".join(text)
        if not isinstance(text, str):
            found = listed(fields) if isinstance(fields, dict) else type(fields).__name__
            raise UserError(f"{where}: no text in a field {column!r} (found {found}); name the field with --column")
        return text.encode("utf-8", "surrogatepass")


def _documents(source: str, name: str, text: bytes, document_bytes: int, amount: int) -> Iterator[Record]:
    """A row's documents, which stay on one side of the split."""
    group = hashlib.sha256(text).hexdigest()
    for offset, _, content in documents(io.BytesIO(text), document_bytes):
        yield Record(source, f"{name}:{offset}", amount=amount, group=group, content=content)
        amount = 0


def _typed(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
