"""How well are facts read out of a prompt's words?

    python benchmarks/prompt_facts.py --pieces 200 --seeds 0 1 2
    python benchmarks/prompt_facts.py --pieces 0 --captions captions.jsonl --examples midicaps_real_examples.json

Captions whose columns are known are read as prompts: those of bands as ``prepare demo`` makes, those of a
captions.jsonl that ``prepare caption`` wrote, and MidiCaps' examples by people (JSON: a list of objects with "caption"
and "tags"). Captions leave facts out, so that a fact that is not read need not be an error. Per fact:

- read: captions out of which it is read, of those whose column holds it
- right: of those, with the column's value. A tempo or length in words is a span that must hold it, with a beat a minute
  either way, where words' limits lie, and a quarter either way for lengths. With captions by people, who hear for
  themselves, it is agreement with the tags.
- overlooked: captions in which the column's own words stand ("Eb major", "3/4", "96 BPM") but are not read

Instruments are counted one by one. Right are those read of which a program is in the column; overlooked are the
column's words that stand in the caption but whose program is not read. Genre words from a manifest ("voice and piano
song") are read as instruments too, rightly or not. Prints a table a set and, with ``--wrong N``, captions that were
read wrongly; ``--json FILE`` writes it too.
"""

import argparse
import collections
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from midillm_jax.data.band.compose import Profile
from midillm_jax.data.demo import write_band
from midillm_jax.evaluation.asked import Asked, from_columns
from midillm_jax.evaluation.control import LENGTH_FACTOR
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.music.instruments import CAPTION_WORDS, PROGRAM_NAMES
from midillm_jax.music.vocab import DRUM_PROGRAM

FACTS = ("instruments", "drums", "tempo", "key", "meter", "seconds")
TAGS = re.compile(
    r"instruments summary tags: (?P<instruments>\[.*?\])\s.*time signature tags: (?P<meter>\S*)\s.*"
    r"tempo tags: \[(?P<tempo>\d*).*key tags: (?P<key>[^\n]*?) *\n.*duration tags: \[(?P<duration>\d+)",
    re.DOTALL,
)


def captions(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Captions of a captions.jsonl, with their columns."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for caption in [row["caption"]] if isinstance(row["caption"], str) else row["caption"]:
            yield caption, row


def bands(profile: Profile, seeds: Iterable[int], pieces: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            write_band(Path(folder) / "band", pieces, seed, profile=profile, documents=0)
            yield from captions(Path(folder) / "band" / "captions.jsonl")


def examples(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """MidiCaps' examples, their tags as columns; those without tags are left out."""
    for example in json.loads(path.read_text(encoding="utf-8")):
        match = TAGS.search(example.get("tags", ""))
        if match is None:
            continue
        row: dict[str, Any] = {
            "key": match["key"],
            "time_signature": match["meter"],
            "duration": int(match["duration"]),
        }
        words = [word.lower() for word in json.loads(match["instruments"].replace("'", '"'))]
        if words:
            names = [name.lower() for name in PROGRAM_NAMES]
            programs = [(CAPTION_WORDS if word in CAPTION_WORDS else names).index(word) for word in words]
            row["instrument_numbers_sorted"] = programs
        yield example["caption"], row | ({"tempo": int(match["tempo"])} if match["tempo"] else {})


def is_right(fact: str, read: Asked, true: Asked) -> bool:
    told, column = getattr(read, fact), getattr(true, fact)
    if fact not in ("tempo", "seconds"):
        return told == column
    slack = LENGTH_FACTOR if fact == "seconds" else 1.0
    return told[0] / slack - 1 <= column[0] <= told[1] * slack + 1


def stands_there(fact: str, caption: str, row: dict[str, Any]) -> bool:
    """Whether the column's own words are in the caption."""
    if fact == "key":
        return row["key"] in caption
    if fact == "meter":
        return bool(re.search(rf"(?<!\d){row['time_signature']}(?!\d)", caption))
    if fact == "tempo":
        return bool(re.search(rf"\b{row['tempo']}(?: bpm| beats)", caption.lower()))
    if fact == "seconds":
        return bool(re.search(rf"\b{row['duration']} seconds?\b", caption))
    return bool(re.search(r"\bdrums\b", caption))


def standing(caption: str, programs: Iterable[int]) -> set[int]:
    """Those programs whose caption's word is in a caption, and not only as a part of a longer one."""
    words = sorted({word for word in CAPTION_WORDS if word != "drums"}, key=len, reverse=True)
    found = set(re.findall(rf"\b({'|'.join(words)})\b", caption.lower()))
    return {program for program in programs if CAPTION_WORDS[program] in found}


def measure(name: str, pairs: Iterable[tuple[str, dict[str, Any]]], wrong: int) -> dict[str, Any]:
    """Prints and returns how the captions of a set are read."""
    counts = {fact: collections.Counter[str]() for fact in FACTS}
    mistakes: list[str] = []
    total = 0
    for caption, row in pairs:
        total += 1
        read, true = read_prompt(caption), from_columns(row)
        for fact in FACTS[1:]:
            if getattr(true, fact) is None:
                continue
            told = getattr(read, fact)
            right = told is not None and is_right(fact, read, true)
            counts[fact]["known"] += 1
            counts[fact]["read"] += told is not None
            counts[fact]["right"] += right
            counts[fact]["overlooked"] += told is None and stands_there(fact, caption, row)
            if not right and (told is not None or stands_there(fact, caption, row)):
                mistakes.append(f"{fact}: {told} for {getattr(true, fact)}: {caption}")
        if true.instruments is not None:
            programs = {p for p in row["instrument_numbers_sorted"] if p != DRUM_PROGRAM}
            told = read.instruments or ()
            stand = standing(caption, programs)
            lost = {CAPTION_WORDS[p] for p in stand if not any(p in one for one in told)}
            fit = sum(not one.isdisjoint(programs) for one in told)
            counts["instruments"].update(known=len(true.instruments), read=len(told), right=fit, overlooked=len(lost))
            if lost or fit < len(told):
                extra = [sorted(one) for one in told if one.isdisjoint(programs)]
                mistakes.append(f"instruments: lost {sorted(lost)}, extra {extra}: {caption}")
    print(f"\n## {name}: {total} captions\n")
    print(f"| fact | known | read | right | right of read | overlooked |\n{6 * '|---'}|")
    for fact, each in counts.items():
        share = f"{100 * each['right'] / each['read']:.1f} %" if each["read"] else ""
        print(f"| {fact} | {each['known']} | {each['read']} | {each['right']} | {share} | {each['overlooked']} |")
    print("\n".join(["", *mistakes[:wrong]]))
    return {"captions": total, **{fact: dict(each) for fact, each in counts.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=200, help="of each profile and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--captions", type=Path, help="a captions.jsonl of prepare caption")
    parser.add_argument("--examples", type=Path, help="MidiCaps' examples")
    parser.add_argument("--wrong", type=int, default=0, help="mistakes to print")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    profiles: tuple[Profile, ...] = get_args(Profile)
    for profile in profiles if arguments.pieces else ():
        pairs = bands(profile, arguments.seeds, arguments.pieces)
        results[profile] = measure(f"band, {profile}", pairs, arguments.wrong)
    for path, reader in ((arguments.captions, captions), (arguments.examples, examples)):
        if path:
            results[path.name] = measure(path.name, reader(path), arguments.wrong)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
