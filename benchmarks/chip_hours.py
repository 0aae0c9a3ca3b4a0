"""Chip-hours of both stages by arithmetic alone, for every chip, model, loss and remat policy; nothing is compiled.

    python benchmarks/chip_hours.py

FLOPs of training/flops.py at each chip's peak: no slice, however large, needs fewer chip-hours, and a slice of n chips
takes an n-th of them. Memory and network can only add to it (``--compile-only`` says what they do). All models see the
tokens of the 1B recipes. Takes a second. Prints a Markdown table and how many times as many FLOPs the full loss takes
as the slot loss; ``--json FILE`` writes both.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from midillm_jax import config
from midillm_jax.config import LossConfig
from midillm_jax.presets import PRESETS
from midillm_jax.training.chips import CHIPS
from midillm_jax.training.flops import step_flops

STAGES = ("stage1.py", "stage2.py")


def stage_flops(stage: str, model: str, loss: str, remat: str) -> float:
    """What all steps of a stage compute."""
    run = config.load(stage)
    run = dataclasses.replace(
        run, model=PRESETS[model], remat=remat, loss=dataclasses.replace(run.loss, kind=LossConfig(loss).kind)
    )
    return step_flops(run).hardware * run.steps


def chip_hours(flops: float) -> dict[str, float]:
    """Chip -> hours that one such chip would compute at its peak."""
    return {name: round(flops / chip.flops / 3600, 1) for name, chip in CHIPS.items()}


def slot_factors(models: list[str]) -> list[dict[str, Any]]:
    """FLOPs with the full loss by those with the slot loss."""
    found: list[dict[str, Any]] = []
    for model in models:
        for stage in STAGES:
            by_remat = {
                remat: round(stage_flops(stage, model, "full", remat) / stage_flops(stage, model, "slot", remat), 2)
                for remat in ("full", "qkv", "none")
            }
            found.append({"model": model, "stage": stage, "full_by_slot": by_remat})
    return found


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
                    hours = chip_hours(stage_flops(stage, model, loss, remat))
                    found.append({"model": model, "stage": stage, "loss": loss, "remat": remat, "chip_hours": hours})
                    figures = " | ".join(
                        f"{value:.1f}" if value < 9.95 else f"{value:,.0f}" for value in hours.values()
                    )
                    print(f"| {model} | {stage} | {loss} | {remat} | {figures} |")
    factors = slot_factors(arguments.models)
    print("\n| full by slot | stage | remat full | qkv | none |\n|---|---|---|---|---|")
    for each in factors:
        figures = " | ".join(f"{value:.2f}" for value in each["full_by_slot"].values())
        print(f"| {each['model']} | {each['stage']} | {figures} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"chip_hours": found, "full_by_slot": factors}, indent=1))


if __name__ == "__main__":
    main()
