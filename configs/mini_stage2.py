"""Stage 2 of the model in the box: music from captions, and infilling; mini_stage1.py tells of data and shape.

    python -m midillm_jax.train --config mini_stage2.py

A fifth of the pieces is shown without its caption, so that the model also knows music that nothing is said about
(for --guidance), and such pieces are transposed and stretched. Anticipation is rarer than in the paper: a small model
should first of all write new pieces.
"""

from midillm_jax.config import (
    AnticipationConfig,
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
        name="mini_stage2",
        init_from="runs/mini_stage1",
        steps=500,
        model=MINI,
        data=DataConfig(
            tokenizer="mini/text4096.model",
            row_length=2048,
            music_rows=32,
            text_rows=0,
            music=(Source("mini/melodic", 0.45), Source("mini/drums", 0.3), Source("mini/band", 0.25)),
            streams=8,
            caption_dropout=0.2,
            anticipation=AnticipationConfig(spans=0.1, random=0.1, instruments=0.2),
            transpose=6,
            tempo_stretch=0.1,
            prefetch=8,
            workers=4,
        ),
        loss=LossConfig(kind="slot", chunk_tokens=8192),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=50),
        checkpoint=CheckpointConfig(every_steps=300),
        eval=EvalConfig(every_steps=100, batches=4),
        remat="none",
    )
