"""The Llama decoder (arXiv 2302.13971, 2407.21783) as flax.nnx modules over a plain parameter tree.

Einsum letters: B batch, T time (tokens), D model width, N query heads, K key/value heads, H head width, F feed-forward
width, V padded vocabulary, L layers; in model/decoder.py S cache length.

The module is only a definition: :func:`define` builds it without memory and takes it apart into a graph
definition and an ordinary nested dict of parameters. Everything else (training, checkpoints, conversion) sees
that dict::

    embedding [V, D]                         head [V, D] (only when untied)
    blocks.attention.query [L, D, N, H]      blocks.feed_forward.gate [L, D, F]
    blocks.attention.key   [L, D, K, H]      blocks.feed_forward.up   [L, D, F]
    blocks.attention.value [L, D, K, H]      blocks.feed_forward.down [L, F, D]
    blocks.attention.output [L, N, H, D]     blocks.attention_norm [L, D]   blocks.feed_forward_norm [L, D]
    final_norm [D]

A finetuning has leaves beside these (model/finetune.py).

Numbers agree with transformers' LlamaForCausalLM: rotary halves are not interleaved, norms run in float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from midillm_jax.config import FinetuneConfig, ModelConfig
from midillm_jax.model import attention, lora
from midillm_jax.model.sharding import Placement

Params = dict[str, Any]

MUSIC = "music_"
"""Before a table's name: its music rows, where a finetuning keeps them apart from its text rows."""

_QKV = "qkv"
REMAT_POLICIES: dict[str, Callable[..., Any]] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "qkv": jax.checkpoint_policies.save_only_these_names(_QKV, attention.ATTENDED),
    "attention": jax.checkpoint_policies.save_only_these_names(attention.ATTENDED),
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What a layer keeps of each token for the backward pass beside its input [D], in numbers of the compute dtype (in
brackets KiB for Llama-3.2-1B in bfloat16), and what is computed a second time:

``none`` (no policy) keeps every value and computes nothing twice.
``dots`` keeps the products with weights, D + (N + 2 K) H + 2 F (42): norms, rotation, attention and silu run again.
``qkv`` keeps query, key, value and attended heads, 2 (N + K) H (10): the output projection and feed-forward run again.
``attention`` keeps the attended heads, N H (4), and with splash their log-normalisers, N: all but attention runs again.
``full`` keeps nothing: the whole layer runs again.

With dot attention the scores [N, T, T] are computed again whatever is kept, except by ``none``.
"""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the decoder is run, as opposed to what it is."""

    param_dtype: str
    compute_dtype: str
    remat: str
    """``none`` or one of REMAT_POLICIES."""
    attention: Literal["dot", "cudnn", "splash"] = "dot"
    placement: Placement | None = None
    """Where activations lie on a mesh; without one the compiler decides."""

    def place(self, x: jax.Array, *axes: str) -> jax.Array:
        """Lays x along its logical axes (model/sharding.py)."""
        return x if self.placement is None else self.placement.constrain(x, axes)

    def attend(self, query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """Causal attention inside segments; shapes as in attention.packed."""
        if self.attention == "dot":
            return checkpoint_name(attention.packed(query, key, value, segment_ids), attention.ATTENDED)
        kernel = attention.splash if self.attention == "splash" else attention.cudnn
        if self.placement is not None:
            kernel = self.placement.local(kernel, (QUERY_AXES, KEY_AXES, KEY_AXES, ("batch", "length")), QUERY_AXES)
        attended = kernel(query, key, value, segment_ids)
        # Splash names what it keeps itself.
        return attended if self.attention == "splash" else checkpoint_name(attended, attention.ATTENDED)


QUERY_AXES = ("batch", "length", "heads", "head_dim")
KEY_AXES = ("batch", "length", "kv_heads", "head_dim")
RESIDUAL_AXES = ("batch", "length", "width")

INFERENCE = Execution(param_dtype="float32", compute_dtype="float32", remat="none")


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], std: float, dtype: str) -> nnx.Param[Any]:
    """One weight: its shape, dtype, logical axes (model/sharding.py) and initialiser, said once."""
    value = jax.random.normal(rngs.params(), shape, jnp.float32) * std
    return nnx.Param(value.astype(dtype), logical_axes=axes)


def _scale(shape: tuple[int, ...], axes: tuple[str, ...], dtype: str) -> nnx.Param[Any]:
    return nnx.Param(jnp.ones(shape, dtype), logical_axes=axes)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm of x [B, T, D] over D, in float32; returns x's dtype."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return x32.astype(x.dtype) * scale.astype(x.dtype)[None, None]


