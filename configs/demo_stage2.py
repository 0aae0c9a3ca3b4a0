"""Stage 2 at demo size: finetuning on caption-MIDI pairs, with infilling.

    python -m midillm_jax.train --config demo_stage2.py

Part of ``make demo`` (launch/demo.sh); begins with the weights of demo_stage1.py. 2 CPU cores: about four
minutes; expect about 1.5 bits a note on held-out pieces.
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
from midillm_jax.presets import DEMO


def get_config() -> Config:
    return Config(
        name="demo_stage2",
        run_dir="demo/runs/stage2",
        init_from="demo/runs/stage1",
        steps=500,
        model=DEMO,
        data=DataConfig(
            tokenizer="demo/tokenizer.model",
            row_length=512,
            music_rows=4,
            text_rows=0,
            music=(Source("demo/shards/pairs"),),
            streams=4,
            caption_dropout=0.1,
            anticipation=AnticipationConfig(spans=0.02, random=0.02, instruments=0.02),
        ),
        loss=LossConfig(kind="slot"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
        checkpoint=CheckpointConfig(every_steps=100),
        eval=EvalConfig(every_steps=100, batches=2),
        compute_dtype="float32",
        remat="none",
        log_every_steps=20,
    )
