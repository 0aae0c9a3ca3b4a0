"""What each way to begin the music rows does to the first losses of text and music, on real weights.

    python benchmarks/music_init.py models/SmolLM2-135M --text docs/data.md README.md --json music_init.json

Grows a text model by the 55,030 music rows (model/embedding.py) with each initialiser and computes, without training:

- the loss of text in nats a token: over the text rows alone (as before growing; the same for every initialiser) and
  over the whole table, whose new rows take their share of the softmax;
- the loss of music in nats a token, of the small band that plays by rule (data/demo.py): over the whole table, and
  over the rows of each token's slot.

The head is the embedding where the model ties them. Weights float32, compute float32. launch/smollm2.py makes a
folder of real weights. Deterministic: no time is measured.
"""

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.config import LossConfig, ModelConfig
from midillm_jax.data.demo import write_band
from midillm_jax.model import hf
from midillm_jax.model.embedding import INITIALISERS, resize_embedding
from midillm_jax.model.head import first_rows, token_losses
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table
from midillm_jax.music import vocab
from midillm_jax.music.amt import encode_midi
from midillm_jax.text.tokenizer import load_tokenizer
from midillm_jax.training.loss import Layout, batch_losses

Rows = tuple[jax.Array, jax.Array]

COLUMNS = {
    "text_over_text_rows": "text, text rows alone",
    "text_over_all_rows": "text, whole table",
    "music_over_all_rows": "music, whole table",
    "music_over_slot_rows": "music, slot's rows",
}
"""Figures of a row of the table, and their headings."""


def text_rows(folder: Path, files: list[Path], length: int, most: int) -> np.ndarray:
    """The files' text as rows [R, length], begin-of-text in front of each."""
    tokenizer = load_tokenizer(folder)
    ids = [id_ for file in files for id_ in tokenizer.encode(file.read_text(encoding="utf-8"))]
    rows = [ids[start : start + length - 1] for start in range(0, len(ids) - length + 2, length - 1)][:most]
    return np.array([[tokenizer.bos_id, *row] for row in rows], np.int32)


def music_rows(text_vocab_size: int, bos: int, length: int, most: int) -> np.ndarray:
    """Pieces' beginnings as rows [R, length] of [pad, begin-of-text, flag, triples]: every onset at 0 mod 3."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_band(Path(folder) / "band", 3 * most, 0, profile="full")
        for path in sorted(Path(folder).rglob("*.mid")):
            ids = np.asarray(encode_midi(path.read_bytes())).ravel()[: length - 3]
            if len(ids) == length - 3 and len(rows) < most:
                rows.append([bos, bos, text_vocab_size + vocab.AUTOREGRESS, *(text_vocab_size + ids)])
    return np.array(rows, np.int32)


def states(definition: Definition, params: Params, tokens: np.ndarray) -> jax.Array:
    """Hidden states [R, T, D]."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return forward(definition, params, jnp.asarray(tokens), positions, jnp.ones_like(positions))


forward = jax.jit(Definition.forward, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(3, 4))
def losses(table: jax.Array, text: Rows, music: Rows, model: ModelConfig, chunk: int) -> dict[str, jax.Array]:
    """Means in nats a token, of rows given as (tokens, hidden states)."""

    def of_text(rows: int) -> jax.Array:
        return jnp.mean(token_losses(text[1][:, :-1], table, text[0][:, 1:], first_rows(rows), chunk).losses)

    def of_music(kind: Literal["full", "slot"]) -> jax.Array:
        layout = Layout(1, 0, len(music[0]))
        batch = {"tokens": music[0], "loss_weights": jnp.ones(music[0].shape)}
        _, each = batch_losses(music[1], table, batch, model, LossConfig(kind), layout)
        return jnp.mean(each[:, 3:])

    return {
        "text_over_text_rows": of_text(model.text_vocab_size),
        "text_over_all_rows": of_text(model.vocab_size),
        "music_over_all_rows": of_music("full"),
        "music_over_slot_rows": of_music("slot"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Hugging Face folder of a text model with its tokenizer")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="files of text")
    parser.add_argument("--length", type=int, default=255, help="tokens a row, a multiple of 3")
    parser.add_argument("--rows", type=int, default=4, help="rows of text and of music")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config, params = hf.read_hf(arguments.model, dtype="float32")
    text = text_rows(arguments.model, arguments.text, arguments.length, arguments.rows)
    music = music_rows(config.text_vocab_size, int(text[0, 0]), arguments.length, arguments.rows)
    grown = ModelConfig(**(vars(config) | {"music_vocab_size": ModelConfig.music_vocab_size}))
    print(f"{text.shape[0]} text and {music.shape[0]} music rows of {arguments.length} tokens; nats a token")
    print(f"| music_init | {' | '.join(COLUMNS.values())} |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    definition, results, text_states = Definition(grown, INFERENCE), {}, None
    for how in INITIALISERS:
        weights = resize_embedding(params, config, grown.music_vocab_size, how, 0)
        if text_states is None:
            # Text rows are the same whatever the new ones are, and so are the hidden states of text.
            text_states = states(definition, weights, text)
        hidden = states(definition, weights, music)
        table = jnp.asarray(head_table(weights))
        means = losses(table, (jnp.asarray(text), text_states), (jnp.asarray(music), hidden), grown, 64)
        # By name: a jitted function returns its dict in the order of the alphabet.
        results[how] = {name: round(float(means[name]), 3) for name in COLUMNS}
        print(f"| {how} | " + " | ".join(f"{value:.2f}" for value in results[how].values()) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
