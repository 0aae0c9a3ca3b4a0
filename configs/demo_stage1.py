"""Stage 1 at demo size: continued pretraining on music text and stand-alone MIDI.

    python -m midillm_jax.train --config demo_stage1.py

Part of ``make demo`` (launch/demo.sh), which prepares the folders named here. The same schema as stage1.py; only
the fields differ. 2 CPU cores: about a minute;
expect about 8 bits a note on held-out pieces.
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
from midillm_jax.presets import DEMO


def get_config() -> Config:
    return Config(
        name="demo_stage1",
        run_dir="demo/runs/stage1",
        steps=60,
        model=DEMO,
        data=DataConfig(
            tokenizer="demo/tokenizer.model",
            row_length=512,
            music_rows=4,
            text_rows=1,
            music=(Source("demo/shards/midi"),),
            text=(Source("demo/shards/text"),),
            streams=4,
            caption_dropout=1.0,
        ),
        loss=LossConfig(kind="slot"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=10),
        checkpoint=CheckpointConfig(every_steps=30),
        eval=EvalConfig(every_steps=30, batches=2),
        compute_dtype="float32",
        remat="none",
        log_every_steps=5,
    )
