import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import ModelConfig
from midillm_jax.model.llama import INFERENCE, REMAT_POLICIES, Definition, Execution, head_table, parameter_count


def rows(config: ModelConfig, batch: int, length: int) -> tuple[jax.Array, jax.Array]:
    tokens = jax.random.randint(jax.random.key(1), (batch, length), 0, config.vocab_size)
    return tokens, jnp.tile(jnp.arange(length), (batch, 1))


@pytest.mark.parametrize("tied", [True, False])
def test_parameter_count_is_the_tree_without_padding(tiny_model: ModelConfig, tied: bool) -> None:
    config = dataclasses.replace(tiny_model, tie_embeddings=tied)
    definition = Definition(config, INFERENCE)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(definition.abstract()))
    padding = (config.padded_vocab_size - config.vocab_size) * config.d_model
    assert sizes - padding * (1 if tied else 2) == parameter_count(config)


def test_every_weight_names_an_axis_for_each_dimension(tiny_model: ModelConfig) -> None:
    definition = Definition(tiny_model, INFERENCE)
    flat = jax.tree.leaves(definition.abstract())
    axes = jax.tree.leaves(definition.logical_axes(), is_leaf=lambda leaf: isinstance(leaf, tuple))
    assert [len(each) for each in axes] == [leaf.ndim for leaf in flat]


def test_two_packed_segments_equal_the_same_two_alone(tiny_model: ModelConfig) -> None:
    definition = Definition(tiny_model, INFERENCE)
    params = definition.init(jax.random.key(0))
    tokens, positions = rows(tiny_model, 1, 9)
    first, second = slice(0, 4), slice(4, 9)
    packed = definition.forward(
        params,
        tokens,
        jnp.concatenate([positions[:, :4], positions[:, :5]], axis=1),
        jnp.array([[1] * 4 + [2] * 5]),
    )
    for part, length in ((first, 4), (second, 5)):
        alone = definition.forward(params, tokens[:, part], positions[:, :length], jnp.ones((1, length), int))
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-6)


def test_a_token_sees_nothing_later(tiny_model: ModelConfig) -> None:
    definition = Definition(tiny_model, INFERENCE)
    params = definition.init(jax.random.key(0))
    tokens, positions = rows(tiny_model, 1, 8)
    before = definition.forward(params, tokens, positions, jnp.ones((1, 8), int))
    changed = tokens.at[0, 5].set((tokens[0, 5] + 1) % tiny_model.vocab_size)
    after = definition.forward(params, changed, positions, jnp.ones((1, 8), int))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("remat", list(REMAT_POLICIES))
def test_remat_changes_no_gradient(tiny_model: ModelConfig, remat: str) -> None:
    tokens, positions = rows(tiny_model, 2, 8)
    segments = jnp.ones((2, 8), int)
    params = Definition(tiny_model, INFERENCE).init(jax.random.key(0))

    def gradient(policy: str) -> dict[str, jax.Array]:
        definition = Definition(tiny_model, Execution("float32", "float32", policy))
        return jax.grad(lambda p: jnp.sum(definition.forward(p, tokens, positions, segments) ** 2))(params)

    for plain, again in zip(jax.tree.leaves(gradient("none")), jax.tree.leaves(gradient(remat)), strict=True):
        np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-5)


def test_remat_policies_keep_what_they_say(tiny_model: ModelConfig) -> None:
    """Numbers that a layer keeps of each token beside its input; the input is the scan's carry."""
    batch, length, layers = 2, 8, tiny_model.num_layers
    tokens, positions = rows(tiny_model, batch, length)
    params = Definition(tiny_model, INFERENCE).init(jax.random.key(0))

    def kept(policy: str) -> int:
        definition = Definition(tiny_model, Execution("float32", "float32", policy))
        segments = jnp.ones((batch, length), int)
        _, backward = jax.eval_shape(
            lambda p: jax.vjp(lambda q: jnp.sum(definition.forward(q, tokens, positions, segments)), p), params
        )
        stacked = [
            leaf.size
            for leaf in jax.tree.leaves(backward)
            if leaf.shape[:3] == (layers, batch, length) and jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        return sum(stacked) // (layers * batch * length)

    d, f, h = tiny_model.d_model, tiny_model.d_ff, tiny_model.head_dim
    n, k = tiny_model.num_heads, tiny_model.num_kv_heads
    extra = {policy: kept(policy) - d for policy in REMAT_POLICIES}
    assert extra == {
        # The last product of a layer is only added, and needed by no gradient.
        "dots": d + (n + 2 * k) * h + 2 * f,
        "qkv": 2 * (n + k) * h,
        "attention": n * h,
        "full": 0,
    }


def test_bfloat16_stays_near_float32(tiny_model: ModelConfig) -> None:
    tokens, positions = rows(tiny_model, 1, 8)
    segments = jnp.ones((1, 8), int)
    definition = Definition(tiny_model, INFERENCE)
    params = definition.init(jax.random.key(0))
    exact = definition.forward(params, tokens, positions, segments)
    rough = Definition(tiny_model, Execution("float32", "bfloat16", "none")).forward(
        params, tokens, positions, segments
    )
    assert rough.dtype == jnp.bfloat16
    # bfloat16 keeps 8 bits; hidden states are normed to about 1, and three layers add up their errors.
    assert jnp.max(jnp.abs(rough.astype(jnp.float32) - exact)) < 0.1


def test_the_tied_head_is_the_embedding(tiny_model: ModelConfig) -> None:
    params = Definition(tiny_model, INFERENCE).abstract()
    assert head_table(params) is params["embedding"]
    untied = Definition(dataclasses.replace(tiny_model, tie_embeddings=False), INFERENCE).abstract()
    assert head_table(untied) is untied["head"]
