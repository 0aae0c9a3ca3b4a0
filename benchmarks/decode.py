"""Tokens a second of every engine at one shape, batch and dtype, without the prompt and without compiling.

    python benchmarks/decode.py --shapes demo 135m 1b --batches 1 4 32 --out decode.json
    python benchmarks/decode.py --engines jax vllm --vllm-python .venv-vllm/bin/python

Weights are random, so speed is all that is measured. Each engine runs in a process of its own, on ``--threads`` CPUs
or on the GPU it finds; one run writes more triples than another, and the difference is what counts: CPU seconds and
wall time. Every sequence is made to go on to its end by controls, which an engine samples for as for any token before
it writes what it must.

- jax: our sampler, which computes the head for the slot's rows alone
- jax-whole-head: the same, but every token's logits are computed for all rows of the table
- transformers: generate with a static cache, most likely id, without a grammar
- vllm, llamacpp: our engines over them, with the grammar; each needs an environment that has it

Seconds of music a second are the tokens' at 3 a note and 6.82 notes a second of music (682 notes in 100 s).
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES = {"demo": "DEMO", "135m": "SMOLLM2_135M", "1b": "LLAMA_3_2_1B"}
ENGINES = ("jax", "jax-whole-head", "transformers", "vllm", "llamacpp")
CONTEXT = 1024
PROMPT = 16
"""Tokens before the first triple."""
TOKENS_PER_SECOND_OF_MUSIC = 3 * 682 / 100


def make(work: Path, shape: str, engine: str, precision: str) -> Path:
    """A folder of random weights for an engine, in ``work``; what is there already is not made again."""
    import jax
    import tokenizers

    from midillm_jax import presets
    from midillm_jax.model import gguf, hf_write
    from midillm_jax.model.llama import Definition, Execution
    from midillm_jax.text.tokenizer import load_tokenizer

    folder = work / f"{'gguf' if engine == 'llamacpp' else 'hf'}-{precision}"
    if folder.is_dir():
        return folder
    config = dataclasses.replace(getattr(presets, SHAPES[shape]), context_length=CONTEXT, rope_scaling=None)
    # A vocabulary of the right size; nothing is ever encoded.
    names = ["<|begin_of_text|>", "<|end_of_text|>", "a", "b", "ab"]
    names += [f"t{index}" for index in range(len(names), config.text_vocab_size)]
    model = tokenizers.Tokenizer(tokenizers.models.BPE({n: i for i, n in enumerate(names)}, [("a", "b")]))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.add_special_tokens(names[:2])
    model.save(str(work / "tokenizer.json"))
    tokenizer = load_tokenizer(work / "tokenizer.json")
    params = Definition(config, Execution(param_dtype="bfloat16", compute_dtype="bfloat16", remat="none")).init(
        jax.random.key(0)
    )
    if engine == "llamacpp":
        return gguf.write_gguf(folder, config, params, tokenizer, dtype=precision)  # type: ignore[arg-type]
    return hf_write.write_hf(folder, config, params, tokenizer, dtype=precision)  # type: ignore[arg-type]


def requests(text_vocab_size: int, batch: int, triples: int, seed: int = 0) -> list[Any]:
    """Token requests that go on to their end."""
    from midillm_jax.inference.request import TokenRequest
    from midillm_jax.music.grammar import Limits
    from midillm_jax.music.vocab import ANTICIPATE, CONTROL_OFFSET, DURATION_OFFSET, NOTE_OFFSET

    control = (CONTROL_OFFSET, CONTROL_OFFSET + DURATION_OFFSET + 10, CONTROL_OFFSET + NOTE_OFFSET + 60)
    fields = {"temperature": 1.0, "top_p": 0.98, "controls": control * CONTEXT}
    found = []
    for row in range(batch):
        number = seed * batch + row
        prompt = (*range(number % 1000, number % 1000 + PROMPT - 1), text_vocab_size + ANTICIPATE)
        found.append(TokenRequest(prompt, Limits(), triples, seed=number, **fields))
    return found


def written_by_engine(engine: Any, batch: int) -> Callable[[int], None]:
    """A function that writes so many triples a sequence."""

    def write(triples: int) -> None:
        lengths = {len(ids) for ids in engine.generate(requests(engine.text_vocab_size, batch, triples))}
        if lengths != {3 * triples}:
            raise RuntimeError(f"{engine.name} wrote {lengths} ids instead of {3 * triples}")

    return write


def written_by_transformers(folder: Path, batch: int, threads: int) -> Callable[[int], None]:
    import torch
    import transformers

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = transformers.LlamaForCausalLM.from_pretrained(folder, dtype="auto").to(device)
    ids = torch.arange(PROMPT, device=device).repeat(batch, 1)

    def write(triples: int) -> None:
        count = 3 * triples
        with torch.no_grad():
            network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                temperature=None,
                top_p=None,
                max_new_tokens=count,
                min_new_tokens=count,
                cache_implementation="static",
                pad_token_id=0,
            )
        if device == "cuda":
            torch.cuda.synchronize()

    return write


def engine_of(name: str, folder: Path, batch: int, threads: int) -> Any:
    """An engine for that many sequences at a time."""
    if name == "vllm":
        from midillm_jax.inference.vllm import VllmEngine

        return VllmEngine(folder, max_num_seqs=batch)
    if name == "llamacpp":
        from midillm_jax.inference.llamacpp import LlamaCppEngine

        return LlamaCppEngine(folder / "model.gguf", max_sequences=batch, threads=threads)
    from midillm_jax.inference.jax_engine import JaxEngine
    from midillm_jax.model import hf

    definition, params = hf.load_music_model(folder)
    engine = JaxEngine(definition, params)
    if name == "jax-whole-head":
        import jax

        from midillm_jax.inference import sampler
        from midillm_jax.model import decoder
        from midillm_jax.model.llama import head_table

        whole, text = head_table(params), engine.text_vocab_size

        def slot_logits(hidden: jax.Array, heads: sampler.Heads, slot: int) -> jax.Array:
            logits = decoder.product(hidden, heads[slot])
            logits = jax.lax.optimization_barrier(logits)  # or XLA would compute no more than what is taken
            return sampler.slot_heads(logits.T, text)[slot].T

        sampler.slot_logits = slot_logits
        engine._heads = (whole, whole, whole)
    return engine


def writer(name: str, folder: Path, batch: int, threads: int) -> Callable[[int], None]:
    """A function that writes so many triples a sequence with an engine, or with transformers."""
    if name == "transformers":
        return written_by_transformers(folder, batch, threads)
    return written_by_engine(engine_of(name, folder, batch, threads), batch)


def pin(threads: int) -> None:
    """Keeps this process to so many CPUs, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def start(python: str, script: str, arguments: list[str], threads: int) -> subprocess.CompletedProcess[str]:
    """Runs a script of this folder in a process of its own, by the Python that has what it needs."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    }
    command = [python or sys.executable, script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Why it did not run, in a line."""
    return (done.stderr.strip().splitlines() or [str(done.returncode)])[-1][:200]


