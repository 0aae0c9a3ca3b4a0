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
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.config import LossConfig, ModelConfig
from midillm_jax.data.demo import write_band
from midillm_jax.model import hf
from midillm_jax.model.embedding import INITIALISERS, resize_embedding
from midillm_jax.model.head import token_losses
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table
from midillm_jax.music import vocab
from midillm_jax.music.amt import encode_midi
from midillm_jax.text.tokenizer import load_tokenizer
from midillm_jax.training.loss import Layout, batch_losses


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


def losses(model: ModelConfig, params: Params, text: np.ndarray, music: np.ndarray) -> dict[str, float]:
    """Means in nats a token."""
    definition = Definition(model, INFERENCE)
    params = jax.tree.map(jnp.asarray, params)
    forward = jax.jit(definition.forward)

    def mean(tokens: np.ndarray, table: jax.Array, rows: int) -> float:
        hidden = states(tokens)[:, :-1]
        return float(jnp.mean(token_losses(hidden, table, jnp.asarray(tokens[:, 1:]), rows, 64)[0]))

    def states(tokens: np.ndarray) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        return forward(params, jnp.asarray(tokens), positions, jnp.ones_like(positions))

    def of_music(kind: Any) -> float:
        batch = {"tokens": jnp.asarray(music)}
        layout = Layout(1, 0, len(music))
        each, _ = batch_losses(states(music), head_table(params), batch, model, LossConfig(kind), layout)
        return float(jnp.mean(each[:, 3:]))

    return {
        "text_over_text_rows": mean(text, head_table(params)[: model.text_vocab_size], model.text_vocab_size),
        "text_over_all_rows": mean(text, head_table(params), model.vocab_size),
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
    print("| music_init | text, text rows alone | text, whole table | music, whole table | music, slot's rows |")
    print("|---|---|---|---|---|")
    results = {}
    for how in INITIALISERS:
        weights = resize_embedding(params, config, grown.music_vocab_size, how, 0)
        results[how] = losses(grown, weights, text, music)
        print(f"| {how} | " + " | ".join(f"{value:.2f}" for value in results[how].values()) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
