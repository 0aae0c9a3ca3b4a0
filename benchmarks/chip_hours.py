"""Chip-hours of both stages by arithmetic alone, for every chip, model, loss and remat policy; nothing is compiled.

    python benchmarks/chip_hours.py

FLOPs of training/flops.py at each chip's peak: no slice, however large, needs fewer chip-hours, and a slice of n chips
takes an n-th of them. Memory and network can only add to it (``--compile-only`` says what they do). Takes a second.
Prints a Markdown table; ``--json FILE`` writes it too.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from midillm_jax import config
from midillm_jax.config import LossConfig
from midillm_jax.presets import PRESETS
from midillm_jax.training.chips import CHIPS
from midillm_jax.training.flops import step_flops

STAGES = ("stage1.py", "stage2.py")


def chip_hours(stage: str, model: str, loss: str, remat: str) -> dict[str, float]:
    """Chip -> hours that one such chip would compute at its peak, for all steps of a stage."""
    run = config.load(stage)
    run = dataclasses.replace(
        run, model=PRESETS[model], remat=remat, loss=dataclasses.replace(run.loss, kind=LossConfig(loss).kind)
    )
    flops = step_flops(run).hardware * run.steps
    return {name: round(flops / chip.flops / 3600, 1) for name, chip in CHIPS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["llama-3.2-1b", "llama-3.2-3b", "smollm2-135m"])
    parser.add_argument("--remat", nargs="+", default=["full", "qkv"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"| model | stage | loss | remat | {' | '.join(CHIPS)} |")
    print(f"|---|---|---|---|{'---|' * len(CHIPS)}")
    found = []
    for model in arguments.models:
        for stage in STAGES:
            for loss in ("full", "slot"):
                for remat in arguments.remat:
                    hours = chip_hours(stage, model, loss, remat)
                    found.append({"model": model, "stage": stage, "loss": loss, "remat": remat, "chip_hours": hours})
                    figures = " | ".join(f"{value:,.0f}" for value in hours.values())
                    print(f"| {model} | {stage} | {loss} | {remat} | {figures} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
