"""Our train step beside transformers + torch: tokens a second, and the first losses of both, from the same weights.

    pip install torch==2.13.0 transformers
    python benchmarks/train_step.py                            # the demo's shape, then one of 100 M parameters
    python benchmarks/train_step.py --shapes 1b --dtype bfloat16 --separate --torch-compile --steps 20   # on a GPU

Both train on the same rows of the demo's band with AdamW, the full softmax, the same schedule, clipping and decay;
torch gets SDPA and its fused AdamW. Each runs in a process of its own and the two take turns, a few steps at a time,
so that other work on the machine meets both; ``--separate`` runs one after the other, for a GPU that cannot hold both.
On a CPU a step is counted in CPU seconds of all threads, and elapsed seconds stand beside them. ``bfloat16`` means
float32 weights and bfloat16 products (torch: autocast). Achieved FLOP/s count three forward passes, no recomputation;
the ceiling is a large matrix product of random numbers by the same library in the same run.
"""

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax import presets
from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
)

SHAPES: dict[str, ModelConfig] = {
    "demo": presets.DEMO,
    "100m": dataclasses.replace(
        presets.SMOLLM2_135M, text_vocab_size=16_384, num_layers=15, context_length=4096, vocab_multiple=2
    ),
    "1b": presets.LLAMA_3_2_1B,
}
PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Environment of both sides: large pages, as launch/demo.sh asks for them; elsewhere than on Linux it does nothing."""
DEFAULTS = {"demo": (4, 510, 256), "100m": (2, 510, 256), "1b": (4, 2046, 2048)}
"""Rows and tokens a row of each shape, and tokens whose logits exist at one time, which on a CPU had better be few."""
TURN = 5
"""Steps between two changes of turn."""


def make_config(arguments: argparse.Namespace) -> Config:
    return Config(
        name="benchmark",
        steps=10_000,
        model=SHAPES[arguments.shape],
        data=DataConfig(tokenizer="", row_length=arguments.length, music_rows=arguments.rows, text_rows=0),
        optimizer=OptimizerConfig(learning_rate=1e-3 if arguments.shape == "demo" else 3e-4, warmup_steps=10),
        checkpoint=CheckpointConfig(every_steps=1),
        eval=EvalConfig(every_steps=1, batches=1),
        loss=LossConfig(kind="full", chunk_tokens=arguments.chunk_tokens),
        mesh=MeshConfig(),
        compute_dtype=arguments.dtype,
        attention=arguments.attention,
        remat=arguments.remat,
    )


def make_rows(arguments: argparse.Namespace) -> np.ndarray:
    """Token ids [steps, rows, length] int32 of pieces one after the other."""
    from midillm_jax.data.band.compose import draw
    from midillm_jax.data.demo import midi_bytes
    from midillm_jax.music import amt

    rng = random.Random(0)
    wanted = arguments.steps * arguments.rows * arguments.length
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < wanted:
        pieces.append(amt.encode_midi(midi_bytes(draw(rng, "small"), 480)))
    ids = np.concatenate(pieces)[:wanted] + SHAPES[arguments.shape].text_vocab_size
    return ids.reshape(arguments.steps, arguments.rows, arguments.length).astype(np.int32)


class Ours:
    """The step of training/step.py, as training/loop.py runs it."""

    def __init__(self, arguments: argparse.Namespace):
        import functools

        import jax

        from midillm_jax.model import sharding
        from midillm_jax.training import step

        self.config = make_config(arguments)
        self.training = step.make_training(self.config, sharding.make_mesh(self.config.mesh, jax.devices()[:1]))
        params = jax.jit(self.training.definition.init)(jax.random.key(0))
        self.state = jax.jit(functools.partial(step.init_state, self.training))(params)
        self.step = step.jit_train_step(self.training)
        self.device = jax.devices()[0].device_kind
        self.attention = self.training.definition.run.attention

    def run(self, tokens: np.ndarray) -> Any:
        from midillm_jax.training import step

        shape = tokens.shape
        batch = {
            "tokens": tokens,
            "segment_ids": np.ones(shape, np.int32),
            "positions": np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1)),
            "loss_weights": np.tile((np.arange(shape[1]) > 0).astype(np.float32), (shape[0], 1)),
            "slot": np.tile((np.arange(shape[1]) % 3).astype(np.int8), (shape[0], 1)),
        }
        self.state, sums = self.step(self.state, step.place(self.training, batch))
        return sums["objective"] / sums["weight"]

    def peak(self) -> int:
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)

    def ceiling(self, size: int) -> float:
        import jax

        x = jax.random.normal(jax.random.key(0), (size, size), self.config.compute_dtype)
        product = jax.jit(lambda a: a @ a)
        return _ceiling(lambda: product(x).block_until_ready(), size)


class Theirs:
    """LlamaForCausalLM with the same first weights, SDPA and torch's fused AdamW."""

    def __init__(self, arguments: argparse.Namespace):
        import jax
        import torch
        import transformers

        from midillm_jax.model import hf_config, hf_names
        from midillm_jax.model.llama import Definition, Execution
        from midillm_jax.training.optimizer import schedule

        self.config = make_config(arguments)
        model = self.config.model
        params = jax.jit(Definition(model, Execution("float32", "float32", "none")).init)(jax.random.key(0))
        fields = hf_config.from_model_config(model, 0, 1, "float32")
        self.torch, self.where = torch, "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        network = transformers.LlamaForCausalLM._from_config(
            transformers.LlamaConfig(**fields), attn_implementation="sdpa", dtype=torch.float32
        )
        flat, sizes = hf_names.flat(params), hf_names.sizes(model)
        weights = {}
        for name, weight, layer in hf_names.tensors(model):
            leaf = np.asarray(flat[weight.path])
            array = leaf[: model.vocab_size] if layer is None and weight.ours[0] == "V" else leaf
            array = array if layer is None else array[layer]
            weights[name] = torch.from_numpy(weight.to_theirs(array, sizes).copy())
        missing, unexpected = network.load_state_dict(weights, strict=False)
        if unexpected or set(missing) - {"lm_head.weight"}:
            sys.exit(f"transformers' Llama has other weights: {missing} missing, {unexpected} unexpected")
        network.tie_weights()
        del params, flat
        self.network = network.to(self.where)
        self.device = torch.cuda.get_device_name() if self.where == "cuda" else "cpu"
        self.attention = "sdpa"
        if arguments.remat != "none":
            self.network.gradient_checkpointing_enable()
        decayed = {name for name, weight in network.named_parameters() if weight.ndim == 2 and "embed" not in name}
        options = self.config.optimizer
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [w for n, w in network.named_parameters() if (n in decayed) == decay], "weight_decay": rate}
                for decay, rate in ((True, options.weight_decay), (False, 0.0))
            ],
            lr=0.0,
            betas=(options.beta1, options.beta2),
            eps=options.epsilon,
            fused=True,
        )
        self.schedule, self.steps = schedule(options, self.config.steps), 0
        self.forward = torch.compile(self.network) if arguments.torch_compile else self.network

    def run(self, tokens: np.ndarray) -> Any:
        torch = self.torch
        ids = torch.from_numpy(tokens).long().to(self.where)
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.schedule(self.steps))
        self.steps += 1
        with torch.autocast(self.where, torch.bfloat16, enabled=self.config.compute_dtype == "bfloat16"):
            loss = self.forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def peak(self) -> int:
        return self.torch.cuda.max_memory_allocated() if self.where == "cuda" else 0

    def ceiling(self, size: int) -> float:
        torch = self.torch
        x = torch.randn((size, size), device=self.where).to(getattr(torch, self.config.compute_dtype))

        def product() -> None:
            x @ x
            if self.where == "cuda":
                torch.cuda.synchronize()

        return _ceiling(product, size)


