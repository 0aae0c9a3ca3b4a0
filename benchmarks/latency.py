"""How long one waits for music: engine by precision by batch by length, on the hardware that is found.

    python benchmarks/latency.py --shape 135m --out latency.json
    python benchmarks/latency.py --engines jax vllm llamacpp --vllm-python .venv-vllm/bin/python

Weights are random, so speed is all that is measured. Each engine and precision runs in a process of its own, on
``--threads`` CPUs or on the GPU it finds, and gets a batch of requests at once, ``--repeats`` times after one time that
compiles. What cannot run here is said and has no row.

- first: seconds from a request to its first whole note, as the engine hands it out (the jax engine after 16 notes)
- whole: seconds to its last note; both as the median and the 95th percentile over all requests
- tokens/s: of all requests together, from the first handed out to the last
- memory: the process's largest resident set, on a GPU the device memory that the engine took
- KV: bytes of keys and values of one sequence at its end
- read: bytes that every step has to read, weights once and the keys and values so far, times steps a second; beside it
  the share of what the same threads, or the GPU, copy in a second (bytes read and written)
"""

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import decode

PRECISIONS = {
    "jax": ("float32", "bfloat16"),
    "vllm": ("float32", "bfloat16", "int8"),
    "llamacpp": ("float32", "float16", "q8_0"),
}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "q8_0": 34 / 32}
SLOT_ROWS = (10_001 + 1_000 + 16_513) / 3
"""Rows of the head that our own engine reads a token."""


