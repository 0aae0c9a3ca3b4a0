"""How often the signs of failed music (music/signatures.py) fire on real pieces, and on failures made of them.

    python benchmarks/signatures.py FOLDER

FOLDER holds MIDI files, at any depth. Each piece is judged whole and as a model would write it, which is its opening up
to 682 notes and 100 seconds. Few of these may be called failures. Of each opening failures are then made, with a fixed
seed: a bar that is played over and over (1.2 to 8 s, onsets up to a tick off, one note in fifty wrong), notes piled up
in two ways, its first dozen notes alone, a hole of ten seconds in its middle, and notes so short and far apart that
silence rules. These should be called what they are.

Stretches of the pieces, 4 to 32 seconds from anywhere, are judged as takes of a change of a file are
(composing/takes.py): silence at their ends counts, and there is no least number of notes.

Prints five tables: shares of pieces with each sign; of each threshold by itself the real pieces that it rejects, with
95 % intervals, the failures it is there for that it catches, and the tightest value that rejects no more than 1 in 200
of the real openings; real pieces by the folder that they lie in; the distributions; and the stretches. ``--json FILE``
writes the figures too.
"""

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from midillm_jax.evaluation.intervals import Interval, wilson
from midillm_jax.music import signatures as signs
from midillm_jax.music.midi import MidiError, NoteTable, read_midi
from midillm_jax.music.signatures import Signatures, signatures
from midillm_jax.music.vocab import MAX_ONSET_TICKS, TICKS_PER_SECOND

OPENING_NOTES = 682
SIGNS = ("looping", "flooded", "empty")
STRETCH_SIGNS, STRETCHES = ("looping", "flooded", "holey"), (4, 8, 16, 32)
"""Signs in a stretch, and seconds of one."""
NUMBERS = ("loop_share", "most_together", "notes_a_second", "silent_share", "longest_silence", "notes", "seconds")
QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 0.995, 1.0)
FALSE_SHARE = 1 / 200
"""Of real openings that a threshold may reject."""


def first(table: NoteTable, count: int) -> NoteTable:
    """The first notes of a table, from 0 on."""
    columns = (table.durations[:count], table.notes[:count], table.velocities[:count])
    return NoteTable(table.onsets[:count] - table.onsets[0], *columns)


def opening(table: NoteTable) -> NoteTable:
    """What a model would write of a piece."""
    ends = int(np.searchsorted(table.onsets, table.onsets[0] + MAX_ONSET_TICKS))
    return first(table, min(ends, OPENING_NOTES))


def stretch(table: NoteTable, seconds: int, rng: np.random.Generator) -> Signatures | None:
    """The signs in so many seconds from anywhere in a piece; None if it is no longer than that."""
    room, length = int(table.onsets[-1]) - seconds * TICKS_PER_SECOND, seconds * TICKS_PER_SECOND
    if room <= 0:
        return None
    start = int(rng.integers(room))
    inside = (table.onsets >= start) & (table.onsets < start + length)
    columns = (table.onsets[inside], table.durations[inside], table.notes[inside], table.velocities[inside])
    return signatures(NoteTable(*columns), (start, start + length))