def _ceiling(product: Any, size: int) -> float:
    """Median FLOP/s of ten products of two size x size matrices."""
    product()
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / float(np.median(seconds))


def serve(arguments: argparse.Namespace) -> None:
    """A worker: reads how many steps to make, answers with losses and seconds, one JSON line each."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    rows = make_rows(arguments)
    side = Ours(arguments) if arguments.side == "ours" else Theirs(arguments)
    about = {"device": side.device, "attention": side.attention, "ceiling": side.ceiling(arguments.ceiling_size)}
    print(json.dumps(about), file=answers)
    done = 0
    for line in sys.stdin:
        count = int(line)
        cpu, began = time.process_time(), time.perf_counter()
        # Read at the end of the turn, so that the device never waits for the host.
        losses = [float(loss) for loss in [side.run(tokens) for tokens in rows[done : done + count]]]
        done += count
        answer = {"losses": losses, "cpu": time.process_time() - cpu, "elapsed": time.perf_counter() - began}
        answer["peak"] = side.peak()
        print(json.dumps(answer), file=answers)


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """One shape, both sides in turns."""

    from midillm_jax.training.flops import step_flops

    passed = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in WORKER_OPTIONS]
    passed += ["--torch-compile"] if arguments.torch_compile else []
    results: dict[str, Any] = {}
    groups = [(side,) for side in arguments.sides] if arguments.separate else [tuple(arguments.sides)]
    for sides in groups:
        results |= take_turns(sides, passed, arguments)
    tokens, flops = arguments.rows * arguments.length, step_flops(make_config(arguments)).model
    for found in results.values():
        for clock in ("cpu", "elapsed"):
            found[f"tokens_per_{clock}_second"] = tokens / float(np.median(found[clock]))
        found["flops_per_second"] = flops / float(np.median(found["elapsed"]))
        found["share_of_ceiling"] = found["flops_per_second"] / found["ceiling"]
    found = {
        "shape": arguments.shape,
        "rows": arguments.rows,
        "length": arguments.length,
        "dtype": arguments.dtype,
        "remat": arguments.remat,
        "model_flops": flops,
        **results,
    }
    if len(results) == 1:
        return found
    ours, theirs = (results[side] for side in ("ours", "torch"))
    return found | {
        "ratio_cpu": ours["tokens_per_cpu_second"] / theirs["tokens_per_cpu_second"],
        "ratio_elapsed": ours["tokens_per_elapsed_second"] / theirs["tokens_per_elapsed_second"],
        "largest_loss_difference": float(np.max(np.abs(np.subtract(ours["losses"], theirs["losses"])))),
    }


def take_turns(sides: tuple[str, ...], passed: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """What each side answered; the first turn, which compiles and warms up, is left out of the clocks."""
    workers: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for side in sides:
        command = [sys.executable, __file__, f"--side={side}", *passed]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        # Torch's worker draws its weights by JAX, which then has to leave a GPU's memory to it.
        environment = PAGES | os.environ | ({} if side == "ours" else {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"})
        workers[side] = subprocess.Popen(command, env=environment, **pipes)
        results[side] = {"losses": [], "cpu": [], "elapsed": []} | _answer(workers[side])
    for begin in range(0, arguments.steps, TURN):
        count = min(TURN, arguments.steps - begin)
        for side in sides:
            done = f"{arguments.shape}: {side} {begin + count}/{arguments.steps}"
            print(f"\r{done}  ", end="", file=sys.stderr, flush=True)
            workers[side].stdin.write(f"{count}\n")
            answer = _answer(workers[side])
            results[side]["losses"] += answer["losses"]
            results[side]["peak_bytes"] = answer["peak"]
            if begin:
                results[side]["cpu"].append(answer["cpu"] / count)
                results[side]["elapsed"].append(answer["elapsed"] / count)
    print(file=sys.stderr)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return results


def _answer(worker: Any) -> dict[str, Any]:
    line = worker.stdout.readline()
    if not line:
        sys.exit(f"a worker ended with code {worker.wait()}; its message is above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def show(found: dict[str, Any]) -> None:
    sides = [side for side in ("ours", "torch") if side in found]
    what = (
        f"{found['shape']}, {found['rows']} rows x {found['length']} tokens, {found['dtype']}, remat {found['remat']}"
    )
    print(f"{what}, {found[sides[0]]['device']}")
    columns = (
        f"{'':8}{'attention':>10}{'tokens/CPU-s':>14}{'tokens/s':>10}{'TFLOP/s':>9}{'of ceiling':>12}{'peak GB':>9}"
    )
    print(f"{columns}   loss at step 1, 10, 20 ...")
    for side in sides:
        row = found[side]
        losses = [row["losses"][0], *row["losses"][9::10]]
        print(
            f"{side:8}{row['attention']:>10}{row['tokens_per_cpu_second']:>14,.0f}"
            f"{row['tokens_per_elapsed_second']:>10,.0f}{row['flops_per_second'] / 1e12:>9,.3g}"
            f"{row['share_of_ceiling']:>12.0%}{row['peak_bytes'] / 1e9:>9.1f}   "
            + " ".join(f"{loss:.3f}" for loss in losses)
        )
    if len(sides) == 2:
        print(
            f"ours / torch: {found['ratio_cpu']:.2f} a CPU second, {found['ratio_elapsed']:.2f} elapsed; losses differ "
            f"by {found['largest_loss_difference']:.4f} at most"
        )
    print(flush=True)


WORKER_OPTIONS = ("shape", "rows", "length", "steps", "dtype", "attention", "remat", "chunk_tokens", "ceiling_size")


def add_step_options(parser: argparse.ArgumentParser) -> None:
    """How the step is run; :func:`with_defaults` fills in what is left out."""
    parser.add_argument("--rows", type=int, help="rows a step; by shape when left out")
    parser.add_argument("--length", type=int, help="tokens a row; by shape when left out")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", choices=("auto", "dot", "cudnn"), default="auto", help="ours")
    parser.add_argument("--remat", choices=("none", "dots", "qkv", "full"), default="none", help="torch: none or all")
    parser.add_argument("--chunk-tokens", type=int, help="ours: of the head; by shape when left out")


def with_defaults(arguments: argparse.Namespace, shape: str) -> argparse.Namespace:
    """The options for one shape."""
    chosen: dict[str, Any] = {"shape": shape}
    for name, default in zip(("rows", "length", "chunk_tokens"), DEFAULTS[shape], strict=True):
        chosen[name] = getattr(arguments, name) or default
    return argparse.Namespace(**(vars(arguments) | chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["demo", "100m"])
    parser.add_argument("--steps", type=int, default=50)
    add_step_options(parser)
    parser.add_argument("--ceiling-size", type=int, default=2048, help="side of the matrices of the ceiling")
    parser.add_argument("--torch-compile", action="store_true")
    parser.add_argument("--separate", action="store_true", help="one side after the other instead of in turns")
    parser.add_argument("--sides", nargs="+", choices=("ours", "torch"), default=["ours", "torch"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=("ours", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        return serve(arguments)
    results = []
    for shape in arguments.shapes:
        results.append(compare(with_defaults(arguments, shape)))
        show(results[-1])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
