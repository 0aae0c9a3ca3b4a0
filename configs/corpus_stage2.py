"""Stage 2 on a folder of one's own, at a size that two CPU cores train: music from captions, with infilling.

    python -m midillm_jax.train --config corpus_stage2.py

Begins with the weights of corpus_stage1.py and reads ``corpus/pairs`` with its captions. docs/results.md has the
commands and what came of 1,143 real pieces. 2 CPU cores: about 20 minutes for 700 steps of 4,096 tokens.
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
        name="corpus_stage2",
        init_from="runs/corpus_stage1",
        steps=700,
        model=ModelConfig(
            text_vocab_size=8000,
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
            tokenizer="corpus/text8000.model",
            row_length=512,
            music_rows=8,
            text_rows=0,
            music=(Source("corpus/pairs"),),
            streams=2,
            caption_dropout=0.1,
            anticipation=AnticipationConfig(spans=0.05, random=0.1, instruments=0.1),
            transpose=5,  # where no caption is shown: what a caption says of the key stays true
        ),
        loss=LossConfig(kind="slot"),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30),
        checkpoint=CheckpointConfig(every_steps=150),
        eval=EvalConfig(every_steps=75, batches=8),
        compute_dtype="float32",
        remat="none",
    )
