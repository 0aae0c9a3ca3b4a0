"""Files, archives and tables as plain records, in an order that depends on their names and content alone.

A listing can be walked again and again and never holds more than names in memory. What cannot be used (a caption
without its file, a file without a caption) is a record with a problem or is listed as missing, never dropped in
silence. Inputs are local or remote alike (data/sources/storage.py).
"""

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from midillm_jax.data.sources import storage
from midillm_jax.data.sources.archives import ARCHIVE_SUFFIXES, ArchivePart
from midillm_jax.data.sources.captions import CAPTIONS_NAME, CaptionTable
from midillm_jax.data.sources.documents import DocumentsPart, decode_text, documents
from midillm_jax.data.sources.folders import FolderPart, folder_files
from midillm_jax.data.sources.record import (
    JSON_LINES_SUFFIXES,
    MIDI_SUFFIXES,
    PARQUET_SUFFIXES,
    TEXT_SUFFIXES,
    Listing,
    Part,
    Record,
    excluded,
    listed,
    nothing_in,
)
from midillm_jax.data.sources.tables import JsonLinesPart, ParquetPart
from midillm_jax.errors import UserError

__all__ = [
    "MIDI_SUFFIXES",
    "TEXT_SUFFIXES",
    "Listing",
    "Record",
    "captioned_files",
    "decode_text",
    "documents",
    "midi_files",
    "read_texts",
    "text_files",
]

LEAST_GROUPED_FILES = 20
"""Text files from which each is held out as a whole or not at all."""
_PART_BYTES = 1 << 16
"""Text is handed to a vocabulary's training in parts of at most this size."""


def midi_files(inputs: Sequence[str], *, source: str, exclude: Sequence[str], column: str = "") -> Listing:
    """MIDI files (.mid, .midi, .kar in any case) of folders, archives and parquet tables.

    Args:
        inputs: each a folder (searched recursively for MIDI files and parquet tables), an archive (ARCHIVE_SUFFIXES),
            a parquet file or a pattern of such. Folders are read in the order of their names.
        source: name of the data set; empty for each input's own name.
        exclude: glob patterns on a file's name, its path below its folder or archive, or a folder on that path.
        column: of parquet tables; empty for the only one with bytes.

    Raises:
        UserError: an input does not exist, is none of these, or holds no MIDI file.
    """
    parts: list[Part] = []
    for given in inputs:
        for location in storage.expand(given):
            parts += _midi_parts(location, source, tuple(exclude), column, None)
    return Listing(tuple(parts), "files")


def captioned_files(
    captions: str, *, midi: str | None, source: str, exclude: Sequence[str], column: str = ""
) -> Listing:
    """The MIDI files that a table of captions names, each with its captions.

    The table has one JSON object a line (see :class:`CaptionTable`), as MidiCaps' train.json. Files that no caption
    names are records with a problem; captions without a file are ``missing``.

    Args:
        captions: the table, or a folder that holds captions.jsonl.
        midi: what locations are relative to: a folder, an archive or a parquet file; None for the table's own folder.
        source: name of the data set; empty for the folder's or archive's own name.
        exclude: as for :func:`midi_files`.
        column: as for :func:`midi_files`.

    Raises:
        UserError: nothing is there, a line is malformed, or no caption finds its file in the folder.
    """
    if storage.is_folder(captions):
        captions = storage.join(captions, CAPTIONS_NAME)
    if not storage.is_file(captions):
        raise UserError(
            f"{captions}: no such file; expected one JSON object a line with location and caption "
            "(`python -m midillm_jax.prepare caption` writes it)"
        )
    table = CaptionTable(captions)
    if midi is None or storage.is_folder(midi):
        return _captioned_folder(table, midi, source, exclude)
    parts: list[Part] = []
    for location in storage.expand(midi):
        if not storage.is_file(location):
            raise UserError(
                f"{location}: no such file or folder; expected what the locations in {captions} are relative to"
            )
        parts += _midi_parts(location, source, tuple(exclude), column, table)
    return Listing(tuple(parts), "files", table)


def text_files(
    inputs: Sequence[str], *, source: str, exclude: Sequence[str], document_bytes: int, column: str = ""
) -> Listing:
    """Text as documents of at most ``document_bytes`` bytes (see :func:`documents`).

    All documents of a file form a group, named by the file's content, so that no page of a book is held out beside
    its neighbours in training. With fewer than LEAST_GROUPED_FILES files that could hold out nothing or far too much:
    then each document stands by itself. A row of a table (parquet, JSON lines) is a group always.

    Args:
        inputs: files, or folders whose text files (TEXT_SUFFIXES) and tables are taken, recursively and sorted.
        source: name of the data set; empty for the name of each folder or file.
        exclude: as for :func:`midi_files`.
        document_bytes: upper bound on a document.
        column: of tables; empty for "text", or a parquet table's only column of text.

    Raises:
        UserError: an input does not exist, or no text is found.
    """
    if document_bytes < 64:
        raise UserError(f"a document of at most {document_bytes} bytes holds no text; give at least 64")
    tables = (*PARQUET_SUFFIXES, *JSON_LINES_SUFFIXES)
    parts: list[Part] = []
    plain: list[tuple[str, str, str]] = []
    for given in inputs:
        for location in storage.expand(given):
            if storage.is_file(location):
                named = [("", storage.base_name(location), location)]
            else:
                # Captions are words about music in a form of their own, which pairs reads.
                files = folder_files(location, (*TEXT_SUFFIXES, *tables), (*exclude, CAPTIONS_NAME))
                named = [(storage.base_name(location), file.name, storage.join(location, file.name)) for file in files]
            for folder, name, path in named:
                its_source = source or folder or name
                if name.lower().endswith(PARQUET_SUFFIXES):
                    parts.append(ParquetPart(path, its_source, "text", column, document_bytes))
                elif name.lower().endswith(JSON_LINES_SUFFIXES):
                    parts.append(JsonLinesPart(path, its_source, column, document_bytes))
                else:
                    plain.append((its_source, name, path))
    where = ", ".join(inputs)
    if not parts and not plain:
        raise UserError(nothing_in(where, (*TEXT_SUFFIXES, *tables), exclude))
    if plain:
        parts.insert(0, DocumentsPart(tuple(plain), document_bytes, len(plain) >= LEAST_GROUPED_FILES))
    listing = Listing(tuple(parts), "documents")
    if listing.size_bytes == 0:
        raise UserError(f"{where}: every text file there is empty; give files with something in them")
    return listing