class Attention(nnx.Module):
    """Grouped-query attention; the parameters carry the layer axis, the methods see one layer."""

    def __init__(self, config: ModelConfig, run: Execution, rngs: nnx.Rngs, finetune: FinetuneConfig | None = None):
        layers, width, heads = config.num_layers, config.d_model, config.num_heads
        kv_heads, head_dim, std, dtype = config.num_kv_heads, config.head_dim, config.init_std, run.param_dtype
        kv_axes = ("layers", "embed", "kv_heads", "head_dim")
        self.query = _weight(
            rngs, (layers, width, heads, head_dim), ("layers", "embed", "heads", "head_dim"), std, dtype
        )
        self.key = _weight(rngs, (layers, width, kv_heads, head_dim), kv_axes, std, dtype)
        self.value = _weight(rngs, (layers, width, kv_heads, head_dim), kv_axes, std, dtype)
        self.output = _weight(
            rngs, (layers, heads, head_dim, width), ("layers", "heads", "head_dim", "embed"), std, dtype
        )
        weights = {"query": self.query, "key": self.key, "value": self.value, "output": self.output}
        self.adapters = lora.adapters(weights, finetune, run.placement, rngs)
        self.run = run

    def project(self, x: jax.Array, rotation: attention.Rotation) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x [B, T, D] -> rotated query [B, T, N, H], rotated key [B, T, K, H], value [B, T, K, H]."""
        query = jnp.einsum("BTD,DNH->BTNH", x, self.query[...].astype(x.dtype))
        key = jnp.einsum("BTD,DKH->BTKH", x, self.key[...].astype(x.dtype))
        value = jnp.einsum("BTD,DKH->BTKH", x, self.value[...].astype(x.dtype))
        query, key, value = (
            self.adapters.add(name, x, each) for name, each in (("query", query), ("key", key), ("value", value))
        )
        query, key = attention.rotate(query, rotation), attention.rotate(key, rotation)
        query = self.run.place(query, *QUERY_AXES)
        key, value = self.run.place(key, *KEY_AXES), self.run.place(value, *KEY_AXES)
        return checkpoint_name(query, _QKV), checkpoint_name(key, _QKV), checkpoint_name(value, _QKV)

    def merge(self, heads: jax.Array) -> jax.Array:
        """Attended heads [B, T, N, H] -> [B, T, D]."""
        merged = jnp.einsum("BTNH,NHD->BTD", heads, self.output[...].astype(heads.dtype))
        return self.run.place(self.adapters.add("output", heads, merged), *RESIDUAL_AXES)


class FeedForward(nnx.Module):
    """Gated feed-forward layer: down(silu(gate x) * up x)."""

    def __init__(self, config: ModelConfig, run: Execution, rngs: nnx.Rngs, finetune: FinetuneConfig | None = None):
        layers, width, hidden, std = config.num_layers, config.d_model, config.d_ff, config.init_std
        self.gate = _weight(rngs, (layers, width, hidden), ("layers", "embed", "ff"), std, run.param_dtype)
        self.up = _weight(rngs, (layers, width, hidden), ("layers", "embed", "ff"), std, run.param_dtype)
        self.down = _weight(rngs, (layers, hidden, width), ("layers", "ff", "embed"), std, run.param_dtype)
        weights = {"gate": self.gate, "up": self.up, "down": self.down}
        self.adapters = lora.adapters(weights, finetune, run.placement, rngs)
        self.run = run

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.adapters.add("gate", x, jnp.einsum("BTD,DF->BTF", x, self.gate[...].astype(x.dtype)))
        up = self.adapters.add("up", x, jnp.einsum("BTD,DF->BTF", x, self.up[...].astype(x.dtype)))
        hidden = self.run.place(jax.nn.silu(gate) * up, "batch", "length", "ff")
        down = jnp.einsum("BTF,FD->BTD", hidden, self.down[...].astype(x.dtype))
        return self.run.place(self.adapters.add("down", hidden, down), *RESIDUAL_AXES)


class Block(nnx.Module):
    """One decoder layer, or, before it is scanned, the stack of all."""

    def __init__(self, config: ModelConfig, run: Execution, rngs: nnx.Rngs, finetune: FinetuneConfig | None = None):
        norm_shape, norm_axes = (config.num_layers, config.d_model), ("layers", "norm")
        self.attention_norm = _scale(norm_shape, norm_axes, run.param_dtype)
        self.attention = Attention(config, run, rngs, finetune)
        self.feed_forward_norm = _scale(norm_shape, norm_axes, run.param_dtype)
        self.feed_forward = FeedForward(config, run, rngs, finetune)
        self.eps = config.rms_norm_eps

    def __call__(
        self,
        x: jax.Array,
        rotation: attention.Rotation,
        attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    ) -> jax.Array:
        """x [B, T, D] -> [B, T, D]; ``attend`` maps query, key, value of this layer to attended heads."""
        normed = rms_norm(x, self.attention_norm[...], self.eps)
        x = x + self.attention.merge(attend(*self.attention.project(normed, rotation)))
        return x + self.feed_forward(rms_norm(x, self.feed_forward_norm[...], self.eps))


class Llama(nnx.Module):
    """The decoder without its loss: token ids in, hidden states after the final norm out."""

    def __init__(self, config: ModelConfig, run: Execution, rngs: nnx.Rngs, finetune: FinetuneConfig | None = None):
        def table(rows: int) -> nnx.Param[Any]:
            return _weight(rngs, (rows, config.d_model), ("vocab", "embed"), config.init_std, run.param_dtype)

        self.rows_apart = finetune is not None and finetune.music_rows
        first_rows = config.text_vocab_size if self.rows_apart else config.padded_vocab_size
        self.embedding = table(first_rows)
        self.blocks = Block(config, run, rngs, finetune)
        self.final_norm = _scale((config.d_model,), ("norm",), run.param_dtype)
        if not config.tie_embeddings:
            self.head = table(first_rows)
        if self.rows_apart:
            self.music_embedding = table(config.padded_vocab_size - first_rows)
            if not config.tie_embeddings:
                self.music_head = table(config.padded_vocab_size - first_rows)
        self.config = config
        self.run = run

    def _embed(self, tokens: jax.Array) -> jax.Array:
        def look_up(table: nnx.Param[Any], rows: jax.Array) -> jax.Array:
            return jnp.take(table[...], rows, axis=0).astype(self.run.compute_dtype)

        if self.rows_apart:
            first = self.config.text_vocab_size
            text = look_up(self.embedding, jnp.minimum(tokens, first - 1))
            music = look_up(self.music_embedding, jnp.maximum(tokens - first, 0))
            embedded = jnp.where((tokens < first)[..., None], text, music)
        else:
            embedded = look_up(self.embedding, tokens)
        # Every device looks all rows of its fsdp group up in its own columns of the table; then rows and columns change
        # places. Tokens travel, and the table, which is larger, never does.
        embedded = self.run.place(embedded, "lookup_batch", "length", "embed")
        return self.run.place(embedded, *RESIDUAL_AXES)

    def __call__(self, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """Hidden states of packed rows.

        Args:
            tokens: int32 [B, T].
            positions: int32 [B, T], restarting at every segment.
            segment_ids: int32 [B, T]; attention stays inside a segment, 0 is padding.

        Returns:
            [B, T, D] in the compute dtype.
        """
        rotation = attention.rotation(positions, self.config)
        definition, stacked = nnx.split(self.blocks)

        def layer(x: jax.Array, weights: Any) -> tuple[jax.Array, None]:
            block = nnx.merge(definition, weights)
            return block(x, rotation, lambda q, k, v: self.run.attend(q, k, v, segment_ids)), None

        if self.run.remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT_POLICIES[self.run.remat], prevent_cse=False)
        x, _ = jax.lax.scan(layer, self._embed(tokens), stacked)
        return rms_norm(x, self.final_norm[...], self.config.rms_norm_eps)


@dataclasses.dataclass(frozen=True)
class Definition:
    """The decoder taken apart: hashable, so that it can be a static argument of a jitted function."""

    config: ModelConfig
    run: Execution
    finetune: FinetuneConfig | None = None

    def _module(self, key: jax.Array | None = None) -> Llama:
        rngs = nnx.Rngs(params=jax.random.key(0) if key is None else key)
        return Llama(self.config, self.run, rngs, self.finetune)

    def init(self, key: jax.Array) -> Params:
        """Fresh weights as a nested dict of arrays; jit this under out_shardings for a large model."""
        return nnx.to_pure_dict(nnx.state(self._module(key)))

    def abstract(self) -> Params:
        """The parameter tree as jax.ShapeDtypeStruct, without memory."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def logical_axes(self) -> Params:
        """The parameter tree with each weight's tuple of logical axis names."""
        state = nnx.state(nnx.eval_shape(self._module))
        flat = {path: variable.get_metadata("logical_axes") for path, variable in nnx.to_flat_state(state)}
        return nnx.traversals.unflatten_mapping(flat)

    def _bind(self, params: Params) -> Llama:
        module = nnx.eval_shape(self._module)
        nnx.update(module, params)
        return module

    def forward(self, params: Params, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """:meth:`Llama.__call__` as a pure function of the parameters."""
        return self._bind(params)(tokens, positions, segment_ids)


def head_table(params: Params) -> jax.Array:
    """The output head [V, D]: the embedding table itself when tied."""
    (table,) = head_tables(params)
    return table


def head_tables(params: Params) -> tuple[jax.Array, ...]:
    """The output head, or, where a finetuning keeps them apart, its text rows and its music rows."""
    name = "head" if "head" in params else "embedding"
    return tuple(params[each] for each in (name, MUSIC + name) if each in params)


def parameter_count(config: ModelConfig) -> int:
    """Parameters as released, without the table's padding rows."""
    attention_size = config.d_model * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    layer = attention_size + 3 * config.d_model * config.d_ff + 2 * config.d_model
    tables = 1 if config.tie_embeddings else 2
    return tables * config.vocab_size * config.d_model + config.num_layers * layer + config.d_model
