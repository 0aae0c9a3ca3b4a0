"""The arrangement for decoding against the stacked model that is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import ModelConfig
from midillm_jax.model import decoder
from midillm_jax.model.llama import INFERENCE, Definition, Execution


def rows(config: ModelConfig, batch: int, length: int) -> tuple[jax.Array, jax.Array]:
    tokens = jax.random.randint(jax.random.key(1), (batch, length), 0, config.vocab_size)
    return tokens, jnp.tile(jnp.arange(length), (batch, 1))


def test_prefill_and_decode_equal_the_whole_forward(tiny_model: ModelConfig) -> None:
    definition = Definition(tiny_model, INFERENCE)
    params = definition.init(jax.random.key(0))
    tokens, positions = rows(tiny_model, 2, 10)
    whole = definition.forward(params, tokens, positions, jnp.ones((2, 10), int))
    # The second row is two tokens shorter, padded on the left.
    pad = jnp.array([0, 2])
    valid = jnp.arange(6)[None] >= pad[:, None]
    shifted = jnp.stack([tokens[0, :6], jnp.concatenate([jnp.zeros(2, int), tokens[1, :4]])])
    cache = decoder.init_cache(definition, 2, 12)
    weights = decoder.arrange(params)
    extend = jax.jit(decoder.extend, static_argnums=0)
    first = jnp.maximum(jnp.arange(6)[None] - pad[:, None], 0)
    hidden, cache = extend(definition, weights, shifted, first, valid, cache)
    np.testing.assert_allclose(hidden[0], whole[0, :6], atol=1e-5)
    np.testing.assert_allclose(hidden[1, 2:], whole[1, :4], atol=1e-5)
    for step in range(4):
        at = jnp.array([[6 + step], [4 + step]])
        token = jnp.take_along_axis(tokens, at, 1)
        hidden, cache = extend(definition, weights, token, at, jnp.ones((2, 1), bool), cache)
        np.testing.assert_allclose(hidden[0, 0], whole[0, 6 + step], atol=1e-5)
        np.testing.assert_allclose(hidden[1, 0], whole[1, 4 + step], atol=1e-5)
    assert int(cache.length) == 10


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_bfloat16_is_the_stacked_models_bfloat16(tiny_model: ModelConfig, batch: int) -> None:
    """One row and three are padded for the product on a CPU, five are not."""
    config = dataclasses.replace(tiny_model, init_std=0.2)
    definition = Definition(config, Execution("bfloat16", "bfloat16", "none"))
    params = definition.init(jax.random.key(0))
    tokens, positions = rows(config, batch, 7)
    whole = np.asarray(definition.forward(params, tokens, positions, jnp.ones((batch, 7), int)), np.float32)
    exact = Definition(config, INFERENCE).forward(params, tokens, positions, jnp.ones((batch, 7), int))
    extend = jax.jit(decoder.extend, static_argnums=0)
    weights, cache = decoder.arrange(params), decoder.init_cache(definition, batch, 8)
    found = []
    for step in range(7):
        at = slice(step, step + 1)
        valid = jnp.ones((batch, 1), bool)
        hidden, cache = extend(definition, weights, tokens[:, at], positions[:, at], valid, cache)
        found.append(np.asarray(hidden[:, 0], np.float32))
    ours = np.stack(found, 1)
    assert hidden.dtype == jnp.bfloat16
    # As near to float32 as the stacked model is, within what rounding differently may do.
    error, theirs = np.linalg.norm(ours - exact), np.linalg.norm(whole - exact)
    assert 0 < error < 1.5 * theirs
