"""What each TPU slice would take for each stage: compiled, not run (docs/scaling.md holds the results).

    python benchmarks/pods.py --folder pods                 # all of PLANS, one at a time
    python benchmarks/pods.py --folder pods --only v5e:2x4  # those whose name holds these words

Each plan takes one to four minutes of a core, in a run of ``python -m midillm_jax.train --compile-only`` that leaves
``<folder>/<name>.json``. A plan whose file is there is not compiled again, so that an interrupted list goes on.
Prints a Markdown table of all that are there; ``--json FILE`` writes them too, as one object by plan.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from midillm_jax.training.estimate import two_digits

GIB = 1 << 30


STAGE_1_STEPS, STAGE_2_STEPS = 11_826, 19_073
"""Of configs/stage1.py (3.1 B tokens) and stage2.py (5 B), at their 128 rows."""


def rows(text: int, music: int) -> list[str]:
    """Another batch than the config's 128 rows, with as many steps as give the stage's tokens."""
    steps = (STAGE_1_STEPS if text else STAGE_2_STEPS) * 128 // (text + music)
    return ["--data.text-rows", str(text), "--data.music-rows", str(music), "--steps", str(steps)]


STAGE_1, STAGE_2 = ["--config", "stage1.py"], ["--config", "stage2.py"]
SLOT = ["--loss.kind", "slot"]
SMOLLM2 = ["--config", "smollm2_stage2.py"]
LLAMA_3B = [
    *("--model.d-model", "3072", "--model.num-layers", "28", "--model.num-heads", "24", "--model.num-kv-heads", "8"),
    *("--model.head-dim", "128", "--model.d-ff", "8192"),
]
"""The fields in which presets.LLAMA_3_2_3B differs from the 1B model."""
PLANS: dict[str, list[str]] = {
    # 8 rows a chip, the same share of text as in the config.
    "stage1 v5e:2x4": [*STAGE_1, *rows(32, 32), "--compile-only", "v5e:2x4"],
    "stage1 v4:2x2x2": [*STAGE_1, *rows(32, 32), "--compile-only", "v4:2x2x2"],
    "stage1 v5p:2x2x2": [*STAGE_1, *rows(32, 32), "--compile-only", "v5p:2x2x2"],
    "stage1 v5p:2x2x4": [*STAGE_1, "--compile-only", "v5p:2x2x4"],
    # The configs' own batch of 128 rows, shared out.
    "stage1 v5e:4x4": [*STAGE_1, "--compile-only", "v5e:4x4"],
    "stage1 v5e:8x8": [*STAGE_1, "--compile-only", "v5e:8x8"],
    "stage1 v6e:4x4": [*STAGE_1, "--compile-only", "v6e:4x4"],
    "stage1 2xv5e:4x4": [*STAGE_1, "--compile-only", "2xv5e:4x4"],
    "stage1 2xv6e:4x4": [*STAGE_1, "--compile-only", "2xv6e:4x4"],
    "stage1 v6e:16x16": [*STAGE_1, *rows(256, 256), "--compile-only", "v6e:16x16"],
    "stage2 v5e:2x4": [*STAGE_2, *rows(0, 64), "--compile-only", "v5e:2x4"],
    "stage2 v5e:2x4 slot": [*STAGE_2, *rows(0, 64), *SLOT, "--compile-only", "v5e:2x4"],
    "stage2 v5e:8x8": [*STAGE_2, "--compile-only", "v5e:8x8"],
    "stage2 v5e:8x8 slot": [*STAGE_2, *SLOT, "--compile-only", "v5e:8x8"],
    "stage2 v6e:4x4": [*STAGE_2, "--compile-only", "v6e:4x4"],
    "stage1 3b v5e:4x4": [*STAGE_1, *LLAMA_3B, *rows(32, 32), "--compile-only", "v5e:4x4"],
    "stage1 3b v5p:2x2x2": [*STAGE_1, *LLAMA_3B, *rows(32, 32), "--compile-only", "v5p:2x2x2"],
    "stage1 3b v6e:4x4": [*STAGE_1, *LLAMA_3B, *rows(32, 32), "--compile-only", "v6e:4x4"],
    # One chip cannot hold float32 weights, moments and gradients of the 1B model (20 GiB); SmolLM2 it can.
    "smollm2 stage2 v5e:1x1": [*SMOLLM2, "--compile-only", "v5e:1x1"],
    "smollm2 stage2 v5e:2x4": [*SMOLLM2, "--optimizer.accumulation-steps", "1", "--compile-only", "v5e:2x4"],
    "finetune v5e:1x1": ["--config", "finetune.py", "--compile-only", "v5e:1x1"],
    # What each choice buys: one change each to "stage1 v5e:2x4".
    "remat attention": [*STAGE_1, *rows(32, 32), "--remat", "attention", "--compile-only", "v5e:2x4"],
    "remat qkv": [*STAGE_1, *rows(32, 32), "--remat", "qkv", "--compile-only", "v5e:2x4"],
    "remat none": [*STAGE_1, *rows(32, 32), "--remat", "none", "--compile-only", "v5e:2x4"],
    "chunk 8192": [*STAGE_1, *rows(32, 32), "--loss.chunk-tokens", "8192", "--compile-only", "v5e:2x4"],
    "attention dot": [*STAGE_1, *rows(32, 32), "--attention", "dot", "--compile-only", "v5e:2x4"],
    "tensor 4": [*STAGE_1, *rows(32, 32), "--mesh.tensor", "4", "--compile-only", "v5e:2x4"],
    "two parts": [*STAGE_1, *rows(32, 32), "--optimizer.accumulation-steps", "2", "--compile-only", "v5e:2x4"],
    # The config's own 128 rows on eight chips: 16 a chip, at once or in two parts of 8.
    "16 rows": [*STAGE_1, "--compile-only", "v5e:2x4"],
    "16 rows in two parts": [*STAGE_1, "--optimizer.accumulation-steps", "2", "--compile-only", "v5e:2x4"],
}
"""Name -> arguments of ``python -m midillm_jax.train``."""


def compile_plan(arguments: list[str], file: Path) -> None:
    """Leaves the estimate in ``file``, or what was said where the step does not fit."""
    command = [sys.executable, "-m", "midillm_jax.train", *arguments, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2 and "fit a chip" in done.stderr and not file.exists():
        said = done.stderr.split("error: ", 1)[1].splitlines()
        file.write_text(json.dumps({"fits": False, "said": said}, indent=1))
    elif done.returncode not in (0, 2) or not file.exists():
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def table(results: dict[str, dict]) -> str:
    """A Markdown table of estimates; seconds, hours and MFU at the roofline."""
    lines = [
        "| plan | chips | mesh | rows a chip | memory GiB | step ms (bound by) | MFU | tokens/s | hours | chip-hours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        if "said" in found:
            lines.append(f"| {name} | {found['said'][0].split(' with ')[0]} | | | | | | | | |")
            continue
        mesh = " x ".join(f"{axis} {size}" for axis, size in found["mesh"].items() if size > 1) or "1"
        memory = found["chip_bytes"]
        lines.append(
            f"| {name} | {found['chips']} | {mesh} | {found['rows_a_chip']:g} "
            f"| {memory['total'] / GIB:.2f} of {memory['chip'] / GIB:.0f} "
            f"| {1e3 * found['seconds']['step']:.0f} ({found['bound']}) | {found['mfu']:.0%} "
            f"| {found['tokens_per_second']:,.0f} | {two_digits(found['hours'])} | {two_digits(found['chip_hours'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where each plan's result goes")
    parser.add_argument("--only", default="", help="compile the plans whose name holds these words")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    files = {name: arguments.folder / (re.sub(r"\W+", "_", name) + ".json") for name in PLANS}
    for name, file in files.items():
        if arguments.only in name and not file.exists():
            print(f"compiling {name} ...", file=sys.stderr, flush=True)
            compile_plan(PLANS[name], file)
    results = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