def measure(options: argparse.Namespace) -> None:
    """Prints the rows of one engine and precision as JSON, one for each batch and length."""
    decode.pin(options.threads)
    engine = decode.engine_of(options.measure, options.work, max(options.batches), options.threads)
    for batch in options.batches:
        for notes in options.notes:
            times: list[tuple[float, float, float]] = []  # of each request: first note, end, tokens
            rates = []
            for repeat in range(options.repeats + 1):
                found = waits(engine, batch, notes, seed=repeat)
                if repeat:
                    times += found
                    first, last = min(f for f, _, _ in found), max(end for _, end, _ in found)
                    rates.append(sum(tokens for _, _, tokens in found) / max(last - first, 1e-9))
            row = {
                "batch": batch,
                "notes": notes,
                "first": percentiles([first for first, _, _ in times]),
                "whole": percentiles([end for _, end, _ in times]),
                "tokens_per_second": sorted(rates)[len(rates) // 2],
                "memory_bytes": memory(),
            }
            print(json.dumps(row), flush=True)


def waits(engine: Any, batch: int, notes: int, seed: int) -> list[tuple[float, float, float]]:
    """Seconds to the first note and to the end of each request, and tokens after what came with the first."""
    requests = decode.requests(engine.text_vocab_size, batch, notes, seed)
    began = time.perf_counter()
    keys = [engine.add(request) for request in requests]
    first: dict[int, float] = {}
    end: dict[int, float] = {}
    later = dict.fromkeys(keys, 0)
    while len(end) < batch:
        for written in engine.step():
            now = time.perf_counter() - began
            if written.key in first:
                later[written.key] += len(written.amt_ids)
            elif len(written.amt_ids):
                first[written.key] = now
            if written.done:
                end[written.key] = now
    return [(first[key], end[key], later[key]) for key in keys]


def percentiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


def memory() -> int:
    """Bytes: of the device where JAX or torch has a GPU, else the largest resident set."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    jax = sys.modules.get("jax")
    if jax is not None and jax.default_backend() == "gpu":
        return int(jax.devices()[0].memory_stats()["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def copied(options: argparse.Namespace) -> None:
    """Prints bytes a second that are read and written by a large copy."""
    decode.pin(options.threads)
    import jax
    import jax.numpy as jnp

    size = 2**30 if jax.default_backend() == "gpu" else 2**28
    source = jnp.ones(size // 4, jnp.float32)
    copy = jax.jit(lambda x, by: x + by)
    copy(source, 1.0).block_until_ready()
    fastest = float("inf")
    for step in range(10):
        began = time.perf_counter()
        copy(source, float(step)).block_until_ready()
        fastest = min(fastest, time.perf_counter() - began)
    print(2 * size / fastest)


def read_bytes(config: Any, engine: str, precision: str, tokens: float, batch: int) -> tuple[float, float]:
    """Bytes of a step's weights and of one sequence's keys and values at that many tokens."""
    width, layers = config.d_model, config.num_layers
    heads = config.num_heads + config.num_kv_heads
    projections = layers * (2 * width * heads * config.head_dim + 3 * width * config.d_ff)
    table = (SLOT_ROWS if engine == "jax" else config.vocab_size) * width
    table_bytes = 2 if precision == "int8" else BYTES[precision]
    cached = 2 if engine == "llamacpp" or precision == "int8" else BYTES[precision]
    kv = 2 * layers * config.num_kv_heads * config.head_dim * cached * tokens
    return projections * BYTES[precision] + table * table_bytes, kv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=decode.SHAPES, default="135m")
    parser.add_argument("--engines", nargs="+", choices=PRECISIONS, default=["jax"])
    parser.add_argument("--precisions", nargs="+", choices=BYTES, help="of those that an engine has; all if left out")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--notes", nargs="+", type=int, default=[32, 128], help="lengths of a piece")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vllm-python", default="", help="a Python that has vLLM")
    parser.add_argument("--llamacpp-python", default="", help="a Python that has llama-cpp-python")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure == "copy":
        return copied(options)
    if options.measure:
        return measure(options)
    from midillm_jax import presets

    config = getattr(presets, decode.SHAPES[options.shape])
    threads = ["--threads", str(options.threads)]
    copying = decode.start("", __file__, ["--measure", "copy", *threads], options.threads)
    copy = float(copying.stdout.splitlines()[-1])
    print(f"{options.shape}, {platform.machine()}, {options.threads} threads; a copy moves {copy / 1e9:.1f} GB/s")
    print("engine   precision  batch notes  first p50   p95  whole p50   p95  tokens/s  memory MB  KV MB  read GB/s")
    figures = []
    pythons = {"vllm": options.vllm_python, "llamacpp": options.llamacpp_python}
    for name in options.engines:
        for precision in PRECISIONS[name]:
            if options.precisions and precision not in options.precisions:
                continue
            with tempfile.TemporaryDirectory() as work:
                folder = decode.make(Path(work), options.shape, name, precision)
                arguments = ["--measure", name, "--work", str(folder), "--repeats", str(options.repeats)]
                arguments += ["--batches", *map(str, options.batches), "--notes", *map(str, options.notes)]
                done = decode.start(pythons.get(name, ""), __file__, [*arguments, *threads], options.threads)
            for line in done.stdout.splitlines():
                if not line.startswith('{"batch"'):
                    continue
                row = {"engine": name, "precision": precision, **json.loads(line)}
                tokens = decode.PROMPT + 3 * row["notes"]
                _, kv = read_bytes(config, name, precision, tokens, row["batch"])
                weights, half = read_bytes(config, name, precision, decode.PROMPT + 1.5 * row["notes"], row["batch"])
                steps = row["tokens_per_second"] / row["batch"]
                row |= {"kv_bytes": kv, "read_per_second": (weights + row["batch"] * half) * steps, "copy": copy}
                figures.append(row)
                show(row)
            if done.returncode:
                print(f"{name:9}{precision:9}  did not run ({decode.reason(done)})", flush=True)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


def show(row: dict[str, Any]) -> None:
    (first, first_95), (whole, whole_95) = row["first"], row["whole"]
    print(
        f"{row['engine']:9}{row['precision']:9}{row['batch']:7}{row['notes']:6}{first:11.2f}{first_95:6.2f}{whole:11.2f}"
        f"{whole_95:6.2f}{row['tokens_per_second']:10.1f}{row['memory_bytes'] / 1e6:11,.0f}{row['kv_bytes'] / 1e6:7.1f}"
        f"{row['read_per_second'] / 1e9:7.1f} ({row['read_per_second'] / row['copy']:.0%})",
        flush=True,
    )


if __name__ == "__main__":
    main()
