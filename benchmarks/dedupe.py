"""How well and how fast `prepare dedupe` finds the same music: recall for each kind of change, false finds, speed.

    python benchmarks/dedupe.py --midi FOLDER
    python benchmarks/dedupe.py                  # on pieces of the demo's band, which play by rule

Every piece of the folder goes into the index; then changed copies of it are looked up, each kind of change by itself.
Also every piece is looked up among the others: what is found there is named, for a person to judge. Times are CPU
seconds of one process. Prints tables; ``--json FILE`` writes the figures too.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from midillm_jax.data.demo import write_band
from midillm_jax.data.fingerprints import Fingerprint, Index, Match, fingerprint
from midillm_jax.music.midi import MidiError, NoteTable, read_midi
from midillm_jax.music.vocab import DRUM_PROGRAM, MAX_DURATION_TICKS, PITCHES

Change = Callable[[NoteTable, np.random.Generator], NoteTable | None]
"""A changed copy; None where the change is not possible."""
SHOWN = 30


def changed(
    table: NoteTable,
    *,
    onsets: np.ndarray | None = None,
    durations: np.ndarray | None = None,
    notes: np.ndarray | None = None,
    velocities: np.ndarray | None = None,
) -> NoteTable:
    """The table with other columns, in order of onset."""
    columns = {"onsets": onsets, "durations": durations, "notes": notes, "velocities": velocities}
    full = {name: getattr(table, name) if column is None else column for name, column in columns.items()}
    order = np.argsort(full["onsets"], kind="stable")
    ordered = {name: column[order].astype(getattr(table, name).dtype) for name, column in full.items()}
    return dataclasses.replace(table, **ordered)


def kept(table: NoteTable, which: np.ndarray) -> NoteTable | None:
    """Some notes of the table."""
    columns = {name: getattr(table, name)[which] for name in ("onsets", "durations", "notes", "velocities")}
    return dataclasses.replace(table, **columns) if which.any() else None


def transposed(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    programs, pitches = np.divmod(table.notes, PITCHES)
    moved = np.clip(pitches + rng.choice([-5, -3, -2, 2, 3, 5]), 0, PITCHES - 1)
    return changed(table, notes=np.where(programs < DRUM_PROGRAM, programs * PITCHES + moved, table.notes))


def faster(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    stretch = rng.choice([0.5, 0.8, 0.9, 1.1, 1.25, 2.0])
    durations = np.minimum(np.rint(table.durations * stretch), MAX_DURATION_TICKS - 1)
    return changed(table, onsets=np.rint(table.onsets * stretch), durations=durations)


def louder(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    return changed(table, velocities=rng.integers(1, 128, len(table)))


def later(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    return changed(table, onsets=table.onsets + int(rng.integers(1, 1000)))


def uneven(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    return changed(table, onsets=np.maximum(0, table.onsets + rng.integers(-1, 2, len(table))))


def on_other_instruments(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    programs, pitches = np.divmod(table.notes, PITCHES)
    others = np.append(rng.permutation(DRUM_PROGRAM), DRUM_PROGRAM)
    return changed(table, notes=others[programs] * PITCHES + pitches)


def on_one_instrument(table: NoteTable, rng: np.random.Generator) -> NoteTable | None:
    programs, pitches = np.divmod(table.notes, PITCHES)
    if len(set(table.programs()) - {DRUM_PROGRAM}) < 2:
        return None
    return changed(table, notes=np.where(programs < DRUM_PROGRAM, pitches, table.notes))


def without_an_instrument(table: NoteTable, rng: np.random.Generator) -> NoteTable | None:
    programs = sorted(set(table.programs()) - {DRUM_PROGRAM})
    return None if len(programs) < 2 else kept(table, table.notes // PITCHES != rng.choice(programs))


def without_drums(table: NoteTable, rng: np.random.Generator) -> NoteTable | None:
    drums = table.notes // PITCHES == DRUM_PROGRAM
    return kept(table, ~drums) if drums.any() else None


def dropped(share: float) -> Change:
    return lambda table, rng: kept(table, rng.random(len(table)) >= share)


def added(share: float) -> Change:
    def change(table: NoteTable, rng: np.random.Generator) -> NoteTable:
        new = rng.integers(0, len(table), max(1, round(share * len(table))))
        programs, pitches = np.divmod(table.notes[new], PITCHES)
        moved = np.clip(pitches + rng.choice([-12, -7, -4, 3, 4, 7, 12], len(new)), 0, PITCHES - 1)
        columns = {
            "onsets": np.append(table.onsets, table.onsets[new]),
            "durations": np.append(table.durations, table.durations[new]),
            "notes": np.append(table.notes, programs * PITCHES + moved),
            "velocities": np.append(table.velocities, table.velocities[new]),
        }
        return changed(table, **columns)

    return change


def first_half(table: NoteTable, rng: np.random.Generator) -> NoteTable | None:
    return kept(table, np.arange(len(table)) < len(table) // 2)


def all_at_once(table: NoteTable, rng: np.random.Generator) -> NoteTable | None:
    copy = dropped(0.02)(table, rng)
    for change in (transposed, faster, louder, later, on_other_instruments, added(0.02)):
        copy = None if copy is None else change(copy, rng)
    return copy


CHANGES: dict[str, Change] = {
    "other velocities": louder,
    "silence in front": later,
    "transposed": transposed,
    "faster or slower, 0.5 to 2 times": faster,
    "every onset up to 10 ms off": uneven,
    "on other instruments": on_other_instruments,
    "all on one instrument": on_one_instrument,
    "without drums": without_drums,
    "without one instrument": without_an_instrument,
    "2 % of the notes dropped": dropped(0.02),
    "5 % dropped": dropped(0.05),
    "10 % dropped": dropped(0.10),
    "2 % added": added(0.02),
    "5 % added": added(0.05),
    "first half only": first_half,
    "transposed, tempo, instruments, 2 % dropped, 2 % added": all_at_once,
}


def read(folder: Path) -> dict[str, NoteTable]:
    """The pieces below a folder, by name; files that cannot be read are passed over."""
    tables = {}
    for path in sorted(folder.rglob("*.mid")):
        try:
            tables[path.relative_to(folder).as_posix()] = read_midi(path.read_bytes(), compiled=True)
        except MidiError:
            continue
    return tables


def built(marks: list[Fingerprint], threshold: float) -> Index[int]:
    index: Index[int] = Index(threshold, marks.__getitem__)
    for place, mark in enumerate(marks):
        index.add(place, mark)
    return index


def recall(tables: list[NoteTable], index: Index[int], seed: int) -> list[dict[str, object]]:
    """One row a kind of change: how many changed copies were looked up, and how many were found, and how."""
    rows: list[dict[str, object]] = []
    for name, change in CHANGES.items():
        rng = np.random.default_rng(seed)
        found: list[Match[int]] = []
        tried = other = 0
        for place, table in enumerate(tables):
            copy = change(table, rng)
            if copy is not None:
                tried += 1
                match = index.find(fingerprint(copy))
                if match is not None:
                    found.append(match)
                    other += match.place != place
        if tried:
            exact = sum(match.reason == "exact" for match in found)
            median = statistics.median(match.similarity for match in found) if found else 0.0
            row = {"change": name, "copies": tried, "exact": exact, "near": len(found) - exact}
            rows.append(row | {"recall": len(found) / tried, "median similarity": median, "another piece": other})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--midi", type=Path, help="folder of MIDI files; the demo's band if not given")
    parser.add_argument("--threshold", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.midi:
        named = read(arguments.midi)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_band(Path(folder) / "band", 1000, arguments.seed, documents=0)
            named = read(Path(folder) / "band")
    names, tables = list(named), list(named.values())
    notes = sum(map(len, tables))
    fingerprint(tables[0]).sketches  # noqa: B018  imports the library before the clock starts

    started = time.process_time()
    marks = [fingerprint(table) for table in tables]
    marked = time.process_time()
    sketches = sum(len(mark.sketches) for mark in marks)
    sketched = time.process_time()
    index = built(marks, arguments.threshold)
    added_ = time.process_time()
    among = [index.find(mark, place) for place, mark in enumerate(marks)]
    ended = time.process_time()
    tracemalloc.start()
    again = built(marks, arguments.threshold)
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del again

    count = len(tables)
    figures = {
        "pieces": count,
        "notes": notes,
        "pieces_a_second": count / (ended - started),
        "notes_a_second": notes / (ended - started),
        "microseconds_a_piece": {
            "fingerprint": (marked - started) / count * 1e6,
            "sketches": (sketched - marked) / count * 1e6,
            "adding": (added_ - sketched) / count * 1e6,
            "finding": (ended - added_) / count * 1e6,
        },
        "sketches_a_piece": sketches / count,
        "index_bytes_a_piece": memory / count,
        "pairs_compared": index.compared,
    }
    pairs = [(names[at], names[match.place], match) for at, match in enumerate(among) if match is not None]
    rows = recall(tables, index, arguments.seed)

    print(f"{count:,} pieces, {notes:,} notes; threshold {arguments.threshold:g}\n")
    print("| change | copies | found exact | found near | recall | median similarity | of another piece |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['change']} | {row['copies']:,} | {row['exact']:,} | {row['near']:,} | {row['recall']:.1%} | "
            f"{row['median similarity']:.2f} | {row['another piece']} |"
        )
    print(f"\n{len(pairs)} of {count:,} pieces equal an earlier one ({count * (count - 1) // 2:,} pairs):")
    for one, other, match in pairs[:SHOWN]:
        print(f"    {match.reason} {match.similarity:.2f}  {one}  {other}")
    print(f"\n{figures['pieces_a_second']:,.0f} pieces/s and {figures['notes_a_second']:,.0f} notes/s in one process;")
    print(", ".join(f"{name} {value:,.0f} us" for name, value in figures["microseconds_a_piece"].items()), "a piece;")
    print(f"{figures['index_bytes_a_piece']:,.0f} bytes of index a piece ({figures['sketches_a_piece']:.2f} sketches);")
    print(f"{index.compared:,} pairs were compared shingle by shingle")
    if arguments.json:
        listed = [{"piece": one, "equals": other, **dataclasses.asdict(match)} for one, other, match in pairs]
        arguments.json.write_text(json.dumps({**figures, "recall": rows, "found_among_pieces": listed}, indent=1))


if __name__ == "__main__":
    main()
