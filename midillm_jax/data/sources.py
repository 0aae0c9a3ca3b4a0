"""Folders and files as plain records, in an order that depends on their names alone.

A listing can be walked again and again and never holds more than names in memory. What could not be used at this
point (a caption without its file, a file without a caption) is listed beside the records, never dropped in silence.
"""

import dataclasses
import fnmatch
import hashlib
import json
import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from midillm_jax.errors import UserError

MIDI_SUFFIXES = (".mid", ".midi", ".kar")
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".abc", ".ly", ".tex")
"""What counts as text inside a folder; a file that is named by itself may have any suffix."""
CAPTIONS_NAME = "captions.jsonl"
LEAST_GROUPED_FILES = 20
"""Text files from which each is held out as a whole or not at all."""
_PART_BYTES = 1 << 16
"""Text is handed to a vocabulary's training in parts of at most this size."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A file, or a part of one, before anything has been read out of it."""

    source: str
    """Which data set it belongs to."""
    name: str
    """Where it stands in its source, with forward slashes; a part of a text file adds ``:`` and its first byte."""
    amount: int = 1
    """Its share of the listing's total, for progress."""
    captions: tuple[str, ...] = ()
    group: str = ""
    """Records of one group fall on the same side of the train/validation split; if empty, their content decides."""
    path: Path | None = None
    content: bytes | None = None
    """The bytes themselves, where the source had to read them anyway."""

    def read(self) -> bytes:
        """The record's bytes. Raises OSError."""
        if self.content is not None:
            return self.content
        if self.path is None:
            raise ValueError(f"{self.name}: a record needs a path or its content")
        return self.path.read_bytes()


@dataclasses.dataclass(frozen=True)
class Listing:
    """The records of one source."""

    records: Iterable[Record]
    """May be walked more than once."""
    total: int
    """Sum of the records' amounts."""
    unit: Literal["files", "bytes"]
    unmatched: tuple[tuple[str, str], ...] = ()
    """(name, reason) of what gives no record."""


def midi_folder(folder: Path, *, source: str, exclude: Sequence[str]) -> Listing:
    """Every MIDI file below a folder (.mid, .midi, .kar in any case), sorted by name.

    Args:
        folder: searched recursively.
        source: name of the data set; empty for the folder's own name.
        exclude: glob patterns on a file's name, its path below ``folder``, or a folder on that path.

    Raises:
        UserError: no such folder, or no MIDI file in it.
    """
    names = _files_below(folder, MIDI_SUFFIXES, exclude)
    if not names:
        raise UserError(_nothing_in(folder, MIDI_SUFFIXES, exclude))
    return Listing(_Files(folder, source or folder.resolve().name, names, {}, {}), len(names), "files")


def captioned_folder(captions: Path, *, midi: Path | None, source: str, exclude: Sequence[str]) -> Listing:
    """The MIDI files that a captions.jsonl names, each with its captions.

    One JSON object a line: "location" (the file's path), "caption" (a string or a list of strings), optionally
    "group"; other fields are left alone, so MidiCaps' train.json will do as it is. Several lines about one file add
    their captions. ``unmatched`` lists captions whose file is missing, and files that no caption names.

    Args:
        captions: the file, or a folder that holds captions.jsonl.
        midi: the folder that locations are relative to; None for the file's own folder.
        source: name of the data set; empty for the folder's own name.
        exclude: as for :func:`midi_folder`.

    Raises:
        UserError: nothing is there, a line is malformed, or no caption finds its file.
    """
    if captions.is_dir():
        captions = captions / CAPTIONS_NAME
    if not captions.is_file():
        raise UserError(
            f"{captions}: no such file; expected one JSON object a line with location and caption "
            "(`python -m midillm_jax.prepare caption` writes it)"
        )
    base = captions.parent if midi is None else midi
    if not base.is_dir():
        raise UserError(f"{base}: no such folder; expected the one that the locations in {captions} are relative to")
    texts, groups = _read_captions(captions)
    root, names = _names_of(base, texts)
    texts = {names[location]: captions_of for location, captions_of in texts.items()}
    groups = {names[location]: group for location, group in groups.items()}
    # Captions kept outside the corpus name it through "..": then only the folders that they name are looked into.
    inside = root == Path(os.path.abspath(base))
    found = _files_below(root, MIDI_SUFFIXES, exclude, None if inside else {posixpath.dirname(name) for name in texts})
    missing = [
        (location, f"named in {captions.name}, but there is no such file")
        for location in sorted(texts.keys() - set(found))
        if not _excluded(location, exclude)
    ]
    empty = [(name, f"its caption in {captions.name} is empty") for name in found if texts.get(name) == ()]
    bare = [(name, f"no caption in {captions.name} names it") for name in found if name not in texts]
    named = [name for name in found if texts.get(name)]
    if not named:
        raise UserError(
            f"{captions}: none of its {len(texts)} locations is a MIDI file below {root} (the first is "
            f"{next(iter(texts), '')!r}); locations are relative to the file's own folder, or to --midi"
        )
    files = _Files(root, source or root.resolve().name, named, texts, groups)
    return Listing(files, len(named), "files", tuple(sorted([*missing, *empty, *bare])))


