"""What the grammar costs: its share of an engine's decode time.

    python benchmarks/grammar.py --shape 135m --batch 32
    python benchmarks/grammar.py --engines vllm --python .venv-vllm/bin/python

Weights are random, so speed is all that is measured, on one thread. vLLM and llama.cpp are timed from inside: the CPU
seconds of masking logits and of moving states on, over those of all decoding steps. In the jitted loop of the JAX
engine the mask is fused with its neighbours and cannot be timed from inside; there the grammar's computations for a
token are timed by themselves, an upper bound, and divided by the seconds that the engine takes for a token.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import decode
import latency

SHORT, LONG = 4, 16
"""Triples that two runs write; their difference is decoding alone."""


class Stopwatch:
    """CPU seconds in the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running = False

    def wrap(self, owner: Any, name: str) -> None:
        """Replaces a function of a module or class by one that is timed; calls inside of others count once."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._running:
                return function(*arguments, **options)
            self._running, began = True, time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self._running = False
                self.seconds += time.process_time() - began

        setattr(owner, name, timed)


def from_inside(write: Callable[[int], None], watch: Stopwatch, repeats: int) -> float:
    """Share of the watch in the time of what a long run writes more than a short one."""
    write(LONG)
    shares = []
    for _ in range(repeats):
        whole, inside = [], []
        for triples in (SHORT, LONG):
            watch.seconds, began = 0.0, time.process_time()
            write(triples)
            whole.append(time.process_time() - began)
            inside.append(watch.seconds)
        shares.append((inside[1] - inside[0]) / (whole[1] - whole[0]))
    return sorted(shares)[len(shares) // 2]


def share_of_jax(engine: Any, write: Callable[[int], None], batch: int, repeats: int) -> float:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from midillm_jax.inference import jax_engine
    from midillm_jax.music import grammar

    requests = decode.requests(engine.text_vocab_size, batch, LONG)
    fields = jax_engine._batch(requests, np.full(batch, decode.PROMPT, np.int32))
    state = jnp.asarray(np.stack([grammar.replay(one.history, one.limits) for one in requests]))

    @functools.partial(jax.jit, static_argnums=0)
    def masks(slot: int, logits: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        if slot == 0:
            logits = grammar.fold_end(jnp, logits, fields.limits)
        masked = jnp.where(grammar.allowed(jnp, state, slot, fields.limits), logits, -jnp.inf)
        # Some use of all that was masked; the sampler's own is not the grammar's.
        sampled = grammar.slot_ids(jnp, jnp.max(masked, axis=1).astype(jnp.int32) % 2, slot)
        forced = grammar.forced(jnp, state, fields.controls)
        ids = jnp.where(forced == grammar.FREE, sampled, forced)
        return ids, grammar.advance(jnp, state, ids, fields.limits)

    def seconds(slot: int) -> float:
        logits = jax.random.normal(jax.random.key(slot), (batch, grammar.SLOT_WIDTHS[slot]))
        jax.block_until_ready(masks(slot, logits, state))
        fastest = float("inf")
        for _ in range(20):
            began = time.process_time()
            for _ in range(20):
                found = masks(slot, logits, state)
            jax.block_until_ready(found)
            fastest = min(fastest, (time.process_time() - began) / 20)
        return fastest

    grammars = sum(map(seconds, range(3))) / 3
    write(LONG)
    write(SHORT)
    tokens = []
    for _ in range(repeats):
        times = []
        for triples in (SHORT, LONG):
            began = time.process_time()
            write(triples)
            times.append(time.process_time() - began)
        tokens.append((times[1] - times[0]) / (3 * (LONG - SHORT)))
    return grammars / sorted(tokens)[len(tokens) // 2]


def measure(options: argparse.Namespace) -> None:
    decode.pin(1)
    engine = decode.engine_of(options.measure, options.work, options.batch, threads=1)
    write = decode.written_by_engine(engine, options.batch)
    if options.measure == "jax":
        print(share_of_jax(engine, write, options.batch, options.repeats))
        return
    watch = Stopwatch()
    if options.measure == "vllm":
        from midillm_jax.inference import vllm_grammar

        watch.wrap(vllm_grammar.RunnerV1, "apply")
        watch.wrap(vllm_grammar.RunnerV1, "update_state")
    else:
        from midillm_jax.inference import whole_head
        from midillm_jax.music import grammar

        watch.wrap(whole_head, "slot_logits")
        for name in ("slots", "slot_ids", "forced", "advance"):
            watch.wrap(grammar, name)
    print(from_inside(write, watch, options.repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=decode.SHAPES, default="135m")
    parser.add_argument("--engines", nargs="+", choices=latency.PRECISIONS, default=["jax"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16", help="of safetensors; llama.cpp gets float16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python", default="", help="a Python that has the engine")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=latency.PRECISIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options)
    figures = []
    for name in options.engines:
        with tempfile.TemporaryDirectory() as work:
            folder = decode.make(Path(work), options.shape, name, "float16" if name == "llamacpp" else options.dtype)
            arguments = ["--measure", name, "--work", str(folder), "--batch", str(options.batch)]
            done = decode.start(options.python, __file__, [*arguments, "--repeats", str(options.repeats)], 1)
        if done.returncode:
            sys.exit(f"{name} did not run ({decode.reason(done)})")
        share = float(done.stdout.splitlines()[-1])
        figures.append({"engine": name, "shape": options.shape, "batch": options.batch, "share": share})
        print(
            f"{name}, {options.shape}, batch {options.batch}: the grammar takes {share:.1%} of decode time", flush=True
        )
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
