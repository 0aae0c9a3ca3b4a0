"""The decoder as it writes: one token after another, bound by how fast weights are read.

The same numbers as model/llama.py, whose letters this uses, in another arrangement: layers apart instead of stacked, so
that no loop slices a stack; what is multiplied with the same input side by side (query, key and value; gate and up);
and every matrix with its outputs in rows, [out, in]. On a CPU the form of a product decides its speed several times
over, and XLA has one that is fast at few rows and many (:func:`product`; measured by benchmarks/products.py).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from midillm_jax.config import ModelConfig
from midillm_jax.model import attention
from midillm_jax.model.llama import Definition, Params, rms_norm

_CPU_ROWS = 4
"""Rows from which a bfloat16 product is fast on a CPU; fewer are padded to so many."""


class Layer(NamedTuple):
    """Weights of one layer."""

    attention_norm: jax.Array  # [D]
    query_key_value: jax.Array  # [(N + 2 K) H, D]
    output: jax.Array  # [D, N H]
    feed_forward_norm: jax.Array  # [D]
    gate_up: jax.Array  # [2 F, D]
    down: jax.Array  # [D, F]


class Weights(NamedTuple):
    """Weights of a model but for its head, of which a sampler takes the rows that it needs."""

    embedding: jax.Array  # [V, D]; on a CPU bfloat16 as its bits in uint16
    layers: tuple[Layer, ...]
    final_norm: jax.Array  # [D]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens seen so far.

    Attributes:
        keys, values: an array [B, K, S, H] a layer.
        valid: [B, S] bool; False where a row was padded on the left or nothing was written yet.
        length: int32 scalar, the next free index of S, the same for every row.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    valid: jax.Array
    length: jax.Array


def arrange(params: Params) -> Weights:
    """The weights of a model in this arrangement, in their dtype."""
    blocks, table = params["blocks"], params["embedding"]
    layers = range(blocks["attention_norm"].shape[0])
    # XLA's CPU backend would turn all of a bfloat16 table into float32 to look a token up in it.
    if table.dtype == jnp.bfloat16 and _on_cpu():
        table = jax.lax.bitcast_convert_type(table, jnp.uint16)
    return Weights(table, tuple(_layer(blocks, jnp.int32(index)) for index in layers), params["final_norm"])


@jax.jit
def _layer(blocks: Params, index: jax.Array) -> Layer:
    weights = jax.tree.map(lambda leaf: leaf[index], blocks)
    heads, feed_forward = weights["attention"], weights["feed_forward"]
    width = weights["attention_norm"].shape[0]
    inputs = [heads[name].reshape(width, -1).T for name in ("query", "key", "value")]
    return Layer(
        attention_norm=weights["attention_norm"],
        query_key_value=jnp.concatenate(inputs),
        output=heads["output"].reshape(-1, width).T,
        feed_forward_norm=weights["feed_forward_norm"],
        gate_up=jnp.concatenate([feed_forward["gate"].T, feed_forward["up"].T]),
        down=feed_forward["down"].T,
    )


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Rows x [R, I] times weight [O, I] in x's dtype: float32 [R, O]."""
    rows, cpu = x.shape[0], _on_cpu()
    if cpu and x.dtype == jnp.bfloat16 and rows < _CPU_ROWS:
        x = jnp.pad(x, ((0, _CPU_ROWS - rows), (0, 0)))
    # weight @ x.T, and a float32 result: the one form that XLA's CPU backend is fast with in both types.
    y = jax.lax.dot_general(weight.astype(x.dtype), x, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    # Without the barrier XLA would turn the product over instead of its result.
    return (jax.lax.optimization_barrier(y) if cpu else y).T[:rows]


def init_cache(definition: Definition, batch: int, length: int) -> Cache:
    """An empty cache for ``batch`` rows of at most ``length`` tokens, in the compute dtype."""
    config = definition.config
    shape = (batch, config.num_kv_heads, length, config.head_dim)
    layers = range(config.num_layers)
    keys, values = (tuple(jnp.zeros(shape, definition.run.compute_dtype) for _ in layers) for _ in range(2))
    return Cache(keys, values, jnp.zeros((batch, length), bool), jnp.zeros((), jnp.int32))


def extend(
    definition: Definition,
    weights: Weights,
    tokens: jax.Array,
    positions: jax.Array,
    valid: jax.Array,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    """Hidden states of tokens that follow those in the cache: prefill (T > 1) and decode (T = 1) alike.

    Args:
        definition: the model.
        weights: its weights, from :func:`arrange`.
        tokens: int32 [B, T], placed at cache indices ``cache.length ...``; the caller keeps them below S.
        positions: int32 [B, T] rotary positions.
        valid: bool [B, T]; False for padding, which no token attends to.
        cache: what was seen before.

    Returns:
        hidden states [B, T, D] after the final norm, in the compute dtype, and the cache with these tokens added.
    """
    config, dtype = definition.config, definition.run.compute_dtype
    batch, length = tokens.shape
    rotation, start = attention.rotation(positions, config), cache.length
    all_valid = jax.lax.dynamic_update_slice(cache.valid, valid, (0, start))
    causal = jnp.arange(cache.valid.shape[1])[None, :] <= start + jnp.arange(length)[:, None]
    mask = causal[None] & all_valid[:, None, :]
    x = jnp.take(weights.embedding, tokens, axis=0)
    x = (jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x).astype(dtype)
    every_keys, every_values = [], []

    def linear(values: jax.Array, weight: jax.Array) -> jax.Array:
        rows = product(values.reshape(batch * length, -1), weight).astype(dtype)
        return rows.reshape(batch, length, -1)

    for layer, keys, values in zip(weights.layers, cache.keys, cache.values, strict=True):
        mixed = linear(rms_norm(x, layer.attention_norm, config.rms_norm_eps), layer.query_key_value)
        query, key, value = _heads(mixed, config)
        query, key = attention.rotate(query, rotation), attention.rotate(key, rotation)
        keys = jax.lax.dynamic_update_slice(keys, key.swapaxes(1, 2), (0, 0, start, 0))
        values = jax.lax.dynamic_update_slice(values, value.swapaxes(1, 2), (0, 0, start, 0))
        every_keys.append(keys)
        every_values.append(values)
        attended = attention.cached(query, keys, values, mask)
        x = x + linear(attended.reshape(batch, length, -1), layer.output)
        gate, up = jnp.split(linear(rms_norm(x, layer.feed_forward_norm, config.rms_norm_eps), layer.gate_up), 2, -1)
        x = x + linear(jax.nn.silu(gate) * up, layer.down)
    hidden = rms_norm(x, weights.final_norm, config.rms_norm_eps)
    return hidden, Cache(tuple(every_keys), tuple(every_values), all_valid, start + length)


def _heads(mixed: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, T, (N + 2 K) H] -> query [B, T, N, H], key and value [B, T, K, H]."""
    heads = mixed.reshape(*mixed.shape[:2], -1, config.head_dim)
    query, key, value = jnp.split(heads, [config.num_heads, config.num_heads + config.num_kv_heads], axis=2)
    return query, key, value