def text_files(paths: Sequence[Path], *, source: str, exclude: Sequence[str], document_bytes: int) -> Listing:
    """Text files as documents of at most ``document_bytes`` bytes (see :func:`documents`).

    All documents of a file form a group, named by the file's content, so that no page of a book is held out beside
    its neighbours in training. With fewer than LEAST_GROUPED_FILES files that could hold out nothing or far too much:
    then each document stands by itself.

    Args:
        paths: files, or folders whose text files (TEXT_SUFFIXES) are taken, recursively and sorted.
        source: name of the data set; empty for the name of each folder or file.
        exclude: as for :func:`midi_folder`.
        document_bytes: upper bound on a document.

    Raises:
        UserError: a path does not exist, or no text file is found.
    """
    if document_bytes < 64:
        raise UserError(f"a document of at most {document_bytes} bytes holds no text; give at least 64")
    found: list[tuple[str, str, Path]] = []
    for path in paths:
        if path.is_file():
            found.append((source or path.name, path.name, path))
            continue
        names = _files_below(path, TEXT_SUFFIXES, exclude)
        found += [(source or path.resolve().name, name, path / name) for name in names]
    total = sum(path.stat().st_size for _, _, path in found)
    where = ", ".join(str(path) for path in paths)
    if not found:
        raise UserError(_nothing_in(where, TEXT_SUFFIXES, exclude))
    if total == 0:
        raise UserError(f"{where}: every text file there is empty; give files with something in them")
    grouped = len(found) >= LEAST_GROUPED_FILES
    return Listing(_Documents(tuple(found), document_bytes, grouped), total, "bytes")


def read_texts(paths: Sequence[Path], *, exclude: Sequence[str]) -> Iterator[str]:
    """The text of files and folders (as for :func:`text_files`), a part at a time.

    Raises:
        UserError: as for :func:`text_files`, or a file is not text.
    """
    for record in text_files(paths, source="", exclude=exclude, document_bytes=_PART_BYTES).records:
        try:
            yield decode_text(record.read())
        except ValueError as error:
            raise UserError(f"{record.name}: {error}; mend the file or leave it out with --exclude") from error


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


def documents(path: Path, document_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Cuts a text file into documents, reading no more of it at a time than a few documents.

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

    with path.open("rb") as file:
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


@dataclasses.dataclass(frozen=True)
class _Files:
    root: Path
    source: str
    names: Sequence[str]
    captions: dict[str, tuple[str, ...]]
    groups: dict[str, str]

    def __iter__(self) -> Iterator[Record]:
        for name in self.names:
            captions = self.captions[name] if self.captions else ()
            group = self.groups.get(name, "")
            yield Record(self.source, name, captions=captions, group=group, path=self.root / name)


@dataclasses.dataclass(frozen=True)
class _Documents:
    files: tuple[tuple[str, str, Path], ...]
    document_bytes: int
    grouped: bool

    def __iter__(self) -> Iterator[Record]:
        for source, name, path in self.files:
            group = _digest(path) if self.grouped else ""
            for offset, amount, content in documents(path, self.document_bytes):
                yield Record(source, f"{name}:{offset}", amount=amount, group=group, content=content)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _files_below(
    folder: Path, suffixes: tuple[str, ...], exclude: Sequence[str], only: Collection[str] | None = None
) -> list[str]:
    """Sorted names below ``folder``; of the files in the folders ``only`` alone when that is given."""
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.is_file() else "no such folder"
        raise UserError(f"{folder}: {kind}; expected a folder with {', '.join(suffixes)} files")
    names = []
    for start in [""] if only is None else only:
        for parent, folders, files in os.walk(folder / start):
            below = Path(parent).relative_to(folder).as_posix()
            names += [posixpath.normpath(f"{below}/{file}") for file in files if file.lower().endswith(suffixes)]
            if only is not None:
                folders.clear()
    return sorted(name for name in names if not _excluded(name, exclude))


def _excluded(name: str, patterns: Sequence[str]) -> bool:
    parts = name.split("/")
    candidates = [*parts, *("/".join(parts[:depth]) for depth in range(2, len(parts) + 1))]
    return any(fnmatch.fnmatchcase(candidate, pattern) for pattern in patterns for candidate in candidates)


def _nothing_in(where: Path | str, suffixes: tuple[str, ...], exclude: Sequence[str]) -> str:
    left = f" once {', '.join(exclude)} is excluded" if exclude else ""
    return f"{where}: no {', '.join(suffixes)} file in it{left}; give a folder that holds some"


def _read_captions(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Captions and groups by normalised location, in the file's order."""
    texts: dict[str, tuple[str, ...]] = {}
    groups: dict[str, str] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                fields = json.loads(line)
            except ValueError as error:
                raise UserError(f"{where}: not a JSON object ({error}); expected one object a line") from error
            location = _field(fields, "location", where)
            captions = _field(fields, "caption", where)
            captions = [captions] if isinstance(captions, str) else captions
            if not isinstance(location, str) or not location:
                raise UserError(f"{where}: location is {location!r}; expected the path of a MIDI file")
            if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
                raise UserError(f"{where}: caption is {captions!r}; expected a string or a list of strings")
            location = posixpath.normpath(location.replace("\\", "/"))
            written = tuple(caption.strip() for caption in captions if caption.strip())
            texts[location] = (*texts[location], *written) if location in texts else written
            if "group" in fields:
                groups[location] = str(fields["group"])
    return texts, groups


def _field(fields: Any, name: str, where: str) -> Any:
    if not isinstance(fields, dict) or name not in fields:
        raise UserError(f'{where}: no field "{name}"; expected an object with location and caption')
    return fields[name]


def _names_of(base: Path, locations: Iterable[str]) -> tuple[Path, dict[str, str]]:
    """The folder that names are relative to, and the name of every location.

    The folder is ``base`` while all locations lie below it, else the deepest one that holds them all.
    """
    start = os.path.abspath(base)
    full = {location: os.path.normpath(os.path.join(start, location)) for location in locations}
    if not all(path.startswith(start + os.sep) for path in full.values()):
        start = os.path.commonpath([os.path.dirname(path) for path in full.values()])
    return Path(start), {location: Path(path).relative_to(start).as_posix() for location, path in full.items()}
