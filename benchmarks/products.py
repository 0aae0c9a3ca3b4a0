"""Forms of one matrix product on XLA's CPU backend beside torch's: why model/decoder.py multiplies as it does.

    python benchmarks/products.py                                # SmolLM2-135M's and Llama-3.2-1B's matrices
    python benchmarks/products.py --shapes 576x960 --rows 1 4 32

Milliseconds of one thread, the best of three rounds, of rows x [R, I] times a matrix with O outputs, result float32:

- ``x W``: the matrix is stored [I, O]
- ``x W.T``: stored [O, I], the product asked for as it is written
- ``W x.T``: stored [O, I] and on the left, the result turned over; what decoder.product does
- ``padded``: decoder.product itself, which pads few rows
- ``torch``: torch.nn.functional.linear, where torch is installed, its result in the matrix's type
"""

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import decode

SHAPES = ("576x960", "576x576", "576x3072", "1536x576", "2048x3072", "2048x2048", "2048x16384", "8192x2048")


def best(run: Callable[[], Any]) -> float:
    """Milliseconds."""
    run()
    fastest = float("inf")
    for _ in range(3):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < 0.1:
            run()
            count += 1
        fastest = min(fastest, (time.perf_counter() - began) / count)
    return fastest * 1e3


def ours(inputs: int, outputs: int, rows: int, dtype: str) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    from midillm_jax.model import decoder

    x = jax.random.normal(jax.random.key(0), (rows, inputs), dtype)
    stored = jax.random.normal(jax.random.key(1), (outputs, inputs), dtype)
    turned = jnp.array(stored.T)

    def form(left: int, right: int) -> Any:
        def function(a: jax.Array, b: jax.Array) -> jax.Array:
            return jax.lax.dot_general(a, b, (((left,), (right,)), ((), ())), preferred_element_type=jnp.float32)

        return function

    forms: dict[str, tuple[Any, Any, Any]] = {
        "x W": (form(1, 0), x, turned),
        "x W.T": (form(1, 1), x, stored),
        "W x.T": (form(1, 1), stored, x),
        "padded": (decoder.product, x, stored),
    }
    found = {}
    for name, (function, a, b) in forms.items():
        compiled = jax.jit(function).lower(a, b).compile()
        found[name] = best(lambda compiled=compiled, a=a, b=b: compiled(a, b).block_until_ready())
    return found


def theirs(inputs: int, outputs: int, rows: int, dtype: str) -> float:
    import torch

    torch.set_num_threads(1)
    x = torch.randn(rows, inputs).to(getattr(torch, dtype))
    weight = torch.randn(outputs, inputs).to(getattr(torch, dtype))
    return best(lambda: torch.nn.functional.linear(x, weight))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="INxOUT")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    decode.pin(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    figures = []
    for shape in options.shapes:
        inputs, outputs = map(int, shape.split("x"))
        for dtype in options.dtypes:
            for rows in options.rows:
                found = ours(inputs, outputs, rows, dtype)
                if importlib.util.find_spec("torch"):
                    found["torch"] = theirs(inputs, outputs, rows, dtype)
                figures.append({"inputs": inputs, "outputs": outputs, "dtype": dtype, "rows": rows, **found})
                times = "  ".join(f"{name} {milliseconds:8.3f}" for name, milliseconds in found.items())
                print(f"{shape:>10} {dtype:8} {rows:3} rows: {times}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
