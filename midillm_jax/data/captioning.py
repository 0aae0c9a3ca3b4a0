"""A folder of MIDI files without captions -> captions.jsonl, with genre words from a table where there is one."""

import dataclasses
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from midillm_jax.data.captions import captions, columns
from midillm_jax.data.catalogue import Catalogue, read_catalogue
from midillm_jax.data.describe import describe
from midillm_jax.data.sources import Record, midi_folder
from midillm_jax.data.workers import run_ordered
from midillm_jax.errors import UserError
from midillm_jax.music.midi import MidiError, read_midi

_COMPILE_FROM = 200
"""Files from which compiling the MIDI reader pays."""
_FILES_A_WORKER = 1000
"""Files from which another process makes up for its start."""
_LINE_SECONDS = 5.0
_SHOWN_REJECTS = 10


@dataclasses.dataclass(frozen=True)
class CaptionReport:
    """What ``caption_folder`` did."""

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

    @property
    def name(self) -> str:
        return self.record.name


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of captions.jsonl, or the reason why there is none."""

    text: str
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _CaptionJob:
    """MIDI bytes to a line."""

    folder: Path
    base: str
    """The folder that locations are relative to."""
    count: int
    seed: int
    compiled: bool

    def __call__(self, piece: _Piece) -> _Line:
        try:
            table = read_midi(piece.record.read(), compiled=self.compiled)
        except (OSError, MidiError) as error:
            return _Line("", str(error))
        # Names of old archives need not be UTF-8; as bytes they seed all the same.
        rng = random.Random(f"{self.seed} ".encode() + os.fsencode(piece.name))
        catalogue = piece.catalogue or Catalogue()
        description = describe(table)
        line = {
            "location": _location(self.folder / piece.name, self.base),
            "caption": captions(description, rng, catalogue, self.count),
            **columns(description, catalogue),
            **({"group": catalogue.group} if catalogue.group else {}),
        }
        return _Line(_json(line))


def caption_folder(
    input: Path,
    out: Path,
    *,
    manifest: Path | None,
    exclude: Sequence[str] = (),
    count: int = 3,
    seed: int = 0,
    workers: int = 0,
) -> CaptionReport:
    """Writes one line a readable MIDI file: "location" (relative to ``out``'s folder), "caption", MidiCaps' columns.

    "caption" is a list. The wording depends on the seed and the file's name alone. Shows progress on stderr and prints
    totals.

    Args:
        input: searched recursively.
        out: the captions.jsonl to write; it appears once it is complete.
        manifest: tab-separated table with a "path" column (below ``input``); "genre" or else "note", "mood",
            "composer", "title" and "group" are used where they are there.
        exclude: patterns on file or folder names to leave out.
        count: captions a piece.
        seed: draws the wording.
        workers: processes; 0 for as many as the cores and the number of files make worth while.

    Raises:
        UserError: no MIDI file, none that can be read, no captions asked for, or a manifest that is not such a table.
    """
    if count < 1:
        raise UserError(f"{count} captions a piece were asked for; ask for at least one")
    rows = {} if manifest is None else read_catalogue(manifest)
    listing = midi_folder(input, source="", exclude=exclude)
    base = os.path.abspath(out.parent)
    os.makedirs(base, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    workers = workers or max(1, min(os.cpu_count() or 1, listing.total // _FILES_A_WORKER))
    job = _CaptionJob(input, base, count, seed, listing.total >= _COMPILE_FROM)
    pieces = (_Piece(record, rows.get(record.name)) for record in listing.records)
    rejected: list[tuple[str, str]] = []
    written = with_row = 0
    with partial.open("w", encoding="utf-8", newline="\n") as lines:
        for piece, line in _with_progress(run_ordered(job, pieces, workers), listing.total):
            if line.reason:
                rejected.append((piece.name, line.reason))
                continue
            lines.write(line.text + "\n")
            written += 1
            with_row += piece.catalogue is not None
    if not written:
        partial.unlink()
        name, reason = rejected[0]
        raise UserError(f"{input}: none of {listing.total:,} MIDI files could be read, the first, {name}: {reason}")
    os.replace(partial, out)
    report = CaptionReport(written, tuple(rejected), written - with_row if rows else 0, len(rows) - with_row)
    print(_summary(report, out, manifest))
    return report


def _with_progress(lines: Iterator[tuple[_Piece, _Line]], total: int) -> Iterator[tuple[_Piece, _Line]]:
    said = time.monotonic()
    for number, line in enumerate(lines, 1):
        yield line
        if time.monotonic() - said > _LINE_SECONDS:
            said = time.monotonic()
            print(f"{number:,} of {total:,} files", file=sys.stderr, flush=True)


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


def _location(path: Path, base: str) -> str:
    return Path(os.path.relpath(os.path.abspath(path), base)).as_posix()
