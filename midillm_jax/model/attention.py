"""Rotary positions and attention, one function per situation: packed rows in training, a cache in decoding."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.config import ModelConfig, RopeScaling


class Rotation(NamedTuple):
    """Cosines and sines of rotary angles, [B, T, H/2] float32."""

    cos: jax.Array
    sin: jax.Array


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """Rotary frequencies [H/2] in radians a position.

    With ``scaling``, wavelengths beyond the original context are stretched by ``factor`` and those in between
    blended, as Llama 3.1 does (arXiv 2407.21783; ``rope_type: llama3`` in transformers).
    """
    frequency = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is None:
        return frequency
    wavelength = 2 * math.pi / frequency
    smooth = (scaling.original_context_length / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = np.clip(smooth, 0.0, 1.0)
    return smooth * frequency + (1 - smooth) * frequency / scaling.factor


def rotation(positions: jax.Array, config: ModelConfig) -> Rotation:
    """Angles for ``positions`` int32 [B, T]."""
    frequency = frequencies(config.head_dim, config.rope_theta, config.rope_scaling).astype(np.float32)
    angle = positions[..., None].astype(jnp.float32) * frequency[None, None]
    return Rotation(jnp.cos(angle), jnp.sin(angle))


def rotate(x: jax.Array, by: Rotation) -> jax.Array:
    """Turns heads x [B, T, heads, H]; the two halves of H are the real and imaginary parts."""
    real, imaginary = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = by.cos[:, :, None], by.sin[:, :, None]
    turned = jnp.concatenate([real * cos - imaginary * sin, imaginary * cos + real * sin], axis=-1)
    return turned.astype(x.dtype)


def packed(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Causal attention inside segments.

    Args:
        query: [B, T, N, H]. key, value: [B, T, K, H], K divides N.
        segment_ids: int32 [B, T].

    Returns:
        [B, T, N, H].
    """
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return jax.nn.dot_product_attention(query, key, value, mask=same[:, None], is_causal=True)


def cached(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention of new tokens over a cache.

    Args:
        query: [B, T, N, H]. keys, values: [B, S, K, H].
        mask: bool [B, T, S], True where a query may look. A row of padding sees nothing and its result is unused.

    Returns:
        [B, T, N, H].
    """
    return jax.nn.dot_product_attention(query, keys, values, mask=mask[:, None])
