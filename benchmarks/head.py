"""The head of the whole table against the slot's own rows: FLOPs of a large step, counted; a small step, measured.

    python benchmarks/head.py

Counts a training step of ``--counted`` (stage2.py) by formula: products of the forward pass once, of the backward pass
twice, and what ``remat = full`` computes a second time once more; attention counts what is below
the diagonal. Measures whole steps of ``--measured`` (demo_stage2.py) on random music, both heads in turn in one
process, in CPU seconds; what is printed is the median and the median of the ratios of neighbours. Prints two tables;
``--json FILE`` writes them too.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from midillm_jax import config as configs
from midillm_jax.config import Config, LossConfig
from midillm_jax.model import head, sharding
from midillm_jax.music import vocab
from midillm_jax.training import step

KINDS = ("full", "slot")


def with_head(run: Config, kind: str) -> Config:
    return dataclasses.replace(run, loss=LossConfig(kind, run.loss.z_loss, run.loss.chunk_tokens))


def counted_flops(run: Config) -> dict[str, float]:
    """FLOPs of a training step by part, as computed, a multiplication and its addition being two."""
    model, data = run.model, run.data
    text, music = data.text_rows * data.row_length, data.music_rows * data.row_length
    heads = model.num_heads * model.head_dim
    layer = model.d_model * model.head_dim * 2 * (model.num_heads + model.num_kv_heads) + 3 * model.d_model * model.d_ff
    layers = 2.0 * model.num_layers * layer * (text + music)
    attention = 2.0 * model.num_layers * heads * data.row_length * (text + music)
    if run.loss.kind == "full":
        rows = float(model.padded_vocab_size * (text + music))
    else:
        slots = [sum(span.size for span in spans) for spans in head.SLOT_SPANS]
        padded = [-(-size // head.TILE) * head.TILE for size in slots]
        rows = model.text_vocab_size * text + sum(padded) / 3 * music
    again = 1 if run.remat == "full" else 0
    return {
        "layers": (3 + again) * (layers + attention),
        "head": 3 * 2.0 * model.d_model * rows,
    }


def music_batch(run: Config) -> dict[str, np.ndarray]:
    """Rows of random notes in the layout of data/batches.py; text rows hold random text."""
    rng = np.random.default_rng(0)
    rows, length = run.data.text_rows + run.data.music_rows, run.data.row_length
    first = [vocab.ONSET_OFFSET, vocab.DURATION_OFFSET, vocab.NOTE_OFFSET]
    size = [vocab.MAX_ONSET_TICKS, vocab.MAX_DURATION_TICKS, vocab.NOTES]
    slot = np.tile(np.arange(length) % 3, (rows, 1))
    tokens = run.model.text_vocab_size + np.take(first, slot) + rng.integers(0, np.take(size, slot))
    slot[: run.data.text_rows] = vocab.NO_SLOT
    tokens[: run.data.text_rows] = rng.integers(0, run.model.text_vocab_size, (run.data.text_rows, length))
    weights = np.ones((rows, length), np.float32)
    weights[:, 0] = 0
    return {
        "tokens": tokens.astype(np.int32),
        "segment_ids": np.ones((rows, length), np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "loss_weights": weights,
        "slot": slot.astype(np.int8),
    }


def measure(run: Config, steps: int) -> dict[str, Any]:
    """CPU seconds a step with either head, and the compiled steps' temporaries in bytes."""
    compiled, states, placed, temporaries = {}, {}, {}, {}
    for kind in KINDS:
        training = step.make_training(with_head(run, kind), sharding.make_mesh(run.mesh, jax.devices()[:1]))
        placed[kind] = step.place(training, music_batch(run))
        states[kind] = step.init_state(training, jax.jit(training.definition.init)(jax.random.key(0)))
        function = jax.jit(functools.partial(step.train_step, training), donate_argnums=0)
        compiled[kind] = function.lower(states[kind], placed[kind]).compile()
        temporaries[kind] = compiled[kind].memory_analysis().temp_size_in_bytes

    def once(kind: str) -> float:
        began = time.process_time()
        states[kind], sums = compiled[kind](states[kind], placed[kind])
        jax.block_until_ready((states[kind], sums))
        return time.process_time() - began

    for kind in KINDS:
        once(kind)
    seconds = [[once(kind) for kind in KINDS] for _ in range(steps)]
    return {
        "seconds": {kind: statistics.median(row[index] for row in seconds) for index, kind in enumerate(KINDS)},
        "ratio": statistics.median(full / slot for full, slot in seconds),
        "temporaries": temporaries,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counted", default="stage2.py")
    parser.add_argument("--measured", default="demo_stage2.py")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    large, small = configs.load(arguments.counted), configs.load(arguments.measured)
    counted = {kind: counted_flops(with_head(large, kind)) for kind in KINDS}
    ratio = sum(counted["full"].values()) / sum(counted["slot"].values())
    print(
        f"{arguments.counted}, a step of {large.data.text_rows} text + {large.data.music_rows} music rows, counted:\n"
    )
    print("| head | layers, PFLOP | head, PFLOP | head's share | tokens/s at equal FLOP/s |")
    print("|---|---|---|---|---|")
    for kind, parts in counted.items():
        share, faster = parts["head"] / sum(parts.values()), ratio if kind == "slot" else 1.0
        print(f"| {kind} | {parts['layers'] / 1e15:.2f} | {parts['head'] / 1e15:.2f} | {share:.0%} | x {faster:.2f} |")

    tokens = (small.data.text_rows + small.data.music_rows) * small.data.row_length
    found = measure(small, arguments.steps)
    print(f"\n{arguments.measured}, whole steps of {tokens} tokens, measured on {jax.devices()[0].device_kind}:\n")
    print("| head | CPU s a step | tokens a CPU s | temporaries, MB | ratio |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        seconds = found["seconds"][kind]
        faster = found["ratio"] if kind == "slot" else 1.0
        print(
            f"| {kind} | {seconds:.2f} | {tokens / seconds:.0f} | {found['temporaries'][kind] / 1e6:.0f} "
            f"| x {faster:.2f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"counted": counted, "counted_ratio": ratio, "measured": found}, indent=1))


if __name__ == "__main__":
    main()
