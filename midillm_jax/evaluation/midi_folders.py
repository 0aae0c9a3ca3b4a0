"""Folders of .mid files as an evaluation takes them: music that somebody made, and real music to hold it against."""

import dataclasses
import hashlib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from midillm_jax.data.shards import Piece, open_split
from midillm_jax.data.sources import Listing, midi_files
from midillm_jax.data.sources.captions import CAPTIONS_NAME, CaptionTable
from midillm_jax.data.sources.record import Record, listed
from midillm_jax.errors import UserError
from midillm_jax.evaluation.inputs import fingerprint
from midillm_jax.music.midi import MidiError, NoteTable, has_numba, read_midi

Report = Callable[[int, int], None]
"""Called with how many files are read, and of how many."""


@dataclasses.dataclass(frozen=True)
class MidiFolder:
    """What a folder holds."""

    pieces: tuple[Piece, ...]
    """In the order of their names; those that no caption names have none."""
    refused: tuple[tuple[str, str], ...]
    """Name and reason of files that cannot be read as music."""
    without_file: tuple[str, ...]
    """Locations in the captions that name no file of the folder."""
    digest: str
    """SHA-256 (hex) of all files' names and bytes, and of the captions."""


def read_midi_folder(folder: Path, captions: Path | None, report: Report) -> MidiFolder:
    """Every .mid, .midi and .kar file below a folder.

    Args:
        folder: the files.
        captions: one JSON object a line with location and caption, as captions.jsonl and MidiCaps' train.json have. A
            location fits a file if, endings apart, it is the file's path below the folder or ends with it, or the
            path ends with it: ``lmd_full/1/1a.mid`` fits ``1a.mid``. None for music without captions.
        report: called now and then.

    Raises:
        UserError: no such folder or captions, nothing in it that can be read, a file that two lines name or a line
            that names two files, or no caption that names a file.
    """
    listing = midi_files([str(folder)], source="", exclude=())
    words, without_file = _captions(listing, captions)
    pieces: list[Piece] = []
    refused: list[tuple[str, str]] = []
    seen = hashlib.sha256()
    records = list(listing.records)
    for done, record in enumerate(records):
        report(done, len(records))
        content, notes = _read(record)
        seen.update(f"{record.name} {hashlib.sha256(content).hexdigest()}\n".encode())
        if isinstance(notes, str):
            refused.append((record.name, notes))
        else:
            digest = hashlib.sha256(content).hexdigest()
            pieces.append(Piece(notes, words.get(record.name, ()), record.source, digest, record.name))
    report(len(records), len(records))
    if not pieces:
        raise UserError(
            f"{folder}: none of its {len(refused)} MIDI files can be read ({refused[0][0]}: {refused[0][1]}); expected "
            "files with notes; mend them or name another folder"
        )
    digest = fingerprint([seen.hexdigest(), sorted((name, *texts) for name, texts in words.items())])
    return MidiFolder(tuple(pieces), tuple(refused), without_file, digest)


@dataclasses.dataclass(frozen=True)
class References:
    """Real music."""

    pieces: tuple[Piece, ...]
    digest: str
    """SHA-256 (hex) of what they were drawn from, of how many were drawn, and of the draw."""
    origin: str
    """In words."""


def folder_references(folder: Path, most: int, seed: int, report: Report) -> References:
    """The pieces of a folder, with their captions where it holds captions.jsonl; ``most`` of them drawn by the seed.

    Raises:
        UserError: as :func:`read_midi_folder`.
    """
    beside = folder / CAPTIONS_NAME
    found = read_midi_folder(folder, beside if beside.is_file() else None, report)
    return _drawn(found.pieces, found.digest, most, seed, str(folder))


def split_references(folder: Path, most: int, seed: int) -> References:
    """Held-out pieces of a folder that ``prepare pairs`` made, drawn likewise.

    Raises:
        UserError: it is something else.
    """
    split = open_split(folder, "validation", kinds=("pairs",))
    order = np.random.default_rng(seed).permutation(len(split))[:most]
    pieces = tuple(split.piece(record) for record in order.tolist())
    return References(pieces, fingerprint([split.digest, most, seed]), f"the held-out pieces of {folder}")


def no_references() -> References:
    """Of music that is held against no other."""
    return References((), "", "")


def _drawn(pieces: Sequence[Piece], digest: str, most: int, seed: int, origin: str) -> References:
    order = np.random.default_rng(seed).permutation(len(pieces))[:most]
    return References(tuple(pieces[index] for index in order), fingerprint([digest, most, seed]), origin)


def _read(record: Record) -> tuple[bytes, NoteTable | str]:
    """A file's bytes, and its notes or why there are none."""
    if record.problem:
        return b"", record.problem
    content = record.read()
    try:
        return content, read_midi(content, compiled=has_numba())
    except MidiError as error:
        return content, str(error)


def _captions(listing: Listing, captions: Path | None) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Captions by file, and the locations that fit none."""
    if captions is None:
        return {}, ()
    if captions.is_dir():
        captions = captions / CAPTIONS_NAME
    if not captions.is_file():
        raise UserError(
            f"--captions {captions}: no such file; expected one JSON object a line with location and caption"
        )
    rows = CaptionTable(str(captions)).rows
    files: dict[str, list[str]] = {}
    for record in listing.records:
        for tail in _tails(record.name):
            files.setdefault(tail, []).append(record.name)
    words: dict[str, tuple[str, ...]] = {}
    named: dict[str, str] = {}
    lost = []
    for location, about in rows.items():
        fitting = _fitting(location, files)
        if len(fitting) > 1:
            raise UserError(
                f"{captions}: {location} fits {listed(fitting)}; expected one file; write more of its path, or move "
                "one of them away"
            )
        if not fitting:
            lost.append(location)
            continue
        if fitting[0] in named:
            raise UserError(
                f"{captions}: {named[fitting[0]]} and {location} both fit {fitting[0]}; expected one; name the files "
                "by more of their path, or leave one line out"
            )
        named[fitting[0]] = location
        words[fitting[0]] = about.captions
    if not any(words.values()):
        raise UserError(
            f"{captions}: none of its {len(rows)} locations names a MIDI file that is given (the first is "
            f"{next(iter(rows), '')!r}); expected paths that end with a file's name"
        )
    return words, tuple(lost)


def _fitting(location: str, files: Mapping[str, Sequence[str]]) -> list[str]:
    """Files of that path; else those whose path ends with it; else those whose path it ends with, the longest."""
    tails = _tails(location)
    ending = files.get(tails[0], ())
    same = [name for name in ending if _stem(name) == tails[0]]
    if same or ending:
        return list(same or ending)
    return next((found for tail in tails if (found := [n for n in files.get(tail, ()) if _stem(n) == tail])), [])


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _tails(name: str) -> list[str]:
    """The path without its ending, then without its first folder, and so on."""
    parts = _stem(name).split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]
