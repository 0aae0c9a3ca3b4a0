"""Stage 1 of a larger model on the data of the model in the box: SmolLM2-135M, grown, on one large GPU in minutes.

    launch/mini.sh --midi FOLDER --manifest TABLE --text FOLDER --smollm2 models/SmolLM2-135M    # or with its data:
    python -m midillm_jax.train --config mini_smollm2_stage1.py

Data as for mini_stage1.py, but for the text, whose ids are SmolLM2's. A quarter of the rows is text, so that the model
goes on writing it; ``text_drift`` in the log tells how far it moved. Not trained to its end yet
(docs/training.md says how far): steps and learning rate are our own guess.
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
from midillm_jax.presets import SMOLLM2_135M


def get_config() -> Config:
    return Config(
        name="mini_smollm2_stage1",
        init_from="models/SmolLM2-135M",
        steps=600,
        model=SMOLLM2_135M,
        data=DataConfig(
            tokenizer="models/SmolLM2-135M",
            row_length=2048,
            music_rows=12,
            text_rows=4,
            music=(Source("mini/melodic", 0.5), Source("mini/drums", 0.35), Source("mini/band", 0.15)),
            text=(Source("mini/text_smollm2"),),
            streams=4,
            caption_dropout=1.0,
            transpose=6,
            tempo_stretch=0.1,
            prefetch=8,
            workers=4,
        ),
        loss=LossConfig(kind="slot", chunk_tokens=8192),
        optimizer=OptimizerConfig(learning_rate=6e-4, warmup_steps=50),
        checkpoint=CheckpointConfig(every_steps=1000),
        eval=EvalConfig(every_steps=200, batches=8),
        remat="none",
    )
