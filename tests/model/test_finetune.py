"""The tree of a finetuning: what trains, what is frozen, and the plain weights that compute the same."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import FinetuneConfig, ModelConfig
from midillm_jax.model import finetune, hf_names
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table, head_tables, parameter_count

EPSILON = 2.0**-24
"""Relative error of one rounding in float32."""

CHANGES = {
    "adapters": FinetuneConfig(lora_rank=4, lora_alpha=6.0, music_rows=False),
    "both": FinetuneConfig(lora_rank=4, lora_alpha=6.0, lora_projections=("value", "output", "up")),
    "rows": FinetuneConfig(lora_rank=0, lora_alpha=1.0),
}


@pytest.fixture(params=CHANGES)
def changes(request: pytest.FixtureRequest) -> FinetuneConfig:
    return CHANGES[request.param]


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest, tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny_model, tie_embeddings=request.param)


def weights(definition: Definition) -> Params:
    """Weights of which every one matters, adapters and norms included."""
    rng = np.random.default_rng(3)

    def stir(path: Any, leaf: Any) -> np.ndarray:
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return 1 + 0.3 * noise if "norm" in jax.tree_util.keystr(path) else 0.15 * noise

    return jax.tree_util.tree_map_with_path(stir, definition.abstract())


def logits(definition: Definition, params: Params) -> np.ndarray:
    """Of text and music, over all real rows, [2, 40, V]."""
    size = definition.config.vocab_size
    tokens = np.random.default_rng(1).integers(0, size, (2, 40)).astype(np.int32)
    tokens[:, ::3] %= definition.config.text_vocab_size
    positions = jnp.tile(jnp.arange(40), (2, 1))
    with jax.default_matmul_precision("highest"):
        hidden = definition.forward(params, jnp.asarray(tokens), positions, jnp.ones_like(positions))
        return np.asarray(hidden @ jnp.concatenate(head_tables(params)).T)[..., :size]


def test_merged_weights_compute_what_adapters_and_rows_compute(model: ModelConfig, changes: FinetuneConfig) -> None:
    apart = Definition(model, INFERENCE, changes)
    params = weights(apart)
    plain = finetune.merged(params, changes)
    whole = Definition(model, INFERENCE)
    assert jax.tree.map(lambda leaf: leaf.shape, plain) == jax.tree.map(lambda leaf: leaf.shape, whole.abstract())
    adapted = logits(apart, params)
    # A sum of n products is off by n roundings at most, and by about sqrt(n) of them. Merging changes how the four
    # products on a token's way through each layer are summed; the longest has d_ff terms. Norms keep each layer's error
    # as large, relatively, as it was.
    tolerance = 4 * model.num_layers * np.sqrt(model.d_ff) * EPSILON
    difference = np.linalg.norm(adapted - logits(whole, plain)) / np.linalg.norm(adapted)
    assert difference <= tolerance
    # Without the adapters it would be far off.
    if changes.lora_rank:
        flat = hf_names.flat(params)
        without = {path: np.zeros_like(leaf) if path[-1] == "b" else leaf for path, leaf in flat.items()}
        off = np.linalg.norm(adapted - logits(apart, hf_names.nested(without))) / np.linalg.norm(adapted)
        assert off > 1000 * tolerance


def test_a_base_comes_back_from_its_parts_to_the_bit(model: ModelConfig, changes: FinetuneConfig) -> None:
    base = weights(Definition(model, INFERENCE))
    tree = finetune.from_base(base, model, changes)
    fresh = Definition(model, INFERENCE, changes).init(jax.random.key(0))
    params = finetune.join(fresh, tree)
    assert jax.tree.structure(params) == jax.tree.structure(fresh)
    again = finetune.merged(params, changes)
    jax.tree.map(np.testing.assert_array_equal, again, base)


def test_split_leaves_adapters_and_music_rows_to_train(model: ModelConfig, changes: FinetuneConfig) -> None:
    tree = Definition(model, INFERENCE, changes).abstract()
    trained, frozen = finetune.split(tree, changes)
    assert finetune.join(trained, frozen) == tree
    tables = {"music_embedding"} | (set() if model.tie_embeddings else {"music_head"})
    assert {name for name in trained if name != "blocks"} == (tables if changes.music_rows else set())
    inside = [path for path in hf_names.flat(trained) if path[0] == "blocks"]
    assert all(path[2] == "adapters" for path in inside)
    assert {path[3] for path in inside} == (set(changes.lora_projections) if changes.lora_rank else set())
    rows = model.text_vocab_size if changes.music_rows else model.padded_vocab_size
    assert frozen["embedding"].shape == (rows, model.d_model)


def test_without_a_finetuning_everything_trains(tiny_model: ModelConfig) -> None:
    tree = Definition(tiny_model, INFERENCE).abstract()
    assert finetune.split(tree, None) == (tree, {})
    assert finetune.trained_count(tiny_model, None) == parameter_count(tiny_model)
    assert finetune.described_parameters(tiny_model, None) == f"{parameter_count(tiny_model):,} parameters"


def test_what_trains_is_counted_without_padding_rows(model: ModelConfig, changes: FinetuneConfig) -> None:
    trained, frozen = finetune.split(Definition(model, INFERENCE, changes).abstract(), changes)
    padding = (model.padded_vocab_size - model.vocab_size) * model.d_model * (1 if model.tie_embeddings else 2)
    size, rest = (sum(leaf.size for leaf in jax.tree.leaves(part)) for part in (trained, frozen))
    count = finetune.trained_count(model, changes)
    assert count == size - (padding if changes.music_rows else 0)
    total = size + rest - padding
    assert finetune.described_parameters(model, changes) == f"{total:,} parameters, {count:,} of them train"


def test_a_head_in_two_parts_is_no_whole_table(tiny_model: ModelConfig) -> None:
    params = Definition(tiny_model, INFERENCE, CHANGES["rows"]).abstract()
    assert [table.shape[0] for table in head_tables(params)] == [100, tiny_model.padded_vocab_size - 100]
    with pytest.raises(ValueError, match="too many values"):
        head_table(params)
