"""How true are the captions that ``prepare caption`` reads off notes, and how fast are they written?

    python benchmarks/captions.py --pieces 200 --seeds 0 1 2
    python benchmarks/captions.py --pieces 0 --corpus midi --manifest midi/MANIFEST.tsv

The first makes bands as ``prepare demo`` does and compares what is read off their files with the composer's own
parameters. The second compares keys with what a table with a row a file says: its column "note" where that holds
"key=Bb:maj", else its column "key_sig" ("Bb", "Gm"), which most programs fill with a major key whatever the mode. Both
read notes only; key signatures in the files are not seen. Prints tables; ``--json FILE`` writes them too.
"""

import argparse
import collections
import csv
import json
import random
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from midillm_jax.data.band.compose import Profile
from midillm_jax.data.captions import captions, columns
from midillm_jax.data.catalogue import Catalogue
from midillm_jax.data.demo import write_band
from midillm_jax.data.describe import Description, describe
from midillm_jax.music.midi import MidiError, read_midi

PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
KINDS = ("exact", "relative", "parallel", "fifth", "other", "not told")
STATED = re.compile(r"key=\s*([A-G][b#]?):(maj|min)\s*$")


def pitch_class(name: str) -> int:
    """Of "Bb"."""
    return (PITCHES[name[0]] + name.count("#") - name[1:].count("b")) % 12


def key_relation(told: str | None, true: str) -> str:
    """How a key ("Bb minor") lies to the true one."""
    if told is None:
        return "not told"
    (tonic, mode), (true_tonic, true_mode) = (key.split() for key in (told, true))
    apart = (pitch_class(tonic) - pitch_class(true_tonic)) % 12
    if mode == true_mode:
        return "exact" if apart == 0 else "fifth" if apart in (5, 7) else "other"
    if apart == 0:
        return "parallel"
    return "relative" if apart == (9 if true_mode == "major" else 3) else "other"


def chord_parts(name: str) -> tuple[int, str]:
    """Root and quality of "Bbm7"."""
    match = re.fullmatch(r"([A-G][b#]*)(.*)", name)
    assert match is not None, name
    return pitch_class(match[1]), match[2]


def triad(name: str) -> tuple[int, str]:
    """Root and kind of third: Am and Am7 are alike, A and A7 too."""
    root, quality = chord_parts(name)
    return root, {"": "major", "7": "major", "maj7": "major", "m": "minor", "m7": "minor"}.get(quality, quality[:3])


def chord_agreement(told: dict[str, Any], true: dict[str, Any]) -> collections.Counter[str]:
    """Seconds of a piece, in all and by how far the chord that is told is the one that was written."""
    seconds = collections.Counter[str]()
    if "all_chords" not in told:
        return seconds
    spans = []
    for row in (told, true):
        ends = [*row["all_chords_timestamps"][1:], true["duration"]]
        spans.append(list(zip(row["all_chords_timestamps"], ends, row["all_chords"], strict=True)))
    for start, end, name in spans[1]:
        for other_start, other_end, other in spans[0]:
            common = min(end, other_end) - max(start, other_start)
            if common > 0:
                seconds["all"] += common
                seconds["named"] += common * (other != "N")
                seconds["same triad"] += common * (other != "N" and triad(other) == triad(name))
                seconds["same chord"] += common * (other != "N" and chord_parts(other) == chord_parts(name))
    return seconds


def contains_run(names: list[str], run: list[str]) -> bool:
    """Whether the chords of a run follow each other in a piece, repetitions apart."""
    whole = [chord_parts(name) for name in names]
    whole = [chord for at, chord in enumerate(whole) if at == 0 or chord != whole[at - 1]]
    wanted = [chord_parts(name) for name in run]
    return any(whole[at : at + len(wanted)] == wanted for at in range(len(whole)))


def read_description(path: Path) -> Description:
    return describe(read_midi(path.read_bytes(), compiled=True))


def write_captions(description: Description) -> dict[str, Any]:
    """What ``prepare caption`` makes of a description: three captions and the columns."""
    captions(description, random.Random(0), Catalogue(), 3)
    return columns(description)