def looped(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    """A quarter of the piece, then its last bar (1.2 to 8 s) for three times as long, or eight bars of it if more."""
    starts, bar = int(table.onsets[-1]) // 4, rng.uniform(120, 800)
    in_bar = np.flatnonzero((table.onsets >= starts) & (table.onsets < starts + bar))
    times = max(8, int(3 * starts / bar))
    before = np.flatnonzero(table.onsets < starts)
    chosen = np.concatenate([before, np.tile(in_bar, times)])
    played = np.concatenate([np.zeros(len(before), np.int64), np.repeat(np.arange(times), len(in_bar))])
    jitter = rng.integers(-1, 2, len(chosen)) * (played > 0)
    wrong = ((rng.random(len(chosen)) < 0.02) & (played > 0)).astype(np.int32)
    onsets = np.maximum(np.rint(table.onsets[chosen] + played * bar + jitter), 0)
    order = np.argsort(onsets, kind="stable")
    chosen = chosen[order]
    notes = table.notes[chosen] + wrong[order]
    return NoteTable(onsets[order].astype(np.int32), table.durations[chosen], notes, table.velocities[chosen])


def piled(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    """Sixty notes on one tick, the next sixty half a second later."""
    return dataclasses.replace(table, onsets=np.arange(len(table), dtype=np.int32) // 60 * 50)


def crowded(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    """Four notes on every tick."""
    return dataclasses.replace(table, onsets=np.arange(len(table), dtype=np.int32) // 4)


def scarce(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    """A dozen notes."""
    return first(table, 12)


def torn(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    """Ten seconds of silence in the middle."""
    half = len(table) // 2
    ends = int((table.onsets[:half] + table.durations[:half]).max(initial=0))
    behind = np.arange(len(table)) >= half
    pause = ends + 10 * TICKS_PER_SECOND - int(table.onsets[half])
    return dataclasses.replace(table, onsets=(table.onsets + behind * pause).astype(np.int32))


def thinned(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    """Three times as slow, no note longer than a twentieth of a second."""
    return dataclasses.replace(table, onsets=table.onsets * 3, durations=np.minimum(table.durations, 5))


FAILURES: dict[str, tuple[str, Callable[[NoteTable, np.random.Generator], NoteTable]]] = {
    "one bar over and over": ("looping", looped),
    "sixty notes on a tick": ("flooded", piled),
    "400 notes a second": ("flooded", crowded),
    "a dozen notes": ("empty", scarce),
    "a hole of 10 s": ("empty", torn),
    "thinned out": ("empty", thinned),
}
"""What is made of an opening, and the sign that should fire."""


THRESHOLDS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "LOOPING_SHARE": ("loop_share", 1, ("one bar over and over",)),
    "MOST_TOGETHER": ("most_together", 1, ("sixty notes on a tick",)),
    "MOST_A_SECOND": ("notes_a_second", 1, ("sixty notes on a tick", "400 notes a second")),
    "LEAST_NOTES": ("notes", -1, ("a dozen notes",)),
    "LEAST_SECONDS": ("seconds", -1, ("a dozen notes",)),
    "MOST_SILENCE": ("silent_share", 1, ("thinned out",)),
    "LONGEST_SILENCE": ("longest_silence", 1, ("a hole of 10 s",)),
}
"""Of each threshold the number that it bounds, from above (1) or below (-1), and the failures that it is there for."""


def beyond(found: list[Signatures], number: str, side: int, limit: float) -> int:
    """Pieces that a threshold rejects."""
    return sum(side * getattr(each, number) > side * limit for each in found)


@dataclasses.dataclass(frozen=True)
class Rejection:
    """What a threshold rejects by itself."""

    value: float
    whole: Interval
    """Share of real pieces."""
    opening: Interval
    caught: dict[str, float]
    """Share of each failure that it is there for."""
    tightest: float
    """The value that rejects FALSE_SHARE of the openings."""
    caught_by_tightest: dict[str, float]

    def row(self) -> str:
        shares = [
            f"{100 * each.value:.2f} % [{100 * each.low:.2f}, {100 * each.high:.2f}]"
            for each in (self.whole, self.opening)
        ]
        caught = [
            ", ".join(f"{100 * share:.1f} % of {name}" for name, share in each.items())
            for each in (self.caught, self.caught_by_tightest)
        ]
        return f"| {self.value:g} | {' | '.join(shares)} | {caught[0]} | {self.tightest:.4g} | {caught[1]} |"


def rejections(real: dict[str, list[Signatures]], made: dict[str, list[Signatures]]) -> dict[str, Rejection]:
    found = {}
    for name, (number, side, failures) in THRESHOLDS.items():
        limit = float(getattr(signs, name))
        values = side * np.array([getattr(each, number) for each in real["opening"]], np.float64)
        tightest = side * float(np.quantile(values, 1 - FALSE_SHARE, method="higher"))

        def share(pieces: list[Signatures], value: float, number: str = number, side: int = side) -> float:
            return beyond(pieces, number, side, value) / len(pieces)

        whole, opening = (
            wilson(beyond(real[kind], number, side, limit), len(real[kind])) for kind in ("whole", "opening")
        )
        caught, by_tightest = ({each: share(made[each], value) for each in failures} for value in (limit, tightest))
        found[name] = Rejection(limit, whole, opening, caught, tightest, by_tightest)
    return found


def shares(found: list[Signatures], signs: tuple[str, ...] = SIGNS) -> dict[str, float]:
    """Share of pieces with each sign, and with any."""
    counts: Counter[str] = Counter()
    for each in found:
        fired = [sign for sign in signs if getattr(each, sign)]
        counts.update([*fired, *(["any"] if fired else [])])
    return {sign: counts[sign] / len(found) for sign in (*signs, "any")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tables, folders, rng = [], [], np.random.default_rng(0)
    for path in sorted(arguments.folder.rglob("*.mid")):
        try:
            tables.append(read_midi(path.read_bytes(), compiled=True))
            folders.append(path.parent.name)
        except MidiError as error:
            print(f"{path}: {error}")
    openings = [opening(table) for table in tables]
    real = {"whole": [signatures(table) for table in tables], "opening": [signatures(table) for table in openings]}
    made = {name: [signatures(make(table, rng)) for table in openings] for name, (_, make) in FAILURES.items()}

    print(f"| {len(tables):,} pieces | {' | '.join(SIGNS)} | any |\n|---|---|---|---|---|")
    for name, found in [*real.items(), *made.items()]:
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares(found).values())
        print(f"| {name} | {cells} |")
    thresholds = rejections(real, made)
    print("\n| threshold | value | rejects whole | openings | catches | tightest | which catches |")
    print(f"|{'---|' * 7}")
    for name, rejection in thresholds.items():
        print(f"| {name} {rejection.row()}")
    print(f"\n| openings of the folder | pieces | {' | '.join(SIGNS)} | any |\n|---|---|---|---|---|---|")
    for folder in sorted(set(folders)):
        mine = [found for found, of in zip(real["opening"], folders, strict=True) if of == folder]
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares(mine).values())
        print(f"| {folder} | {len(mine)} | {cells} |")
    print(f"\n| real pieces | {' | '.join(f'{100 * q:g} %' for q in QUANTILES)} |\n|{'---|' * (len(QUANTILES) + 1)}")
    for name, found in real.items():
        for number in NUMBERS:
            at = np.quantile([getattr(each, number) for each in found], QUANTILES)
            print(f"| {name}: {number} | {' | '.join(f'{value:.4g}' for value in at)} |")
    rng = np.random.default_rng(1)
    within = {
        seconds: [found for table in tables if (found := stretch(table, seconds, rng)) is not None]
        for seconds in STRETCHES
    }
    print(f"\n| stretches of | pieces | {' | '.join(STRETCH_SIGNS)} | any |\n|---|---|---|---|---|---|")
    for seconds, found in within.items():
        cells = " | ".join(f"{100 * share:.2f} %" for share in shares(found, STRETCH_SIGNS).values())
        print(f"| {seconds} s | {len(found):,} | {cells} |")
    if arguments.json:
        figures = {
            "stretches": {seconds: shares(found, STRETCH_SIGNS) for seconds, found in within.items()},
            "shares": {name: shares(found) for name, found in (real | made).items()},
            "thresholds": {name: dataclasses.asdict(each) for name, each in thresholds.items()},
        }
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
