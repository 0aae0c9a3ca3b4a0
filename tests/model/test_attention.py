from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import RopeScaling
from midillm_jax.model import attention


@pytest.mark.parametrize("scaling", [None, RopeScaling(8.0, 1.0, 4.0, 8192), RopeScaling(32.0, 2.0, 5.0, 512)])
def test_frequencies_are_those_of_transformers(scaling: RopeScaling | None) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope: dict[str, object] = {"rope_theta": 70_000.0, "rope_type": "default"}
    if scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context_length,
        }
    theirs = LlamaRotaryEmbedding(LlamaConfig(head_dim=64, rope_parameters=rope)).inv_freq.numpy()
    np.testing.assert_allclose(attention.frequencies(64, 70_000.0, scaling), theirs, rtol=1e-5)


def naive(query: np.ndarray, key: np.ndarray, value: np.ndarray, sees: np.ndarray) -> np.ndarray:
    """One head at a time, in float64; sees is bool [B, T, S]."""
    out = np.zeros(query.shape)
    group = query.shape[2] // key.shape[2]
    for row in range(query.shape[0]):
        for head in range(query.shape[2]):
            scores = query[row, :, head] @ key[row, :, head // group].T / np.sqrt(query.shape[-1])
            weights = np.where(sees[row], np.exp(scores), 0.0)
            out[row, :, head] = weights / weights.sum(-1, keepdims=True) @ value[row, :, head // group]
    return out


@pytest.mark.parametrize("length", [10, 64, 65, 150, 700])
def test_packed_rows_attend_inside_their_segment_only(length: int) -> None:
    """One block of queries, a whole one, one more than a block, and several with a last one that is shorter."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(2, length, heads, 8)) for heads in (6, 2, 2))
    # Segments of 1, 2, 3, ... tokens from both ends, padding behind the first row's.
    ends = np.cumsum(np.arange(1, length + 1))
    segments = np.stack(
        [1 + np.searchsorted(ends, np.arange(length)), 1 + np.searchsorted(ends, np.arange(length))[::-1]]
    )
    segments[0, -3:] = 0
    sees = (segments[:, :, None] == segments[:, None, :]) & np.tril(np.ones((length, length), bool))
    got = attention.packed(*(jnp.asarray(x, jnp.float32) for x in (query, key, value)), jnp.asarray(segments))
    np.testing.assert_allclose(got, naive(query, key, value, sees), atol=1e-5)


def interpreted(*arrays: jax.Array) -> jax.Array:
    return attention.splash(*arrays, interpret=True)


Attend = Callable[..., jax.Array]
BACKENDS = [
    pytest.param(attention.packed, jnp.float32, id="dot-float32"),
    pytest.param(attention.packed, jnp.bfloat16, id="dot-bfloat16"),
    pytest.param(interpreted, jnp.float32, id="splash-float32"),
]


def packed_row(head_dim: int, dtype: jnp.dtype) -> tuple[jax.Array, ...]:
    """Query, key, value and segment ids of a row of 256: two segments with padding between and behind them."""
    keys = jax.random.split(jax.random.key(0), 3)
    heads = zip(keys, (4, 2, 2), strict=True)
    segments = jnp.array([[1] * 100 + [0] * 20 + [2] * 110 + [0] * 26])
    return *(jax.random.normal(key, (1, 256, count, head_dim), dtype) for key, count in heads), segments


@pytest.mark.parametrize("head_dim", [64, 128])
def test_splash_computes_what_dot_does(head_dim: int) -> None:
    *qkv, segments = packed_row(head_dim, jnp.float32)

    def run(attend: Attend) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(attend(*x, segments))), argnums=(0, 1, 2))(*qkv)

    (value, gradients), (expected, plain) = run(interpreted), run(attention.packed)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(gradients, plain, strict=True):
        assert jnp.linalg.norm(ours - theirs) <= 1e-5 * jnp.linalg.norm(theirs)


@pytest.mark.parametrize(("attend", "dtype"), BACKENDS)
@pytest.mark.parametrize(("begin", "end"), [(0, 100), (120, 230)])
def test_no_gradient_crosses_a_segment(attend: Attend, dtype: jnp.dtype, begin: int, end: int) -> None:
    *qkv, segments = packed_row(64, dtype)

    def one_segment(*qkv: jax.Array) -> jax.Array:
        return jnp.sum(attend(*qkv, segments)[:, begin:end].astype(jnp.float32) ** 2)

    for gradient in jax.grad(one_segment, argnums=(0, 1, 2))(*qkv):
        assert jnp.all(gradient[:, :begin] == 0)
        assert jnp.all(gradient[:, end:] == 0)
        assert jnp.any(gradient[:, begin:end] != 0)


@pytest.mark.parametrize(("length", "block"), [(128, 128), (384, 384), (640, 128), (2048, 512), (1024, 512)])
def test_splash_blocks_divide_the_row(length: int, block: int) -> None:
    assert attention.splash_block(length) == block
