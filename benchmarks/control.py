"""What can the measures of control reach? Real outputs cannot score better than the pieces that the columns describe.

    python benchmarks/control.py --pieces 200 --seeds 0 1 2
    python benchmarks/control.py --pieces 0 --captions captions.jsonl

The first makes bands as ``prepare demo`` does and holds each piece against its own row, which the composer wrote. The
second does so with the files of a captions.jsonl that ``prepare caption`` wrote; pieces whose row names no tempo (the
file sets none, or its notes do not keep it) are held against the rest of it. Tempo, meter and key are estimated from
the notes, so that what misses here is the estimators' error. Prints a table a set, with intervals, and how the heard
beat lies to the true one; ``--json FILE`` writes it too.
"""

import argparse
import collections
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from midillm_jax.data.band.compose import Profile
from midillm_jax.data.demo import write_band
from midillm_jax.evaluation.asked import Asked, from_columns
from midillm_jax.evaluation.control import Heard, hear, summary
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.rhythm import METERS, beats_a_quarter, meter_kind

RATIOS = {"1": 1.0, "1/2": 0.5, "2": 2.0, "1/3": 1 / 3, "3": 3.0, "2/3": 2 / 3, "3/2": 1.5}
TOLERANCE = 0.04
"""Of a tempo, as in F. Gouyon et al., "An Experimental Comparison of Audio Tempo Induction Algorithms" (2006)."""


def rows(captions: Path) -> Iterator[tuple[NoteTable, dict[str, Any]]]:
    """Pieces and their rows."""
    for line in captions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield read_midi((captions.parent / row["location"]).read_bytes(), compiled=True), row


def bands(profile: Profile, seeds: Iterable[int], pieces: int) -> Iterator[tuple[NoteTable, dict[str, Any]]]:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            write_band(Path(folder) / "band", pieces, seed, profile=profile, documents=0)
            yield from rows(Path(folder) / "band" / "captions.jsonl")


def tempo_ratio(heard: Heard, asked: Asked) -> str:
    """Which simple ratio the heard beat's rate has to the true one."""
    assert asked.tempo is not None
    if heard.rhythm is None:
        return "none heard"
    ratio = heard.rhythm.bpm / (asked.tempo[0] * beats_a_quarter(asked.meter))
    return next((name for name, value in RATIOS.items() if abs(ratio / value - 1) <= TOLERANCE), "other")


def measure(name: str, pieces: Iterable[tuple[NoteTable, dict[str, Any]]]) -> dict[str, Any]:
    """Prints and returns what the pieces of a set reach."""
    heard, asked = [], []
    for notes, row in pieces:
        heard.append(hear(notes))
        asked.append(from_columns(row))
    print(
        f"\n## {name}: {len(heard)} pieces\n\n| measure | pieces | own columns | shuffled columns |\n|---|---|---|---|"
    )
    found = summary(heard, asked, seed=0)
    for each in found.measures:
        cells = [f"{100 * i.value:.1f} % [{100 * i.low:.0f}, {100 * i.high:.0f}]" for i in (each.share, each.shuffled)]
        print(f"| {each.name} | {each.prompts} | {' | '.join(cells)} |")
    pairs = list(zip(heard, asked, strict=True))
    ratios = collections.Counter(tempo_ratio(h, a) for h, a in pairs if a.tempo is not None)
    print("\nheard tempo / true tempo:", ", ".join(f"{name} {count}" for name, count in ratios.most_common()))
    kinds = collections.Counter(
        (meter_kind(*a.meter) or "other", h.rhythm.meter if h.rhythm else "none") for h, a in pairs if a.meter
    )
    for kind in METERS:
        told = {other: count for (true, other), count in kinds.items() if true == kind}
        print(f"{kind}, heard as:", ", ".join(f"{other} {count}" for other, count in sorted(told.items())))
    meters = {f"{true} as {told}": count for (true, told), count in kinds.items()}
    return {"summary": found.to_json(), "tempo ratios": dict(ratios), "meters": meters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=200, help="of each profile and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--captions", type=Path, help="a captions.jsonl of prepare caption")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    profiles: tuple[Profile, ...] = get_args(Profile)
    for profile in profiles if arguments.pieces else ():
        results[profile] = measure(f"band, {profile}", bands(profile, arguments.seeds, arguments.pieces))
    if arguments.captions:
        results["captions"] = measure(arguments.captions.name, rows(arguments.captions))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
