"""What a model writes on an engine that knows no grammar: probabilities over its whole table, nothing masked.

    python benchmarks/without_grammar.py MODEL --data corpus/pairs --json without.json

Figures of an exported model, on held-out pieces of a folder that ``prepare pairs`` made:

- ``bits``: bits a note under the grammar, of each piece's first window behind its caption (evaluation/likelihood.py);
- ``slot_share``: the probability that falls on the rows that the next slot can hold, the mean over the music tokens of
  real pieces;
- ``valid_triples``, ``valid_pieces``: of what is drawn from their captions at temperature 1 and top-p 0.98 over the
  whole table, the share of triples that are an onset, a duration and a note in this order, and of pieces all of whose
  triples are and whose onsets never go back. A piece is ``--triples`` long, or ends at the first SEPARATOR triple.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.data.shards import open_split
from midillm_jax.evaluation.likelihood import cut, sounding
from midillm_jax.evaluation.scorer import Scorer
from midillm_jax.model import head, hf, hf_config
from midillm_jax.model.llama import Definition, Params, head_table
from midillm_jax.music import vocab
from midillm_jax.music.vocab import CONTROL_OFFSET, DURATION_OFFSET, NOTE_OFFSET, SEPARATOR
from midillm_jax.text.prompt import music_room, prompt_ids
from midillm_jax.text.tokenizer import load_tokenizer

TOP_P = 0.98
SHOWN = 16
"""Pieces that the figures without a grammar are taken on."""


def logits(definition: Definition, params: Params, tokens: jax.Array) -> jax.Array:
    """float32 [B, T, rows without padding]."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = definition.forward(params, tokens, positions, jnp.ones_like(positions))
    table = head_table(params)[: definition.config.vocab_size].astype(hidden.dtype)
    return (hidden @ table.T).astype(jnp.float32)


def slot_share(definition: Definition, params: Params, segments: list[Any]) -> float:
    """See above."""
    text = definition.config.text_vocab_size
    share = jax.jit(lambda tokens: jax.nn.softmax(logits(definition, params, tokens), axis=-1))
    total, count, longest = 0.0, 0, max(map(len, segments))
    for segment in segments:
        # What is padded stands behind, where no token looks.
        tokens = np.pad(segment.tokens, (0, longest - len(segment)))
        probabilities = np.asarray(share(jnp.asarray(tokens[None])))[0]
        for slot in range(3):
            before = np.flatnonzero(segment.slot == slot) - 1
            rows = np.concatenate(
                [np.arange(span.start, span.start + span.size) for span in head.slot_spans(slot, text)]
            )
            total += float(probabilities[before][:, rows].sum())
            count += len(before)
    return total / count


def drawn(definition: Definition, params: Params, prompts: list[list[int]], tokens: int, seed: int) -> np.ndarray:
    """amt ids [B, tokens], negative where text was drawn."""
    longest = max(map(len, prompts))
    rows = np.zeros((len(prompts), longest + tokens), np.int32)
    starts = np.array([len(prompt) for prompt in prompts])
    for row, prompt in zip(rows, prompts, strict=True):
        row[: len(prompt)] = prompt

    @jax.jit
    def step(rows: jax.Array, at: jax.Array, key: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
        hidden = definition.forward(params, rows, positions, jnp.ones_like(positions))
        last = jnp.take_along_axis(hidden, (at - 1)[:, None, None], axis=1)[:, 0]
        table = head_table(params)[: definition.config.vocab_size].astype(hidden.dtype)
        said = jax.nn.log_softmax((last @ table.T).astype(jnp.float32))
        order = jnp.flip(jnp.argsort(said, axis=-1), axis=-1)
        ordered = jnp.take_along_axis(said, order, axis=-1)
        before = jnp.cumsum(jnp.exp(ordered), axis=-1) - jnp.exp(ordered)
        chosen = jax.random.categorical(key, jnp.where(before < TOP_P, ordered, -jnp.inf))
        ids = jnp.take_along_axis(order, chosen[:, None], axis=-1)
        return jnp.put_along_axis(rows, at[:, None], ids.astype(rows.dtype), axis=1, inplace=False)

    keys = jax.random.split(jax.random.key(seed), tokens)
    found = jnp.asarray(rows)
    for number in range(tokens):
        found = step(found, jnp.asarray(starts + number), keys[number])
    made = np.asarray(found)
    return np.stack([row[start : start + tokens] for row, start in zip(made, starts, strict=True)]) - (
        definition.config.text_vocab_size
    )


def valid(ids: np.ndarray) -> tuple[int, int, bool]:
    """Triples of a piece up to its end, those in order, and whether the piece is without a fault."""
    triples = ids[: len(ids) // 3 * 3].reshape(-1, 3)
    ends = np.flatnonzero((triples == SEPARATOR).all(axis=1))
    triples = triples[: ends[0]] if len(ends) else triples
    onset, duration, note = triples.T
    good = (onset >= 0) & (onset < DURATION_OFFSET) & (duration >= DURATION_OFFSET) & (duration < NOTE_OFFSET)
    good &= (note >= NOTE_OFFSET) & (note < CONTROL_OFFSET)
    return len(triples), int(good.sum()), bool(good.all() and (np.diff(onset) >= 0).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=48)
    parser.add_argument("--triples", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    definition, params = hf.load_music_model(arguments.model)
    tokenizer, length = load_tokenizer(arguments.model), hf_config.row_length(arguments.model)
    reader = open_split(str(arguments.data), "validation", kinds=("pairs",))
    pieces = [reader.piece(number) for number in range(min(arguments.pieces, len(reader)))]
    prompts = [prompt_ids(tokenizer, piece.captions[0]) for piece in pieces]
    windows = [cut(piece.notes, music_room(prompt, length))[0] for piece, prompt in zip(pieces, prompts, strict=True)]
    segments = [window.segment(prompt, tokenizer.vocab_size) for window, prompt in zip(windows, prompts, strict=True)]
    nats = Scorer(definition, params).nats(segments).sum()
    flagged = [[*prompt, tokenizer.vocab_size + vocab.AUTOREGRESS] for prompt in prompts[:SHOWN]]
    made = drawn(definition, params, flagged, 3 * arguments.triples, arguments.seed)
    counts = [valid(ids) for ids in made]
    written = sum(count for count, _, _ in counts)
    result = {
        "bits": float(nats / np.log(2) / sum(sounding(window.amt_ids) for window in windows)),
        "slot_share": slot_share(definition, params, segments[:SHOWN]),
        "valid_triples": sum(good for _, good, _ in counts) / max(written, 1),
        "valid_pieces": sum(whole for _, _, whole in counts) / len(counts),
    }
    print(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