def read_texts(inputs: Sequence[str], *, exclude: Sequence[str], column: str = "") -> Iterator[str]:
    """The text of files, folders and tables (as for :func:`text_files`), a part at a time.

    Raises:
        UserError: as for :func:`text_files`, or a file is not text.
    """
    for record in text_files(inputs, source="", exclude=exclude, document_bytes=_PART_BYTES, column=column).records:
        if record.problem:
            continue
        try:
            yield decode_text(record.read())
        except ValueError as error:
            raise UserError(f"{record.name}: {error}; mend the file or leave it out with --exclude") from error


def _midi_parts(
    location: str, source: str, exclude: tuple[str, ...], column: str, captions: CaptionTable | None
) -> list[Part]:
    lower = location.lower()
    stem = storage.base_name(location).partition(".")[0]
    if storage.is_file(location):
        if lower.endswith(ARCHIVE_SUFFIXES):
            return [ArchivePart(location, source or stem, MIDI_SUFFIXES, exclude, captions)]
        if lower.endswith(PARQUET_SUFFIXES):
            return [ParquetPart(location, source or stem, "midi", column, captions=captions)]
        raise UserError(
            f"{location}: is a file, not a folder; expected a folder with {', '.join(MIDI_SUFFIXES)} files, an archive "
            f"({', '.join(ARCHIVE_SUFFIXES)}) or a {PARQUET_SUFFIXES[0]} table"
        )
    files = folder_files(location, (*MIDI_SUFFIXES, *PARQUET_SUFFIXES), exclude)
    midi = tuple(file for file in files if file.name.lower().endswith(MIDI_SUFFIXES))
    name = source or storage.base_name(location)
    parts: list[Part] = [FolderPart(location, name, midi)] if midi else []
    for file in files:
        if file.name.lower().endswith(PARQUET_SUFFIXES):
            parts.append(ParquetPart(storage.join(location, file.name), name, "midi", column))
    if not parts:
        archives = [file.name for file in folder_files(location, ARCHIVE_SUFFIXES, exclude)]
        hint = f"; to read an archive in it ({listed(archives)}), name that itself" if archives else ""
        raise UserError(nothing_in(location, MIDI_SUFFIXES, exclude) + hint)
    return parts


def _captioned_folder(table: CaptionTable, midi: str | None, source: str, exclude: Sequence[str]) -> Listing:
    """Locations are paths of files here, so they may leave the folder that they are relative to."""
    base = (posixpath.dirname(table.path) or ".") if midi is None else midi
    if storage.is_remote(base):
        root, names = base, {location: location for location in table.rows}
    else:
        root, names = _names_of(Path(base), table.rows)
    about = {names[location]: known for location, known in table.rows.items()}
    # Captions kept outside the corpus name it through "..": then only the folders that they name are looked into.
    inside = storage.is_remote(base) or root == os.path.abspath(base)
    files = folder_files(root, MIDI_SUFFIXES, exclude, None if inside else {posixpath.dirname(name) for name in about})
    found = {file.name for file in files}
    if not any(about[name].captions for name in found & about.keys()):
        raise UserError(
            f"{table.path}: none of its {len(about)} locations is a MIDI file below {root} (the first is "
            f"{next(iter(table.rows), '')!r}); locations are relative to the file's own folder, or to --midi"
        )
    problems = {name: table.no_words for name in found if name in about and not about[name].captions}
    problems |= dict.fromkeys(sorted(found - about.keys()), table.no_row)
    part = FolderPart(root, source or storage.base_name(root), files, about, problems)
    return Listing((part,), "files", _FolderCaptions(table, names, tuple(exclude)))


class _FolderCaptions:
    """The other side of the join: captions whose file is not there."""

    def __init__(self, table: CaptionTable, names: dict[str, str], exclude: tuple[str, ...]) -> None:
        self._reason = f"named in {table.name}, but there is no such file"
        self._names = [name for name in names.values() if not excluded(name, exclude)]

    def missing(self, seen: Iterable[str]) -> list[tuple[str, str]]:
        """See :class:`~midillm_jax.data.sources.record.Captions`."""
        there = set(seen)
        return [(name, self._reason) for name in self._names if name not in there]


def _names_of(base: Path, locations: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The folder that names are relative to, and the name of every location.

    The folder is ``base`` while all locations lie below it, else the deepest one that holds them all.
    """
    start = os.path.abspath(base)
    full = {location: os.path.normpath(os.path.join(start, location)) for location in locations}
    if not all(path.startswith(start + os.sep) for path in full.values()):
        start = os.path.commonpath([os.path.dirname(path) for path in full.values()])
    return start, {location: Path(path).relative_to(start).as_posix() for location, path in full.items()}
