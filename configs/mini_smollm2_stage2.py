"""Stage 2 of the larger model: music from captions, and infilling, as in mini_stage2.py, but for an eighth of text.

python -m midillm_jax.train --config mini_smollm2_stage2.py
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
from midillm_jax.presets import SMOLLM2_135M


def get_config() -> Config:
    return Config(
        name="mini_smollm2_stage2",
        init_from="runs/mini_smollm2_stage1",
        steps=500,
        model=SMOLLM2_135M,
        data=DataConfig(
            tokenizer="models/SmolLM2-135M",
            row_length=2048,
            music_rows=14,
            text_rows=2,
            music=(Source("mini/melodic", 0.45), Source("mini/drums", 0.3), Source("mini/band", 0.25)),
            text=(Source("mini/text_smollm2"),),
            streams=2,
            caption_dropout=0.2,
            anticipation=AnticipationConfig(spans=0.1, random=0.1, instruments=0.2),
            transpose=6,
            tempo_stretch=0.1,
            prefetch=8,
            workers=2,
        ),
        loss=LossConfig(kind="slot", chunk_tokens=8192),
        optimizer=OptimizerConfig(learning_rate=4e-4, warmup_steps=50),
        checkpoint=CheckpointConfig(every_steps=1000),
        eval=EvalConfig(every_steps=100, batches=8),
        remat="none",
    )
