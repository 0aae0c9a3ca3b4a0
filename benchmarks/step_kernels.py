"""Which kernels the time of a train step goes to, on a GPU.

    python benchmarks/step_kernels.py --shape 1b --dtype bfloat16 --rows 8 --length 2046 --remat dots

Runs the step of benchmarks/train_step.py a few times, then three times under JAX's profiler, and prints the kernels
that took longest: milliseconds a step, calls a step, and their share of the time in which any kernel ran.
"""

import argparse
import collections
import re
import tempfile
from pathlib import Path

import jax
import train_step

WARM_UP, TRACED = 3, 3


def gpu_events(folder: Path) -> list[tuple[str, float]]:
    """Name and nanoseconds of every kernel in a trace."""
    (file,) = folder.rglob("*.xplane.pb")
    found = []
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        if plane.name.startswith("/device:GPU"):
            for line in plane.lines:
                # One line a stream; the others sum kernels up by XLA's own names.
                if line.name.startswith("Stream"):
                    found += [(event.name, event.duration_ns) for event in line.events]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train_step.add_step_options(parser)
    parser.add_argument("--shape", choices=train_step.SHAPES, default="1b")
    parser.add_argument("--top", type=int, default=30)
    arguments = parser.parse_args()
    arguments = train_step.with_defaults(arguments, arguments.shape)
    arguments.steps = WARM_UP + TRACED
    rows = train_step.make_rows(arguments)
    side = train_step.Ours(arguments)
    for tokens in rows[:WARM_UP]:
        jax.block_until_ready(side.run(tokens))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for tokens in rows[WARM_UP:]:
                loss = side.run(tokens)
            jax.block_until_ready(loss)
        events = gpu_events(Path(folder))
    if not events:
        raise SystemExit(f"the profiler saw no GPU kernels on {side.device}; this benchmark is for GPUs")
    nanoseconds: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for name, duration in events:
        # Numbers that only tell one copy of a kernel from another.
        name = re.sub(r"[_.]\d+(?=$|_)", "", name)
        nanoseconds[name] += duration
        calls[name] += 1
    total = sum(nanoseconds.values())
    print(f"{arguments.shape}, {arguments.rows} rows x {arguments.length}, remat {arguments.remat}, {side.device}")
    print(f"kernels ran for {total / TRACED / 1e6:.1f} ms a step; peak {side.peak() / 1e9:.1f} GB")
    for name, spent in nanoseconds.most_common(arguments.top):
        print(f"{spent / TRACED / 1e6:9.2f} ms {calls[name] / TRACED:7.1f} x {spent / total:6.1%}  {name[:100]}")


if __name__ == "__main__":
    main()
