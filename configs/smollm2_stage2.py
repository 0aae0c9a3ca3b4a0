"""Stage 2 on one GPU or a Colab: the model of smollm2_stage1.py learns music from captions, with infilling.

    python -m midillm_jax.train --config smollm2_stage2.py

The data: launch/data.sh, as for smollm2_stage1.py; hardware, memory and loss as there. Not run on a GPU: none was at
hand; time, loss to expect, learning rate and length of training are our own guess. 20,000 steps of 32,768 tokens are
0.66 B. Captions are music rows; anticipation in the paper's proportions, as in stage2.py.
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
        name="smollm2_stage2",
        init_from="runs/smollm2_stage1",
        steps=20_000,
        model=SMOLLM2_135M,
        data=DataConfig(
            tokenizer="models/SmolLM2-135M",
            row_length=2048,
            music_rows=16,
            text_rows=0,
            music=(Source("smollm2/lakh_midicaps"),),
            streams=8,
            caption_dropout=0.1,
            anticipation=AnticipationConfig(spans=0.1, random=0.4, instruments=0.4),
            transpose=5,  # where no caption is shown: what a caption says of the key stays true
        ),
        loss=LossConfig(kind="slot", z_loss=1e-5),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=500, accumulation_steps=4),
        checkpoint=CheckpointConfig(every_steps=500),
        eval=EvalConfig(every_steps=500, batches=16),
    )
