"""How dense music is: notes a second, and the share of notes that begin together with the one before.

    python benchmarks/density.py music report/pieces corpus/pairs

Each argument is a folder of MIDI files or one made by ``prepare`` (its held-out pieces). A model that piles notes up
shows in both figures beside real music. Prints a table; ``--json FILE`` writes it too.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from midillm_jax.data.shards import open_split, unpack_piece
from midillm_jax.music.midi import NoteTable, read_midi


def tables(folder: Path) -> list[NoteTable]:
    """The pieces of a folder of MIDI files, or the held-out ones of a prepared folder."""
    if (folder / "manifest.json").is_file():
        reader = open_split(folder, "validation")
        return [unpack_piece(reader[index]).notes for index in range(len(reader))]
    return [read_midi(path.read_bytes()) for path in sorted(folder.glob("*.mid"))]


def density(pieces: list[NoteTable]) -> dict[str, float]:
    """Medians over pieces."""
    a_second = [len(piece) / max(piece.seconds(), 0.1) for piece in pieces]
    together = [float(np.mean(np.diff(piece.onsets) == 0)) for piece in pieces if len(piece) > 1]
    return {
        "pieces": len(pieces),
        "notes_a_second": round(float(np.median(a_second)), 1),
        "begin_together": round(float(np.median(together)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = {str(folder): density(tables(folder)) for folder in arguments.folders}
    print("| folder | pieces | notes a second, median | notes that begin with the one before, median share |")
    print("|---|---|---|---|")
    for folder, row in rows.items():
        print(f"| {folder} | {row['pieces']} | {row['notes_a_second']} | {row['begin_together']} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