def band_row(profile: Profile, seeds: Iterable[int], pieces: int) -> dict[str, Any]:
    """Agreement with the composer over bands of several seeds."""
    keys, right = collections.Counter[str](), collections.Counter[str]()
    chords = collections.Counter[str]()
    total = 0
    spent = 0.0
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "band"
            write_band(out, pieces, seed, profile=profile, documents=0)
            rows = [json.loads(line) for line in (out / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
            read_description(out / rows[0]["location"])  # compiles the reader
            for true in rows:
                start = time.process_time()
                description = read_description(out / true["location"])
                told = write_captions(description)
                spent += time.process_time() - start
                total += 1
                keys[key_relation(told.get("key"), true["key"])] += 1
                for name in ("time_signature", "tempo", "tempo_word", "drums"):
                    right[name] += told.get(name) == true[name]
                right["instruments"] += set(told["instrument_summary"]) == set(true["instrument_summary"])
                chords += chord_agreement(told, true)
                if "chord_summary" in told:
                    right["progressions"] += 1
                    right["progressions found"] += contains_run(true["all_chords"], told["chord_summary"])
    return {
        "pieces": total,
        "keys": {kind: keys[kind] for kind in KINDS},
        "key": keys["exact"] / total,
        "key, where one is told": keys["exact"] / max(total - keys["not told"], 1),
        "meter": right["time_signature"] / total,
        "tempo": right["tempo"] / total,
        "tempo word": right["tempo_word"] / total,
        "instruments": right["instruments"] / total,
        "drums": right["drums"] / total,
        "chords, root and third, share of time": chords["same triad"] / max(chords["all"], 1),
        "chords, exact, share of time": chords["same chord"] / max(chords["all"], 1),
        "progression told": right["progressions"] / total,
        "progression, where told, is in the piece": right["progressions found"] / max(right["progressions"], 1),
        "files a CPU second": total / spent,
    }


def true_key(row: dict[str, str]) -> str | None:
    """What a row of the manifest says about the key."""
    if match := STATED.search(row.get("note") or ""):
        return f"{match[1]} {'major' if match[2] == 'maj' else 'minor'}"
    if "key=" in (row.get("note") or ""):
        return None  # several keys
    signature = row.get("key_sig") or ""
    return f"{signature.removesuffix('m')} {'minor' if signature.endswith('m') else 'major'}" if signature else None


def corpus_rows(corpus: Path, manifest: Path) -> tuple[dict[str, dict[str, int]], float]:
    """How the keys told lie to those of a table, by the folders of the corpus; and files a CPU second."""
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    spent = 0.0
    with manifest.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
            true = true_key(row)
            if true is None:
                continue
            start = time.process_time()
            try:
                told = write_captions(read_description(corpus / row["path"]))
            except (OSError, MidiError) as error:
                print(f"{row['path']}: {error}")
                continue
            spent += time.process_time() - start if found else 0.0  # the first compiles the reader
            found[row["path"].split("/")[0]][key_relation(told.get("key"), true)] += 1
    found["all"] = sum(found.values(), collections.Counter())
    rate = found["all"].total() / max(spent, 1e-9)
    return {folder: {kind: counts[kind] for kind in KINDS} for folder, counts in found.items()}, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=200, help="of each profile and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.pieces:
        profiles: tuple[Profile, ...] = get_args(Profile)
        results["band"] = {profile: band_row(profile, arguments.seeds, arguments.pieces) for profile in profiles}
        print(f"| | {' | '.join(profiles)} |\n|---|{'---|' * len(profiles)}")
        for name, value in results["band"][profiles[0]].items():
            cells = [results["band"][profile][name] for profile in profiles]
            if isinstance(value, float) and value <= 1:
                cells = [f"{100 * cell:.1f} %" for cell in cells]
            elif isinstance(value, dict):
                cells = [", ".join(f"{kind} {count}" for kind, count in cell.items() if count) for cell in cells]
            else:
                cells = [f"{cell:,.0f}" for cell in cells]
            print(f"| {name} | {' | '.join(cells)} |")
    if arguments.corpus:
        manifest = arguments.manifest or arguments.corpus / "MANIFEST.tsv"
        results["corpus"], results["files a CPU second"] = corpus_rows(arguments.corpus, manifest)
        print(f"\n{results['files a CPU second']:,.0f} files a CPU second\n")
        print(f"| folder | files | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}")
        for folder, counts in results["corpus"].items():
            print(f"| {folder} | {sum(counts.values())} | {' | '.join(str(counts[kind]) for kind in KINDS)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
