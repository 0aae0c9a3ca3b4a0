"""The parameter tree of a finetuning: what trains, what is frozen, and how both become plain weights again.

To the tree of model/llama.py a config's ``finetune`` adds an adapter (model/lora.py) beside each chosen projection and,
if the music rows train, cuts the tables in two, so that what is frozen and what trains are different leaves::

    blocks.attention.adapters.query.a [L, D, R]       embedding [text rows, D]
    blocks.attention.adapters.query.b [L, R, N, H]    music_embedding [V - text rows, D], padding rows included
    blocks.feed_forward.adapters.up.a [L, D, R] ...   head, music_head alike (only when untied)
"""

from typing import Any

import numpy as np

from midillm_jax.config import FinetuneConfig, ModelConfig
from midillm_jax.model import hf_names
from midillm_jax.model.llama import MUSIC, Params, parameter_count
from midillm_jax.model.lora import adapter_count

_TABLES = ("embedding", "head")


def split(tree: Params, finetune: FinetuneConfig | None) -> tuple[Params, Params]:
    """A tree of weights, or of anything that there is one of for each, as what trains and what is frozen."""
    if finetune is None:
        return tree, {}
    flat = hf_names.flat(tree)
    trains = {path for path in flat if "adapters" in path or path[0].startswith(MUSIC)}
    return (
        hf_names.nested({path: leaf for path, leaf in flat.items() if path in trains}),
        hf_names.nested({path: leaf for path, leaf in flat.items() if path not in trains}),
    )


def join(trained: Params, frozen: Params) -> Params:
    """The inverse of :func:`split`."""
    return hf_names.nested(hf_names.flat(trained) | hf_names.flat(frozen))


def from_base(base: Params, model: ModelConfig, finetune: FinetuneConfig) -> Params:
    """The plain weights of a base as the tree of a finetuning, which still lacks its adapters.

    ``base`` may be a text model without music rows; then those of the result are too few.
    """
    tree = dict(base)
    for name in _TABLES:
        if name in base and finetune.music_rows:
            tree[name] = base[name][: model.text_vocab_size]
            tree[MUSIC + name] = base[name][model.text_vocab_size :]
    return tree


def adapter_path(weight: hf_names.TreePath) -> hf_names.TreePath:
    """Where the adapter of a weight is: the parent of its ``a`` and ``b``."""
    return (*weight[:-1], "adapters", weight[-1])


def merged(params: Params, finetune: FinetuneConfig | None, xp: Any = np) -> Params:
    """Plain weights that compute what base, adapters and music rows compute together.

    W becomes W + (alpha / R) A B, computed in float32, in W's type. Without a finetuning, ``params`` itself.

    Args:
        xp: ``numpy`` for arrays on the host, ``jax.numpy`` inside jit.
    """
    if finetune is None:
        return params
    flat = hf_names.flat(params)
    _, frozen = split(params, finetune)
    plain = {path: xp.asarray(leaf) for path, leaf in hf_names.flat(frozen).items()}
    for path, weight in plain.items():
        if path[0] in _TABLES and finetune.music_rows:
            music = xp.asarray(flat[(MUSIC + path[0],)])
            plain[path] = xp.concatenate([weight, music.astype(weight.dtype)])
        adapter = adapter_path(path)
        if (*adapter, "a") in flat:
            a, b = (xp.asarray(flat[(*adapter, name)], np.float32) for name in "ab")
            layers, rank = a.shape[0], a.shape[-1]
            # [L, inputs, R] by [L, R, outputs]
            product = xp.matmul(a.reshape(layers, -1, rank), finetune.lora_scale * b.reshape(layers, rank, -1))
            plain[path] = (weight.astype(np.float32) + product.reshape(weight.shape)).astype(weight.dtype)
    return hf_names.nested(plain)


def trained_count(model: ModelConfig, finetune: FinetuneConfig | None) -> int:
    """Parameters that train, without the tables' padding rows."""
    if finetune is None:
        return parameter_count(model)
    tables = 1 if model.tie_embeddings else 2
    rows = tables * model.music_vocab_size * model.d_model if finetune.music_rows else 0
    return model.num_layers * adapter_count(model, finetune) + rows


def described_parameters(model: ModelConfig, finetune: FinetuneConfig | None) -> str:
    """How many parameters there are, and how many train where that is not all of them."""
    adapters = model.num_layers * adapter_count(model, finetune) if finetune is not None else 0
    total = f"{parameter_count(model) + adapters:,} parameters"
    return total if finetune is None else f"{total}, {trained_count(model, finetune):,} of them train"
