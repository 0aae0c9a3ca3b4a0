"""A folder of MIDI files and nothing else: music from captions that were read off it, in one stage, on two CPU cores.

    python -m midillm_jax.prepare caption --input my_midi --out my/captions.jsonl
    python -m midillm_jax.prepare pairs --input my/captions.jsonl --out my/pairs
    python -m midillm_jax.prepare tokenizer --input my/captions.jsonl --column caption --vocab-size 1000 \\
        --out my/captions.model
    python -m midillm_jax.train --config my_midi.py

docs/data.md walks through it. 1,143 files take a minute to prepare and 2 CPU cores about 2 seconds a step of 4,096
tokens; a useful model wants more music, a larger shape and an accelerator (stage1.py, stage2.py). Fewer than some 40
files hold out too few for an evaluation: give ``prepare pairs`` a larger ``--validation-share``.
"""

from midillm_jax.config import (
    AnticipationConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Source,
)


def get_config() -> Config:
    return Config(
        name="my_midi",
        steps=1000,
        model=ModelConfig(
            text_vocab_size=1000,
            d_model=192,
            num_layers=4,
            num_heads=6,
            num_kv_heads=2,
            head_dim=32,
            d_ff=512,
            context_length=1024,
            rope_theta=10_000.0,
            rms_norm_eps=1e-5,
            tie_embeddings=True,
            init_std=0.06,
        ),
        data=DataConfig(
            tokenizer="my/captions.model",
            row_length=512,
            music_rows=8,
            text_rows=0,
            music=(Source("my/pairs"),),
            streams=2,
            caption_dropout=0.1,
            anticipation=AnticipationConfig(spans=0.05, random=0.1, instruments=0.1),
            transpose=5,  # where no caption is shown: what a caption says of the key stays true
        ),
        loss=LossConfig(kind="slot"),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30),
        checkpoint=CheckpointConfig(every_steps=200),
        eval=EvalConfig(every_steps=100, batches=8),
        compute_dtype="float32",
        remat="none",
    )
