"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) beside the projections of every layer.

A projection W maps x to x W, and with an adapter to x W + (alpha / R) (x A) B. A begins normal and B zero, so that an
adapted model begins as its base. Letters are those of model/llama.py; R is the rank.
"""

import math
import typing
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from midillm_jax.config import FinetuneConfig, ModelConfig, Projection
from midillm_jax.model.sharding import Placement

INPUT_AXES = {name: 2 if name == "output" else 1 for name in typing.get_args(Projection)}
"""Axes of each projection's weight, after L, that its input has too: N and H of the attention's output, else one."""


class Adapter(nnx.Module):
    """The adapter of one projection; the parameters carry the layer axis, the call sees one layer.

    Attributes:
        a: [L, *inputs, R], normal with variance 1 / inputs, which makes x A as large as x.
        b: [L, R, *outputs], zero.
    """

    def __init__(
        self,
        weight: nnx.Param[Any],
        input_axes: int,
        finetune: FinetuneConfig,
        placement: Placement | None,
        rngs: nnx.Rngs,
    ):
        """``weight`` [L, *inputs, *outputs] gives shapes, logical axes and dtype."""
        cut, rank = 1 + input_axes, finetune.lora_rank
        shape, axes, dtype = weight.shape, weight.get_metadata("logical_axes"), weight.dtype
        drawn = jax.random.normal(rngs.params(), (*shape[:cut], rank)) / math.sqrt(math.prod(shape[1:cut]))
        self.a = nnx.Param(drawn.astype(dtype), logical_axes=(*axes[:cut], "rank"))
        zeros = jnp.zeros((shape[0], rank, *shape[cut:]), dtype)
        self.b = nnx.Param(zeros, logical_axes=(axes[0], "rank", *axes[cut:]))
        self.input_axes = input_axes
        self.scale = finetune.lora_scale
        self.placement = placement

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, T, *inputs] -> what is to be added to its projection, [B, T, *outputs]."""
        lowered = self.scale * jnp.tensordot(x, self.a[...].astype(x.dtype), self.input_axes)
        if self.placement is not None:
            lowered = self.placement.constrain(lowered, ("batch", "length", "rank"))
        return jnp.tensordot(lowered, self.b[...].astype(x.dtype), 1)


class Adapters(nnx.Dict[Adapter]):
    """The adapters of one part of a layer, by the name of their projection."""

    def add(self, name: str, x: jax.Array, projected: jax.Array) -> jax.Array:
        """``projected``, which is x through the projection, with its adapter's part if it has one."""
        return projected + self[name](x) if name in self else projected


def adapters(
    weights: dict[str, nnx.Param[Any]],
    finetune: FinetuneConfig | None,
    placement: Placement | None,
    rngs: nnx.Rngs,
) -> Adapters:
    """An adapter beside each of the weights that the config names; none without a rank."""
    if finetune is None or not finetune.lora_rank:
        return Adapters()
    return Adapters(
        {
            name: Adapter(weight, INPUT_AXES[name], finetune, placement, rngs)
            for name, weight in weights.items()
            if name in finetune.lora_projections
        }
    )


def adapter_count(model: ModelConfig, finetune: FinetuneConfig) -> int:
    """Numbers in the adapters of one layer: R (inputs + outputs) for each."""
    width, hidden = model.d_model, model.d_ff
    heads, kv_heads = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    both = {
        "query": width + heads,
        "key": width + kv_heads,
        "value": width + kv_heads,
        "output": heads + width,
        "gate": width + hidden,
        "up": width + hidden,
        "down": hidden + width,
    }
    return finetune.lora_rank * sum(both[name] for name in finetune.lora_projections)
