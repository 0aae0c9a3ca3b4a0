"""How long pieces are as AMT triples and as the same events written in a text model's own vocabulary.

    python benchmarks/event_text.py corpus/captions.jsonl                                   # triples
    python benchmarks/event_text.py corpus/captions.jsonl --tokenizer models/SmolLM2-135M --delta

The first argument is a captions.jsonl whose pieces are counted, each whole. Triples: three tokens a note, and three
more for each rest that the layout puts into silence. Text: a line a note, ``onset duration program pitch`` in the same
10 ms ticks, with onsets from the piece's start or, with ``--delta``, from the note before, which are shorter numbers.
``llama3`` is the vocabulary of Llama 3, from the package llama-models. Exact counts, means over notes; the intervals
are bootstraps over pieces. Prints the figures; ``--json FILE`` writes them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.evaluation.intervals import bootstrap
from midillm_jax.music.amt import encode_notes
from midillm_jax.music.anticipation import pad
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.vocab import PITCHES
from midillm_jax.text.tokenizer import load_tokenizer

ROW = 2048
PROMPT = 60
"""Tokens of a row that the prompt takes, about."""


def written(notes: NoteTable, delta: bool) -> str:
    """The events as lines of text."""
    onsets = np.diff(notes.onsets, prepend=notes.onsets[:1]) if delta else notes.onsets
    columns = (onsets, notes.durations, notes.notes // PITCHES, notes.notes % PITCHES)
    return "\n".join(" ".join(map(str, row)) for row in zip(*(c.tolist() for c in columns), strict=True))


def triples(notes: NoteTable) -> int:
    """Tokens of a piece, rests included."""
    events = encode_notes(notes)
    return len(pad(events, int(events[-3])))


def encoder(name: str) -> Callable[[str], int]:
    """Text -> number of tokens."""
    if name != "llama3":
        tokenizer = load_tokenizer(name)
        return lambda text: len(tokenizer.encode(text))
    from llama_models.llama3 import tokenizer as llama3

    llama = llama3.Tokenizer(Path(llama3.__file__).parent / "tokenizer.model")
    return lambda text: len(llama.encode(text, bos=False, eos=False))


def figures(tokens: np.ndarray, notes: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Tokens in all, a note, and by those of the triples."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights @ tokens
        return np.stack([total / (weights @ notes), total / (weights @ base)], axis=1)

    a_note, ratio = bootstrap(statistic, len(notes), 0)
    return {
        "pieces": len(notes),
        "notes": int(notes.sum()),
        "tokens": int(tokens.sum()),
        "a_note": vars(a_note),
        "by_triples": vars(ratio),
        "notes_a_row": (ROW - PROMPT) / a_note.value,
        "whole_pieces": float(np.mean(tokens <= ROW - PROMPT)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--tokenizer", help="a text model's folder or tokenizer file, or llama3; triples if left out")
    parser.add_argument("--delta", action="store_true", help="onsets from the note before instead of the start")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.captions.read_text(encoding="utf-8").splitlines()]
    pieces = [
        read_midi((arguments.captions.parent / row["location"]).read_bytes(), compiled=len(rows) > 50) for row in rows
    ]
    base = np.array([triples(piece) for piece in pieces], np.float64)
    tokens = base
    if arguments.tokenizer is not None:
        count = encoder(arguments.tokenizer)
        tokens = np.array([count(written(piece, arguments.delta)) for piece in pieces], np.float64)
    found = figures(tokens, np.array([len(piece) for piece in pieces], np.float64), base)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
