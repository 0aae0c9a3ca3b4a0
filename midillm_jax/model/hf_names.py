"""Hugging Face's names of a Llama's weights and ours: one table, read in both directions.

Letters are those of model/llama.py: D model width, N query heads, K key/value heads, H head width, F feed-forward
width, V vocabulary, L layers. PyTorch keeps a linear layer as [out, in] with its heads flattened.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from midillm_jax.config import ModelConfig

Params = dict[str, Any]
"""The tree of model/llama.py; leaves are numpy or jax arrays."""
TreePath = tuple[str, ...]
HEAD = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight under both names. Letters are those of model/llama.py; ``theirs`` groups what they flatten."""

    name: str
    path: TreePath
    theirs: tuple[str, ...]
    ours: str

    @property
    def stacked(self) -> bool:
        """Whether we hold all layers of it in one array, with L in front."""
        return "{layer}" in self.name

    def to_ours(self, tensor: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
        """One tensor of theirs, as a view in our axes."""
        letters = "".join(self.theirs)
        return tensor.reshape([sizes[c] for c in letters]).transpose([letters.index(c) for c in self.ours])

    def to_theirs(self, array: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
        """One array of ours (without L), in their axes."""
        return array.transpose([self.ours.index(c) for c in "".join(self.theirs)]).reshape(self.shape(sizes))

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """Of the tensor in the file."""
        return tuple(math.prod(sizes[c] for c in group) for group in self.theirs)


_LAYER = "model.layers.{layer}."
WEIGHTS = (
    Weight("model.embed_tokens.weight", ("embedding",), ("V", "D"), "VD"),
    Weight(_LAYER + "input_layernorm.weight", ("blocks", "attention_norm"), ("D",), "D"),
    Weight(_LAYER + "self_attn.q_proj.weight", ("blocks", "attention", "query"), ("NH", "D"), "DNH"),
    Weight(_LAYER + "self_attn.k_proj.weight", ("blocks", "attention", "key"), ("KH", "D"), "DKH"),
    Weight(_LAYER + "self_attn.v_proj.weight", ("blocks", "attention", "value"), ("KH", "D"), "DKH"),
    Weight(_LAYER + "self_attn.o_proj.weight", ("blocks", "attention", "output"), ("D", "NH"), "NHD"),
    Weight(_LAYER + "post_attention_layernorm.weight", ("blocks", "feed_forward_norm"), ("D",), "D"),
    Weight(_LAYER + "mlp.gate_proj.weight", ("blocks", "feed_forward", "gate"), ("F", "D"), "DF"),
    Weight(_LAYER + "mlp.up_proj.weight", ("blocks", "feed_forward", "up"), ("F", "D"), "DF"),
    Weight(_LAYER + "mlp.down_proj.weight", ("blocks", "feed_forward", "down"), ("D", "F"), "FD"),
    Weight("model.norm.weight", ("final_norm",), ("D",), "D"),
    Weight(HEAD, ("head",), ("V", "D"), "VD"),
)


def sizes(config: ModelConfig) -> dict[str, int]:
    """What each letter stands for; V without padding rows, which no file holds."""
    return {
        "D": config.d_model,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
        "F": config.d_ff,
        "V": config.vocab_size,
    }


def weights(config: ModelConfig) -> Iterator[Weight]:
    """Rows of the table that this model has: a tied one has no head of its own."""
    return (weight for weight in WEIGHTS if weight.name != HEAD or not config.tie_embeddings)


def tensors(config: ModelConfig) -> Iterator[tuple[str, Weight, int | None]]:
    """Every tensor of the folder: its name, the weight it belongs to, the layer where it has one."""
    for weight in weights(config):
        if weight.stacked:
            for layer in range(config.num_layers):
                yield weight.name.format(layer=layer), weight, layer
        else:
            yield weight.name, weight, None


def our_shapes(config: ModelConfig) -> dict[TreePath, tuple[int, ...]]:
    """Path in our tree -> shape, for every weight."""
    padded = sizes(config) | {"V": config.padded_vocab_size}
    return {
        weight.path: ((config.num_layers,) if weight.stacked else ()) + tuple(padded[c] for c in weight.ours)
        for weight in weights(config)
    }


def nested(leaves: dict[TreePath, Any]) -> Params:
    """Path -> leaf, as the tree."""
    tree: Params = {}
    for path, leaf in leaves.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return tree


def flat(tree: Params, prefix: TreePath = ()) -> dict[TreePath, Any]:
    """The tree, as path -> leaf."""
    leaves: dict[TreePath, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value}
    return leaves
