"""Attention over packed rows, backend beside backend: speed, error, and whether one segment leaks into another.

    python benchmarks/attention.py                                    # Llama-3.2-1B's heads, on whatever JAX finds
    python benchmarks/attention.py --rows 1 --length 512 --heads 9 3 64   # SmolLM2-135M's

``dot`` and, on an NVIDIA GPU, ``cudnn`` are those of midillm_jax/model/attention.py; ``one segment`` is cuDNN's with no
segments at all, which says what they cost. Milliseconds are of one layer's forward and backward pass, the median of
``--repeat`` runs; TFLOP/s count the causal half, backward as twice the forward pass. The error is that of the
gradients, ||difference|| / ||gradient|| at its largest, against float32 ``dot``. A leak is any gradient that is not
exactly zero at a token of another segment than the one whose loss it belongs to. Exits 1 when something leaks.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.model import attention

SEGMENTS = 5
"""Pieces in a row, of lengths drawn at random; the row's last twentieth is padding."""


def make_rows(rows: int, length: int, seed: int) -> np.ndarray:
    """Segment ids int32 [rows, length]."""
    rng = np.random.default_rng(seed)
    used = length - length // 20
    ids = np.zeros((rows, length), np.int32)
    for row in range(rows):
        cuts = np.sort(rng.choice(np.arange(1, used), SEGMENTS - 1, replace=False))
        ids[row, :used] = np.searchsorted(cuts, np.arange(used), side="right") + 1
    return ids


def one_segment(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation="cudnn")


def gradients(attend: Any) -> Any:
    """Gradients of a weighted sum of what ``attend`` gives, with respect to query, key and value."""

    def objective(qkv: tuple[jax.Array, ...], segment_ids: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.sum(attend(*qkv, segment_ids).astype(jnp.float32) * weights)

    return jax.jit(jax.grad(objective))


def measure(attend: Any, arrays: Any, dtype: str, expected: Any, repeat: int) -> dict[str, Any]:
    qkv, segment_ids, weights = arrays
    cast = tuple(x.astype(dtype) for x in qkv)
    of = gradients(attend)
    found = jax.block_until_ready(of(cast, segment_ids, weights))
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        jax.block_until_ready(of(cast, segment_ids, weights))
        seconds.append(time.perf_counter() - began)
    # The loss of the second segment alone.
    inside = segment_ids == 2
    alone = of(cast, segment_ids, weights * inside[:, :, None, None])
    leaks = any(bool(jnp.any(jnp.where(inside[:, :, None, None], 0, each) != 0)) for each in alone)
    errors = [
        float(jnp.linalg.norm(ours.astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs))
        for ours, theirs in zip(found, expected, strict=True)
    ]
    return {"milliseconds": 1e3 * float(np.median(seconds)), "error": max(errors), "leaks": leaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--heads", type=int, nargs=3, default=(32, 8, 64), help="query heads, key heads, width of one")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    heads, kv_heads, width = arguments.heads
    device = jax.devices()[0]
    shape = (arguments.rows, arguments.length)
    keys = jax.random.split(jax.random.key(0), 4)
    qkv = tuple(
        jax.random.normal(key, (*shape, count, width))
        for key, count in zip(keys[:3], (heads, kv_heads, kv_heads), strict=True)
    )
    arrays = (qkv, jnp.asarray(make_rows(*shape, seed=0)), jax.random.normal(keys[3], (*shape, heads, width)))
    with jax.default_matmul_precision("highest"):
        expected = gradients(attention.packed)(*arrays)
    backends = [("dot", attention.packed, "float32"), ("dot", attention.packed, "bfloat16")]
    if device.platform == "gpu":
        backends += [("cudnn", attention.cudnn, "bfloat16"), ("one segment", one_segment, "bfloat16")]
    flops = 3 * 2 * 2 * (arguments.length / 2) * width * heads * arguments.length * arguments.rows
    what = f"{arguments.rows} rows x {arguments.length}, {heads} query and {kv_heads} key heads of {width}"
    print(f"{what}, {device.device_kind}")
    print(f"{'backend':14}{'dtype':10}{'ms':>9}{'TFLOP/s':>9}{'error':>10}   leaks")
    results = []
    for name, attend, dtype in backends:
        row = {"backend": name, "dtype": dtype} | measure(attend, arrays, dtype, expected, arguments.repeat)
        row["teraflops"] = flops / row["milliseconds"] / 1e9
        results.append(row)
        leaks = "by design" if name == "one segment" else "YES" if row["leaks"] else "no"
        print(
            f"{name:14}{dtype:10}{row['milliseconds']:9.2f}{row['teraflops']:9.1f}{row['error']:10.1e}   {leaks}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": device.device_kind, "results": results}, indent=1))
    sys.exit(any(row["leaks"] for row in results if row["backend"] != "one segment"))


if __name__ == "__main__":
    main()
