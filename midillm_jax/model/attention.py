"""Rotary positions and attention, one function per situation: packed rows in training, a cache in decoding."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.config import ModelConfig, RopeScaling

ATTENDED = "attended"
"""Name by which a remat policy (model/llama.py) can keep what attention gives."""

MOST_BLOCKS = 8
LEAST_BLOCK = 64
"""Blocks of queries that :func:`packed` is unrolled into at most, and queries in one at least."""

SPLASH_MULTIPLE = 128
"""A row given to the splash kernel is a multiple of this long: the lanes of a TPU's vector register."""
SPLASH_BLOCK = 512
"""Largest block of the splash kernel in queries and in keys; scores of 512 x 512 in float32 are 1 MiB of a TPU's fast
memory. MaxText's default; not tuned here, where no TPU was."""

_NEVER = -0.7 * float(np.finfo(np.float32).max)
"""Score of what a query may not see: finite, or the softmax of padding, which sees nothing, would not be a number."""


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
    """Causal attention inside segments, a block of queries at a time, each over the keys up to its end: what lies
    above the diagonal is mostly not computed (44 % of the square in eight blocks).

    Args:
        query: [B, T, N, H]. key, value: [B, T, K, H], K divides N.
        segment_ids: int32 [B, T].

    Returns:
        [B, T, N, H].
    """
    length = query.shape[1]
    mask = _same_segment(segment_ids) & jnp.tri(length, dtype=bool)[None, None]
    attended = [
        # Pinned: what jax chooses by itself may change.
        jax.nn.dot_product_attention(
            query[:, start:end], key[:, :end], value[:, :end], mask=mask[:, :, start:end, :end], implementation="xla"
        )
        for start, end in query_blocks(length)
    ]
    return jnp.concatenate(attended, axis=1)


def query_blocks(length: int) -> list[tuple[int, int]]:
    """First query and end of each block of :func:`packed`."""
    block = max(LEAST_BLOCK, -(-length // MOST_BLOCKS))
    return [(start, min(start + block, length)) for start in range(0, length, block)]


def cudnn(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """:func:`packed` by cuDNN's fused attention for NVIDIA GPUs: no scores [N, T, T] are in memory, blocks above the
    diagonal are skipped. Segments reach it as a bias [B, 1, T, T] of the compute dtype that all heads share: asked by
    segment ids, cuDNN has ignored them (MaxText issue 4476). benchmarks/attention.py tests for leaks where a GPU is.

    Args:
        query: [B, T, N, H], bfloat16, T even, H a multiple of 8 up to 128. key, value: [B, T, K, H], K divides N.
        segment_ids: int32 [B, T].

    Returns:
        [B, T, N, H].
    """
    return jax.nn.dot_product_attention(
        query, key, value, mask=_same_segment(segment_ids), is_causal=True, implementation="cudnn"
    )


def _same_segment(segment_ids: jax.Array) -> jax.Array:
    """int32 [B, T] -> bool [B, 1, T, T]."""
    return (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]


def splash(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """:func:`packed` by the Pallas kernel for TPUs: no [T, T] array is ever in memory, blocks above the diagonal are
    skipped, key and value heads are read as they are.

    The kernel knows no mesh: on more than one device it runs inside jax.shard_map, rows and heads split.

    Args:
        query: [B, T, N, H], T a multiple of :data:`SPLASH_MULTIPLE`. key, value: [B, T, K, H], K divides N.
        segment_ids: int32 [B, T].
        interpret: run the kernel's steps in plain JAX, which works on any device and is slow.

    Returns:
        [B, T, N, H].
    """
    # Pallas takes a second to import; on a CPU or GPU nobody needs it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, heads, head_dim = query.shape[1:]
    block = splash_block(length)
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((length, length))] * heads),
        block_sizes=kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        head_shards=1,
        q_seq_shards=1,
        # Saved by name, output and log-normalisers spare the backward pass a second run of the kernel.
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )

    def one_row(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array) -> jax.Array:
        attended: jax.Array = attend(q, k, v, segment_ids=kernel.SegmentIds(q=ids, kv=ids))
        return attended

    # The kernel leaves the scale to its caller and wants heads in front.
    scaled = query * jnp.asarray(head_dim**-0.5, query.dtype)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (scaled, key, value))
    return jnp.swapaxes(jax.vmap(one_row)(q, k, v, segment_ids), 1, 2).astype(query.dtype)


def splash_block(length: int) -> int:
    """Queries and keys that the splash kernel handles at a time: the largest part of the row up to SPLASH_BLOCK."""
    return max(block for block in range(SPLASH_MULTIPLE, SPLASH_BLOCK + 1, SPLASH_MULTIPLE) if length % block == 0)


def cached(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention of new tokens over a cache.

    Args:
        query: [B, T, N, H]. keys, values: [B, K, S, H], K divides N.
        mask: bool [B, T, S], True where a query may look. A row of padding sees nothing and its result is unused.

    Returns:
        [B, T, N, H].
    """
    batch, length, heads, head_dim = query.shape
    kv_heads, size = keys.shape[1:3]
    shared = heads // kv_heads  # query heads of a key head
    grouped = query.reshape(batch, length, kv_heads, shared, head_dim).transpose(0, 2, 3, 1, 4)
    grouped = grouped.reshape(batch, kv_heads, shared * length, head_dim)
    scores = jnp.einsum("BKQH,BKSH->BKQS", grouped, keys, preferred_element_type=jnp.float32) * head_dim**-0.5
    seen = jnp.where(mask[:, None, None], scores.reshape(batch, kv_heads, shared, length, size), _NEVER)
    weights = jax.nn.softmax(seen, axis=-1).astype(values.dtype).reshape(scores.shape)
    attended = jnp.einsum("BKQS,BKSH->BKQH", weights, values, preferred_element_type=jnp.float32).astype(query.dtype)
    attended = attended.reshape(batch, kv_heads, shared, length, head_dim).transpose(0, 3, 1, 2, 4)
    return attended.reshape(query.shape)
