"""Spoils a share of a corpus in ways that still are MIDI, to see what a training makes of it.

    python benchmarks/damage.py corpus/captions.jsonl --out damaged --share 0.1

Copies the pieces of a captions.jsonl to ``OUT/midi`` and their rows to ``OUT/captions.jsonl``. Of each piece that a
hash of its name picks, one thing goes wrong, each of six alike often, as it does in collections from the web:

    cut      only the first 20 notes are there
    piled    all notes begin within the first second
    stretched  time runs a hundred times too slow
    random   pitches and instruments of chance
    shuffled notes keep their onsets, pitches are those of other notes of the piece
    stuck    one note, over and over

What the reader refuses anyway (bytes that are no MIDI) is left out of this: prepare rejects it with a reason. Prints
how many pieces had each.
"""

import argparse
import collections
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from midillm_jax.music.midi import NoteTable, read_midi, write_midi
from midillm_jax.music.vocab import PITCHES, TICKS_PER_SECOND

KINDS = ("cut", "piled", "stretched", "random", "shuffled", "stuck")


def damaged(notes: NoteTable, kind: str, rng: np.random.Generator) -> NoteTable:
    """The piece with one thing wrong; onsets ascending."""
    onsets, durations, pitches = notes.onsets.copy(), notes.durations.copy(), notes.notes.copy()
    if kind == "cut":
        onsets, durations, pitches = onsets[:20], durations[:20], pitches[:20]
    elif kind == "piled":
        onsets = np.sort(rng.integers(0, TICKS_PER_SECOND, len(onsets))).astype(onsets.dtype)
    elif kind == "stretched":
        onsets = onsets * 100
    elif kind == "random":
        pitches = rng.integers(0, 128 * PITCHES, len(pitches)).astype(pitches.dtype)
    elif kind == "shuffled":
        pitches = rng.permutation(pitches)
    else:
        pitches = np.full_like(pitches, pitches[0])
    order = np.lexsort((pitches, onsets))
    return NoteTable(onsets[order], durations[order], pitches[order], np.full(len(order), 80, np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.1)
    arguments = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    rows = []
    for line in arguments.captions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        source = arguments.captions.parent / row["location"]
        place = Path("midi", source.parent.name, source.name)
        (arguments.out / place.parent).mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(str(place).encode()).digest()
        kind = KINDS[digest[8] % len(KINDS)] if int.from_bytes(digest[:8], "big") < arguments.share * 2**64 else "none"
        if kind == "none":
            shutil.copyfile(source, arguments.out / place)
        else:
            notes = damaged(read_midi(source.read_bytes()), kind, np.random.default_rng(list(digest)))
            (arguments.out / place).write_bytes(write_midi(notes))
        counts[kind] += 1
        rows.append(row | {"location": str(place)})
    (arguments.out / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(dict(counts))


if __name__ == "__main__":
    main()
