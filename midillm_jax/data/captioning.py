"""MIDI files without captions -> captions.jsonl, with genre words from a table where there is one."""

import dataclasses
import itertools
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from midillm_jax.data.captions import captions, columns
from midillm_jax.data.catalogue import Catalogue, read_catalogue
from midillm_jax.data.describe import describe
from midillm_jax.data.jobs import compile_reader
from midillm_jax.data.progress import Progress
from midillm_jax.data.sources import Listing, Record, midi_files, storage
from midillm_jax.data.workers import run_ordered
from midillm_jax.errors import UserError
from midillm_jax.music.midi import MidiError, read_midi

_BYTES_A_WORKER = 16 * 2**20
"""Input from which another process makes up for its start."""
_BATCH_FILES = 64
"""Files handed to a process at a time."""
_SHOWN_REJECTS = 10


@dataclasses.dataclass(frozen=True)
class CaptionReport:
    """What ``caption_files`` did."""

    written: int
    rejected: tuple[tuple[str, str], ...]
    """(file, reason)."""
    without_row: int
    """Captioned files that the manifest does not list."""
    without_file: int
    """Rows of the manifest whose file was not among those captioned."""


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A file and what the manifest says about it."""

    record: Record
    catalogue: Catalogue | None


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Pieces that one process captions in a row."""

    pieces: tuple[_Piece, ...]

    def __str__(self) -> str:
        return f"{self.pieces[0].record.name} or one of the files after it"


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of captions.jsonl, or the reason why there is none."""

    name: str
    amount: int
    in_manifest: bool
    text: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _CaptionJob:
    """MIDI bytes to lines."""

    base: str
    """The folder that locations are relative to."""
    count: int
    seed: int
    compiled: bool

    def __call__(self, batch: _Batch) -> list[_Line]:
        return [self._line(piece) for piece in batch.pieces]

    def _line(self, piece: _Piece) -> _Line:
        record = piece.record
        empty = _Line(record.name, record.amount, piece.catalogue is not None, reason=record.problem)
        if record.problem:
            return empty
        try:
            table = read_midi(record.read(), compiled=self.compiled)
        except (OSError, MidiError) as error:
            return dataclasses.replace(empty, reason=str(error))
        # Names of old archives need not be UTF-8; as bytes they seed all the same.
        rng = random.Random(f"{self.seed} ".encode() + os.fsencode(record.name))
        catalogue = piece.catalogue or Catalogue()
        description = describe(table)
        line = {
            "location": _location(record, self.base),
            "caption": captions(description, rng, catalogue, self.count),
            **columns(description, catalogue),
            **({"group": catalogue.group} if catalogue.group else {}),
        }
        return dataclasses.replace(empty, text=_json(line))


def caption_files(
    inputs: Sequence[str],
    out: Path,
    *,
    manifest: Path | None,
    exclude: Sequence[str] = (),
    count: int = 3,
    seed: int = 0,
    workers: int = 0,
) -> CaptionReport:
    """Writes one line a readable MIDI file: "location", "caption" (a list), MidiCaps' columns.

    A file of a folder is located relative to ``out``'s folder, so that ``prepare pairs`` finds it from there; a member
    of an archive or a row of a table by its name in it, for ``prepare pairs --midi``. The wording depends on the seed
    and the file's name alone. Shows progress on stderr and prints totals.

    Args:
        inputs: as for :func:`~midillm_jax.data.sources.midi_files`.
        out: the captions.jsonl to write; it appears once it is complete.
        manifest: tab-separated table with a "path" column (names as in the input); "genre" or else "note", "mood",
            "composer", "title" and "group" are used where they are there.
        exclude: patterns on file or folder names to leave out.
        count: captions a piece.
        seed: draws the wording.
        workers: processes; 0 for as many as the cores and the input make worth while.

    Raises:
        UserError: no MIDI file, none that can be read, no captions asked for, or a manifest that is not such a table.
    """
    if count < 1:
        raise UserError(f"{count} captions a piece were asked for; ask for at least one")
    rows = {} if manifest is None else read_catalogue(manifest)
    listing = midi_files(inputs, source="", exclude=exclude)
    base = os.path.abspath(out.parent)
    os.makedirs(base, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    workers = workers or max(1, min(os.cpu_count() or 1, listing.size_bytes // _BYTES_A_WORKER))
    job = _CaptionJob(base, count, seed, compile_reader(listing.size_bytes))
    rejected: list[tuple[str, str]] = []
    written = with_row = 0
    try:
        with (
            partial.open("w", encoding="utf-8", newline="\n") as file,
            Progress(listing.size_bytes, "files") as progress,
        ):
            for lines in run_ordered(job, _batches(listing, rows), workers):
                for line in lines:
                    if line.reason:
                        rejected.append((line.name, line.reason))
                        continue
                    file.write(line.text + "\n")
                    written += 1
                    with_row += line.in_manifest
                failed = sum(bool(line.reason) for line in lines)
                progress.add(records=len(lines), amount=sum(line.amount for line in lines), rejected=failed)
        if not written:
            if not rejected:
                raise UserError(f"{', '.join(inputs)}: no MIDI file in it; give a folder or an archive that holds some")
            name, reason = rejected[0]
            raise UserError(
                f"{', '.join(inputs)}: none of {len(rejected):,} MIDI files could be read, the first, {name}: {reason}"
            )
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    report = CaptionReport(written, tuple(rejected), written - with_row if rows else 0, len(rows) - with_row)
    print(_summary(report, out, manifest))
    return report


def _batches(listing: Listing, rows: Mapping[str, Catalogue]) -> Iterator[_Batch]:
    pieces = (_Piece(record, rows.get(record.name)) for record in listing.records)
    while batch := tuple(itertools.islice(pieces, _BATCH_FILES)):
        yield _Batch(batch)


def _summary(report: CaptionReport, out: Path, manifest: Path | None) -> str:
    lines = [f"{out} is ready: captions of {report.written:,} pieces"]
    if manifest is not None:
        lines.append(
            f"{manifest.name}: {report.without_row:,} captioned files have no row, "
            f"{report.without_file:,} rows have no captioned file"
        )
    if report.rejected:
        lines.append(f"left out: {len(report.rejected):,}")
        lines += [f"  {name}: {reason}" for name, reason in report.rejected[:_SHOWN_REJECTS]]
        if len(report.rejected) > _SHOWN_REJECTS:
            lines.append(f"  and {len(report.rejected) - _SHOWN_REJECTS:,} more")
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def _json(line: dict[str, object]) -> str:
    """One line of JSON; a file name that is not UTF-8 is escaped, so that the line can be written and read back."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(line)
    return text


def _location(record: Record, base: str) -> str:
    if not record.location or storage.is_remote(record.location):
        return record.name
    return Path(os.path.relpath(os.path.abspath(record.location), base)).as_posix()
