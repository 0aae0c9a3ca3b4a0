"""Texts cut into documents."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from midillm_jax.data.sources import storage
from midillm_jax.data.sources.record import Record


@dataclasses.dataclass(frozen=True)
class DocumentsPart:
    """Text files, cut into documents of at most ``document_bytes`` bytes (see :func:`documents`)."""

    files: tuple[tuple[str, str, str], ...]
    """(source, name, location) of each."""
    document_bytes: int
    grouped: bool
    """Whether all documents of a file form a group, named by the file's content."""

    @property
    def size_bytes(self) -> int:
        return sum(storage.state(location)[0] for _, _, location in self.files)

    def __iter__(self) -> Iterator[Record]:
        for source, name, location in self.files:
            group = storage.digest(location) if self.grouped else ""
            with storage.open_binary(location) as file:
                for offset, amount, content in documents(file, self.document_bytes):
                    yield Record(source, f"{name}:{offset}", amount=amount, group=group, content=content)

    def version(self) -> str:
        states = [(source, name, storage.state(location)) for source, name, location in self.files]
        return hashlib.sha256(json.dumps([states, self.document_bytes, self.grouped]).encode()).hexdigest()

    def content(self) -> None:
        return None


def decode_text(content: bytes) -> str:
    """A document's characters, without byte-order mark and carriage returns.

    Raises:
        ValueError: it is not UTF-8 text; says where.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} of this part is not UTF-8 ({error.reason})") from error
    if "\0" in text:
        raise ValueError(f"character {text.index(chr(0))} of this part is zero, so it is not UTF-8 text")
    return text.replace("\r\n", "\n")


def documents(file: BinaryIO, document_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Cuts a text into documents, reading no more of it at a time than a few documents.

    Whole paragraphs (runs of lines between blank lines) are put together up to ``document_bytes``; a longer
    paragraph is cut between lines, a longer line between words, a longer word between characters. Blank lines
    around a document are left out, so the documents hold everything else of the file, in order.

    Yields:
        (offset of the document's first byte, bytes consumed with it, the document).
    """
    begin = 0
    document, paragraph = bytearray(), bytearray()

    def cut(taken: bytearray) -> Iterator[tuple[int, int, bytes]]:
        nonlocal begin
        kept = taken.lstrip(b"\r\n")
        first = begin + len(taken) - len(kept)
        if kept.strip():
            yield first, len(taken), bytes(kept.rstrip())
        begin += len(taken)

    for line in _bounded_lines(file, document_bytes):
        blank = not line.strip()
        if len(paragraph) + len(line) > document_bytes and not blank:
            yield from cut(document)
            yield from cut(paragraph)
            document, paragraph = bytearray(), bytearray()
        paragraph += line
        if blank:
            if len(document) + len(paragraph.rstrip()) > document_bytes:
                yield from cut(document)
                document = bytearray()
            document += paragraph
            paragraph = bytearray()
    if len(document) + len(paragraph.rstrip()) > document_bytes:
        yield from cut(document)
        document = bytearray()
    yield from cut(document + paragraph)


def _bounded_lines(file: Any, limit: int) -> Iterator[bytes]:
    """Lines with their ends; one longer than ``limit`` comes in parts, cut after a space or before a character."""
    held = b""
    while line := held + file.readline(limit - len(held)):
        held = b""
        if len(line) == limit and not line.endswith(b"\n"):
            end = line.rfind(b" ") + 1
            if end == 0:
                # A character of several bytes at the end goes to the next part: it may not be whole.
                end = limit
                while limit - end < 3 and line[end - 1] & 0xC0 == 0x80:
                    end -= 1
                end -= line[end - 1] >= 0xC0
            line, held = line[:end], line[end:]
        yield line