def measure(options: argparse.Namespace) -> None:
    """Prints the figures of one engine at one batch as JSON."""
    pin(options.threads)
    write = writer(options.measure, options.work, options.batch, options.threads)
    short, long = options.triples
    write(long)  # compiles
    write(short)
    fastest: dict[int, tuple[float, float]] = {}
    for _ in range(options.repeats):
        for triples in (short, long):
            cpu, wall = time.process_time(), time.perf_counter()
            write(triples)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            before = fastest.get(triples, (cpu, wall))
            fastest[triples] = min(cpu, before[0]), min(wall, before[1])
    cpu, wall = (late - early for early, late in zip(fastest[short], fastest[long], strict=True))
    if min(cpu, wall) <= 0:
        sys.exit("the short run took longer than the long one: the machine is too busy, or --triples are too near")
    tokens = 3 * (long - short) * options.batch
    print(json.dumps({"tokens_per_cpu_second": tokens / cpu, "tokens_per_second": tokens / wall}))


def run(options: argparse.Namespace, name: str, batch: int, folder: Path) -> dict[str, Any] | None:
    """One engine in a process of its own; None, and a line that says why, where it does not run."""
    pythons = {"vllm": options.vllm_python, "llamacpp": options.llamacpp_python}
    arguments = ["--measure", name, "--work", str(folder), "--batch", str(batch), "--threads", str(options.threads)]
    arguments += ["--repeats", str(options.repeats), "--triples", *map(str, options.triples)]
    done = start(pythons.get(name, ""), __file__, arguments, options.threads)
    if done.returncode:
        print(f"  {name}, batch {batch}: did not run ({reason(done)})", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["demo", "135m"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 32])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES[:3]))
    parser.add_argument("--dtype", default="bfloat16", help="of safetensors")
    parser.add_argument("--gguf-dtype", default="float16", help="of the matrices for llama.cpp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--triples", nargs=2, type=int, default=[8, 40], help="that the short and the long run write")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest of either length counts")
    parser.add_argument("--vllm-python", default="", help="a Python that has vLLM")
    parser.add_argument("--llamacpp-python", default="", help="a Python that has llama-cpp-python")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return
    figures = []
    print(f"{platform.machine()}, {options.threads} threads, {options.dtype}, llama.cpp {options.gguf_dtype}")
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as work:
            for batch in options.batches:
                for name in options.engines:
                    precision = options.gguf_dtype if name == "llamacpp" else options.dtype
                    found = run(options, name, batch, make(Path(work), shape, name, precision))
                    if found is None:
                        continue
                    music = found["tokens_per_second"] / TOKENS_PER_SECOND_OF_MUSIC
                    figures.append({"shape": shape, "batch": batch, "engine": name, **found})
                    print(
                        f"  {shape:5} batch {batch:3} {name:15} {found['tokens_per_cpu_second']:9,.1f} tokens a CPU "
                        f"second {found['tokens_per_second']:9,.1f} a second, {music:7,.1f} s of music a second",
                        flush=True,
                    )
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
