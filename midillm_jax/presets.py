"""Shapes of the models that the configs train. Music rows are part of each: take them off with ``text_only``."""

import dataclasses

from midillm_jax.config import ModelConfig, RopeScaling

LLAMA_3_ROPE = RopeScaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context_length=8192)

LLAMA_3_2_1B = ModelConfig(
    text_vocab_size=128_256,
    d_model=2048,
    num_layers=16,
    num_heads=32,
    num_kv_heads=8,
    head_dim=64,
    d_ff=8192,
    context_length=131_072,
    rope_theta=500_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
    rope_scaling=LLAMA_3_ROPE,
)
"""The base of MIDI-LLM."""

LLAMA_3_2_3B = dataclasses.replace(
    LLAMA_3_2_1B, d_model=3072, num_layers=28, num_heads=24, num_kv_heads=8, head_dim=128, d_ff=8192
)

SMOLLM2_135M = ModelConfig(
    text_vocab_size=49_152,
    d_model=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    d_ff=1536,
    context_length=8192,
    rope_theta=100_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
)
"""HuggingFaceTB/SmolLM2-135M: not gated, and small enough for one GPU or a Colab."""

DEMO = ModelConfig(
    text_vocab_size=1024,
    d_model=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    d_ff=384,
    context_length=512,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
    init_std=0.07,
)
"""Trained on two CPU cores in minutes. Rows this narrow need larger weights to begin with than 0.02."""

MINI = ModelConfig(
    text_vocab_size=4096,
    d_model=128,
    num_layers=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    d_ff=1024,
    context_length=2048,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
    init_std=0.05,
)
"""The model in the box: 31 MB in bfloat16, of which the table is half; no tensor is larger than 15 MiB."""

PRESETS: dict[str, ModelConfig] = {
    "llama-3.2-1b": LLAMA_3_2_1B,
    "llama-3.2-3b": LLAMA_3_2_3B,
    "smollm2-135m": SMOLLM2_135M,
    "mini": MINI,
    "demo": DEMO,
}


def text_only(model: ModelConfig) -> ModelConfig:
    """The base that ``model`` grew from: the same shape without music rows."""
    return dataclasses.replace(model, music_vocab_size=0)
