"""A folder of MIDI files without captions -> captions.jsonl, with genre words from a table where there is one."""

import csv
import json
import os
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from midillm_jax.data.captions import Catalogue, caption, columns, describe
from midillm_jax.data.sources import midi_files
from midillm_jax.errors import UserError
from midillm_jax.music.midi import MidiError, read_midi

_COMPILE_FROM = 200
"""Files from which compiling the MIDI reader pays."""
_LINE_SECONDS = 5.0
_SHOWN_REJECTS = 10
_GENRE_COLUMNS = ("genre", "note")
"""The first of these that a manifest has gives the genre words."""
_MADE_HOW = re.compile(r"\s*\([^()]*->[^()]*\)")
"""How a file was made, "(LilyPond -> MIDI)", says nothing about the music."""
_NOT_A_NAME = re.compile(r"(?i)trad|anon|unknown|various")


@dataclass(frozen=True)
class CaptionReport:
    """What ``caption_folder`` did."""

    written: int
    rejected: tuple[tuple[str, str], ...]
    """(file, reason)."""
    without_row: int
    """Captioned files that the manifest does not list."""
    without_file: int
    """Rows of the manifest whose file was not among those captioned."""


def caption_folder(
    input: Path, out: Path, *, manifest: Path | None, exclude: Sequence[str] = (), seed: int = 0
) -> CaptionReport:
    """Writes one line a readable MIDI file: "location" (relative to ``out``'s folder), "caption", MidiCaps' columns.

    The wording depends on the seed and the file's name alone. Shows progress on stderr and prints totals.

    Args:
        input: searched recursively.
        out: the captions.jsonl to write; it appears once it is complete.
        manifest: tab-separated table with a "path" column (below ``input``); "genre" or else "note", "composer",
            "title" and "group" are used where they are there.
        exclude: patterns on file or folder names to leave out.
        seed: draws the wording.

    Raises:
        UserError: no MIDI file, none that can be read, or a manifest that is not such a table.
    """
    rows = {} if manifest is None else _read_manifest(manifest)
    listing = midi_files([str(input)], source="", exclude=exclude)
    total = len(list(listing.records))
    base = os.path.abspath(out.parent)
    os.makedirs(base, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    rejected: list[tuple[str, str]] = []
    listed: set[str] = set()
    written = 0
    said = time.monotonic()
    with partial.open("w", encoding="utf-8", newline="\n") as lines:
        for record in listing.records:
            row = rows.get(record.name)
            try:
                table = read_midi(record.read(), compiled=total >= _COMPILE_FROM)
            except (OSError, MidiError) as error:
                rejected.append((record.name, str(error)))
                continue
            # Names of old archives need not be UTF-8; as bytes they seed all the same.
            rng = random.Random(f"{seed} ".encode() + os.fsencode(record.name))
            description = describe(table)
            catalogue = Catalogue() if row is None else _catalogue(row)
            line = {
                "location": _location(input / record.name, base),
                "caption": caption(description, rng, catalogue),
                **columns(description),
            }
            if row is not None:
                listed.add(record.name)
                line |= {"group": row["group"]} if row.get("group") else {}
                line |= {"genre": [catalogue.genre]} if catalogue.genre else {}
            lines.write(_json(line) + "\n")
            written += 1
            if time.monotonic() - said > _LINE_SECONDS:
                said = time.monotonic()
                print(f"{written + len(rejected):,} of {total:,} files", file=sys.stderr, flush=True)
    if not written:
        partial.unlink()
        name, reason = rejected[0]
        raise UserError(f"{input}: none of {total:,} MIDI files could be read, the first, {name}: {reason}")
    os.replace(partial, out)
    report = CaptionReport(written, tuple(rejected), written - len(listed) if rows else 0, len(rows) - len(listed))
    print(_summary(report, out, manifest))
    return report


def _summary(report: CaptionReport, out: Path, manifest: Path | None) -> str:
    lines = [f"{out} is ready: {report.written:,} captions"]
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


def _read_manifest(manifest: Path) -> dict[str, dict[str, str]]:
    """Rows by their "path"."""
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if "path" not in (table.fieldnames or ()):
                raise UserError(
                    f'{manifest}: no column "path" in its first line; expected a tab-separated table with a row a file'
                )
            return {row["path"]: {name: text or "" for name, text in row.items() if name} for row in table}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{manifest}: cannot be read as a tab-separated table ({error}); give a UTF-8 file with a path column"
        ) from error


def _catalogue(row: dict[str, str]) -> Catalogue:
    """What a row says, in words fit for a caption."""
    noted = next((row[column] for column in _GENRE_COLUMNS if column in row), "")
    phrases = [phrase.strip() for phrase in _MADE_HOW.sub("", noted).split(";")]
    title, composer = row.get("title", "").strip(), row.get("composer", "").strip()
    return Catalogue(
        genre=", ".join(phrase for phrase in phrases if phrase and "=" not in phrase),
        composer="" if _NOT_A_NAME.match(composer) else " ".join(reversed(composer.split(", ", 1))),
        # A file's name in place of a title ("mus_e1m1") is no title, and a number in front counts movements.
        title="" if "_" in title else title.lstrip("0123456789. "),
    )
