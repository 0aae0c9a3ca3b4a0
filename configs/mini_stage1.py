"""Stage 1 of the model in the box: 15.4 M parameters learn music without captions, and music text.

    launch/mini.sh --midi FOLDER --manifest TABLE --text FOLDER    # data, both stages, export, or with its data:
    python -m midillm_jax.train --config mini_stage1.py

Reads what launch/mini.sh prepares: ``mini/melodic`` and ``mini/drums`` (real pieces without and with drums),
``mini/band`` (pieces of the rule-playing band), ``mini/text`` and ``mini/text4096.model``. The pieces with drums are a
quarter of the notes and are weighted up. 46 M tokens, a minute on an H200 (docs/mini.md); learning rate and steps were
not searched for, and the held-out loss still falls at the end.

Narrow and deep because of the table: 59,136 rows of 128 numbers are half of the weights, and the largest tensor of the
export stays under 15 MiB in bfloat16.
"""

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    OptimizerConfig,
    Source,
)
from midillm_jax.presets import MINI


def get_config() -> Config:
    return Config(
        name="mini_stage1",
        steps=700,
        model=MINI,
        data=DataConfig(
            tokenizer="mini/text4096.model",
            row_length=2048,
            music_rows=28,
            text_rows=4,
            music=(Source("mini/melodic", 0.5), Source("mini/drums", 0.35), Source("mini/band", 0.15)),
            text=(Source("mini/text"),),
            streams=4,
            caption_dropout=1.0,
            transpose=6,
            tempo_stretch=0.1,
            prefetch=8,
            workers=4,
        ),
        loss=LossConfig(kind="slot", chunk_tokens=8192),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100),
        checkpoint=CheckpointConfig(every_steps=400),
        eval=EvalConfig(every_steps=100, batches=4),
        remat="none",
    )
