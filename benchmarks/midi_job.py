"""What a MIDI file costs on its way to a shard record, step by step.

    python benchmarks/midi_job.py corpus --json job.json

The arguments are folders of MIDI files, searched recursively; the steps are those of ``MidiJob`` (data/jobs.py),
compiled and with the paper's filters. Figures are CPU microseconds a file of one thread, the fastest of several passes
over all files, with the bytes in memory; reading them, and writing and compressing shards, come on top.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from midillm_jax.data.jobs import Filters, MidiJob, content_digest, filtered_out, notes_digest, piece_id
from midillm_jax.data.records import Piece, pack_piece
from midillm_jax.data.sources import Record
from midillm_jax.music.midi import MidiError, NoteTable, read_midi

PASSES = 7
FILTERS = Filters(min_notes=100, min_seconds=10.0, max_seconds=3600.0, max_programs=16)
Item = TypeVar("Item")


def readable(data: bytes) -> NoteTable | None:
    try:
        return read_midi(data, compiled=True)
    except MidiError:
        return None


def microseconds(step: Callable[[Item], object], items: Sequence[Item]) -> float:
    """CPU time an item, in the fastest of the passes."""
    passes = []
    for _ in range(PASSES):
        started = time.process_time()
        for item in items:
            step(item)
        passes.append(time.process_time() - started)
    return round(1e6 * min(passes) / len(items), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    paths = sorted({path for folder in arguments.folders for path in folder.rglob("*.mid")})
    files = [path.read_bytes() for path in paths]
    tables = [table for table in map(readable, files) if table is not None]
    if not tables:
        parser.error("no .mid files with notes there")
    pieces = [Piece(table, (), "corpus", piece_id(content_digest(b"")), "folder/name.mid") for table in tables]
    records = [Record("corpus", "folder/name.mid", content=data) for data in files]
    steps = {
        "SHA-256 of the bytes": microseconds(content_digest, files),
        "read_midi, compiled": microseconds(readable, files),
        "filters": microseconds(lambda table: filtered_out(table, FILTERS), tables),
        "notes_digest": microseconds(notes_digest, tables),
        "pack_piece": microseconds(pack_piece, pieces),
        "all of MidiJob": microseconds(MidiJob(FILTERS, compiled=True), records),
    }
    notes = sum(map(len, tables))
    print(f"{len(files):,} files ({len(files) - len(tables):,} refused), {notes:,} notes, {PASSES} passes")
    print("| step | CPU microseconds a file |")
    print("|---|---|")
    for step, cost in steps.items():
        print(f"| {step} | {cost:,} |")
    print(f"That is {1e6 / steps['all of MidiJob']:,.0f} files a second a core.")
    if arguments.json:
        arguments.json.write_text(json.dumps({"files": len(files), "notes": notes, "microseconds": steps}, indent=1))


if __name__ == "__main__":
    main()
