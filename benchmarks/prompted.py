"""Does a prompt move what is written: new music, and music filled into a piece that is given around it?

    python benchmarks/prompted.py --data corpus/pairs --kind infill --guidance 3 --json prompted.json

Takes held-out pieces of a folder that ``prepare pairs`` made, in an order drawn by the seed. For each, an instrument
that the piece lacks is drawn too, and ten seconds are written (``new``), or the seconds 8 to 14 with all else up to 22
given (``infill``), for the piece's own instruments and that one, four times with a prompt that names the other
instrument and four times with one that names the piece's own first. What the prompt does is the difference in how many
of the new notes the other instrument plays:

- ``asked``: its share of the new notes where the prompt names it
- ``not_asked``: where it names the piece's own
- ``moved``: the difference; 0 is a prompt that is not heeded

The model is the one that comes with the package if none is named. ``--twice`` writes the prompt two times.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from midillm_jax.data.shards import open_split
from midillm_jax.inference import compose, windows
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.amt import encode_notes
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, NOTE_OFFSET, PITCHES, TICKS_PER_SECOND

OTHERS = (73, 56, 40, 24, 71, 105)
"""Flute, trumpet, violin, guitar, clarinet, banjo."""
SPAN, GIVEN_UNTIL, NEW_SECONDS = (8, 14), 22, 10
OUTPUTS = 4


def place(notes: NoteTable, kind: str, programs: tuple[int, ...]) -> windows.Place:
    """What is given, and where new music goes."""
    if kind == "new":
        return windows.Place(end_ticks=NEW_SECONDS * TICKS_PER_SECOND, programs=programs)
    events = encode_notes(notes)
    events = events.reshape(-1, 3)
    events[:, 0] -= events[0, 0]
    start, end = (seconds * TICKS_PER_SECOND for seconds in SPAN)
    behind = (events[:, 0] >= end) & (events[:, 0] < GIVEN_UNTIL * TICKS_PER_SECOND)
    return windows.Place(
        start_ticks=start,
        end_ticks=end,
        before=events[events[:, 0] < start].reshape(-1),
        given=events[behind].reshape(-1),
        programs=programs,
    )


def share(written: list[windows.NewMusic], program: int) -> tuple[int, int]:
    """Notes of a program, and all notes."""
    played = np.concatenate([(np.asarray(one.events)[2::3] - NOTE_OFFSET) // PITCHES for one in written])
    return int((played == program).sum()), len(played)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=("new", "infill"), required=True)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--pieces", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = compose.load_model(arguments.model or compose.bundled_model())
    reader = open_split(str(arguments.data), "validation", kinds=("pairs",))
    rng = np.random.default_rng(arguments.seed)
    counts = np.zeros((2, 2))
    taken = 0
    for number in rng.permutation(len(reader)).tolist():
        notes = reader.piece(number).notes
        own = tuple(program for program in notes.programs() if program != DRUM_PROGRAM)
        absent = [p for p in OTHERS if CAPTION_WORDS[p] not in {CAPTION_WORDS[q] for q in own}]
        other = absent[int(rng.integers(len(absent)))]
        if not own or notes.seconds() < GIVEN_UNTIL or len(own) > 4 or taken == arguments.pieces:
            continue
        taken += 1
        where = place(notes, arguments.kind, (*notes.programs(), other))
        for row, named in enumerate((other, own[0])):
            prompt = f"A piece for {CAPTION_WORDS[named]}. The {CAPTION_WORDS[named]} plays all the time."
            asked = MusicRequest(
                prompt=f"{prompt} {prompt}" if arguments.twice else prompt,
                outputs=OUTPUTS,
                seed=1000 * arguments.seed + taken,
                temperature=model.temperature,
                top_p=model.top_p,
                guidance=arguments.guidance,
            )
            counts[row] += share(windows.write(model, asked, where), other)
    asked_share, not_asked = (counts[:, 0] / np.maximum(counts[:, 1], 1)).tolist()
    result = {
        "asked": asked_share,
        "not_asked": not_asked,
        "moved": asked_share - not_asked,
        "pieces": taken,
        "notes": int(counts[:, 1].sum()),
    }
    print(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
