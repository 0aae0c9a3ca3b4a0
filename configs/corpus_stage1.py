"""Stage 1 on a folder of one's own, at a size that two CPU cores train: text and music, no captions.

    python -m midillm_jax.train --config corpus_stage1.py

Reads ``corpus/pairs`` (``python -m midillm_jax.prepare pairs``, captions not shown), ``corpus/text`` (``prepare
text``) and ``corpus/text8000.model`` (``prepare tokenizer --vocab-size 8000``). docs/results.md has the commands and
what came of 1,143 real pieces. 2 CPU cores: about 24 minutes for 450 steps of 5,120 tokens.

Stage 1 reads the captioned shards, not a second copy made by ``prepare midi``, so that both stages hold out the
same pieces.
"""

from midillm_jax.config import (
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
        name="corpus_stage1",
        steps=450,
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
            text_rows=2,
            music=(Source("corpus/pairs"),),
            text=(Source("corpus/text"),),
            streams=2,
            caption_dropout=1.0,
            transpose=5,
        ),
        loss=LossConfig(kind="slot"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=30),
        checkpoint=CheckpointConfig(every_steps=150),
        eval=EvalConfig(every_steps=75, batches=8),
        compute_dtype="float32",
        remat="none",
    )
