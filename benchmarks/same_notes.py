"""How many notes of a .mid file stand in another one, at the same tick: for what a model has learned by heart.

    python benchmarks/same_notes.py PIECE.mid MUSIC_FOLDER --json same.json

The folder holds one .mid file. Notes are compared as the tokens have them: onset and duration in 10 ms, from the first
onset on, instrument and pitch. Prints and writes ``notes`` of the piece, the ``share`` of them that the other has, and
how many it has too many (``extra``).
"""

import argparse
import collections
import json
from pathlib import Path

from midillm_jax.music.midi import read_midi

Note = tuple[int, int, int]


def notes(path: Path) -> collections.Counter[Note]:
    """(onset, duration, note) of a file, and how often."""
    table = read_midi(path.read_bytes())
    onsets = table.onsets - table.onsets[0]
    return collections.Counter(zip(onsets.tolist(), table.durations.tolist(), table.notes.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("piece", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    (other,) = arguments.folder.glob("*.mid")
    asked, found = notes(arguments.piece), notes(other)
    same = (asked & found).total()
    result = {"notes": asked.total(), "share": same / asked.total(), "extra": found.total() - same}
    print(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
