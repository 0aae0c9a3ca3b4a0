"""What the experiments share that speak of a pretrained language model: SmolLM2-135M on two cores, a short stage 1.

166 M parameters with the music rows, float32, rows of 256 tokens, one of text and one of music a step
(configs/smollm2_stage1.py otherwise). ``--base`` is the folder that launch/smollm2.py makes.
"""

from midillm_jax.experiments import small
from midillm_jax.experiments.plan import Step
from midillm_jax.experiments.small import Fields, train

STEPS = 40
"""20,480 tokens."""
PREPARE: tuple[Step, ...] = (
    *small.PREPARE[:2],
    ("prepare", "text", "--input", "{text}", "--exclude", "*_BYSA*", "--tokenizer", "{base}", "--out",
     "{data}/text_base"),
)  # fmt: skip


def stage1(run: str, fields: Fields | None = None) -> Step:
    """Stage 1 from the base."""
    own: Fields = {
        "init-from": "{base}",
        "data.tokenizer": "{base}",
        "data.music.0.path": "{data}/pairs",
        "data.text.0.path": "{data}/text_base",
        "data.row-length": 256,
        "data.streams": 1,
        "data.music-rows": 1,
        "data.text-rows": 1,
        "compute-dtype": "float32",
        "remat": "none",
        "steps": STEPS,
        "seed": "{seed}",
        "optimizer.learning-rate": 4e-4,
        "optimizer.warmup-steps": 10,
        "optimizer.accumulation-steps": 1,
        "eval.every-steps": STEPS // 2,
        "eval.batches": 4,
        "log-every-steps": 5,
        "checkpoint.every-steps": 100_000,
        "checkpoint.every-minutes": 1_000,
    }
    return train("smollm2_stage1.py", run, {**own, **(fields or {})})
