"""Our roofline beside steps that others ran on TPUs and published: what share of it they reached.

    python benchmarks/published_steps.py

Only the arithmetic of the roofline takes part: FLOPs by training/flops.py with the recomputation that they chose, at
the chip's peak; none was compiled here. At 16,384 tokens a chip and more they are taken to be bound by arithmetic.
Takes a second, needs no libtpu. Prints a Markdown table; ``--json FILE`` writes it too.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from midillm_jax import config
from midillm_jax.config import ModelConfig
from midillm_jax.training.chips import CHIPS
from midillm_jax.training.flops import step_flops

LLAMA_3_1_8B = ModelConfig(
    text_vocab_size=128_256,
    d_model=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    d_ff=14_336,
    context_length=131_072,
    rope_theta=500_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=False,
    music_vocab_size=0,
)
LLAMA_2_70B = dataclasses.replace(
    LLAMA_3_1_8B, text_vocab_size=32_000, d_model=8192, num_layers=80, num_heads=64, d_ff=28_672, context_length=4096
)
LLAMA_3_1_70B = dataclasses.replace(LLAMA_2_70B, text_vocab_size=128_256, context_length=131_072)
LLAMA_3_1_405B = dataclasses.replace(LLAMA_3_1_70B, d_model=16_384, num_layers=126, num_heads=128, d_ff=53_248)
TIERING = "maxtext docs/reference/models/tiering.md"
"""Its mixtures of experts are left out, as a router and capacity are not in training/flops.py."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A run of MaxText: what it trained, how, and tokens a second and chip."""

    name: str
    model: ModelConfig
    chip: str
    chips: int
    length: int
    remat: str
    """The policy of ours that recomputes most nearly what theirs does."""
    tokens_per_second_and_chip: float
    source: str


RUNS = (
    # Rows, remat: benchmarks/maxtext_trillium_model_configs.py of github.com/AI-Hypercomputer/maxtext. The 8B run keeps
    # query, key, value and output projection of each layer in the host's memory, the Llama 3.1 70B run the first three,
    # the Llama 2 70B run nothing.
    Published("Llama 3.1 8B", LLAMA_3_1_8B, "v6e", 256, 8192, "qkv", 7207, TIERING),
    Published(
        "Llama 2 70B",
        LLAMA_2_70B,
        "v6e",
        256,
        4096,
        "full",
        943.086,
        "tpu-recipes training/trillium/Llama2-70B-MaxText/README.md: 17.373 s a step of 4 rows a chip",
    ),
    Published("Llama 3.1 70B", LLAMA_3_1_70B, "v6e", 256, 8192, "qkv", 960, TIERING),
    # Remat of these is not stated where their speed is: full is assumed, and with less the share is lower.
    Published("Llama 3.1 405B", LLAMA_3_1_405B, "v6e", 256, 8192, "full", 123, TIERING),
    Published("Llama 2 70B", LLAMA_2_70B, "v5p", 512, 4096, "full", 692, TIERING),
)


def compare(run: Published) -> dict[str, object]:
    base = config.load("stage1.py")
    data = dataclasses.replace(base.data, row_length=run.length, text_rows=run.chips, music_rows=0)
    flops = step_flops(dataclasses.replace(base, model=run.model, remat=run.remat, data=data))
    peak = run.chips * CHIPS[run.chip].flops
    reached = run.length / run.tokens_per_second_and_chip
    return {
        "run": run.name,
        "chips": f"{run.chips} {run.chip}",
        "row_length": run.length,
        "remat": run.remat,
        "tokens_per_second_and_chip": run.tokens_per_second_and_chip,
        "roofline_tokens_per_second_and_chip": round(run.length / (flops.hardware / peak), 1),
        "share": round(flops.hardware / peak / reached, 3),
        "mfu": round(flops.model / peak / reached, 3),
        "source": run.source,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = [compare(run) for run in RUNS]
    print("| run | chips | row | tokens/s and chip, published | at our roofline | share reached | MFU | source |")
    print("|---|---|---|---|---|---|---|---|")
    for each in found:
        print(
            f"| {each['run']} | {each['chips']} | {each['row_length']:,} | {each['tokens_per_second_and_chip']:,} "
            f"| {each['roofline_tokens_per_second_and_chip']:,} | {each['share']:.2f} | {each['mfu']:.1%} "
            f"| {each['source']} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
