"""Stage 2 of MIDI-LLM (arXiv 2511.03942): finetuning on caption-MIDI pairs, with infilling.

    python -m midillm_jax.train --config stage2.py

The data: launch/data.sh, as for stage1.py.

Begins with the weights of stage1.py. A TPU v5e-8 or more, as in stage1.py; not run:
no accelerator was at hand (docs/scaling.md has slices, hours and the commands). About 5 B tokens, as in the paper:
19,073 steps of 128 rows x 2,048 tokens. What loss to expect is not known yet.

From the paper: the data, the token count, AMT's infilling augmentation (its proportions: a tenth spans, four tenths
random notes, four tenths instruments, a tenth plain). Not published, hence our own choice: the rest. The rate is half
of stage1.py's, as it was in the sweep at width 128, where it was the highest tried and the loss was slot
(docs/training.md). Workers as reasoned in stage1.py.
"""

from midillm_jax.config import (
    AnticipationConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    Source,
)
from midillm_jax.presets import LLAMA_3_2_1B


def get_config() -> Config:
    return Config(
        name="stage2",
        init_from="runs/stage1",
        steps=19_073,
        model=LLAMA_3_2_1B,
        data=DataConfig(
            tokenizer="models/Llama-3.2-1B",
            row_length=2048,
            music_rows=128,
            text_rows=0,
            music=(Source("data/lakh_midicaps"),),
            streams=64,
            caption_dropout=0.1,
            anticipation=AnticipationConfig(spans=0.1, random=0.4, instruments=0.4),
            prefetch=8,
            workers=4,
        ),
        loss=LossConfig(kind="full", z_loss=1e-5),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=500),
        checkpoint=CheckpointConfig(every_steps=1000),
        eval=EvalConfig(every_steps=500, batches=16),
        mesh=MeshConfig(data=1, fsdp=-1, tensor=1),
    )
