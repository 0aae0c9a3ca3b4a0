"""Adapters beside the projections: where they are, how they begin, what they add."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import FinetuneConfig, ModelConfig
from midillm_jax.model import finetune, hf_names, sharding
from midillm_jax.model.llama import INFERENCE, REMAT_POLICIES, Definition, Execution, Params
from midillm_jax.model.lora import adapter_count

LORA = FinetuneConfig(lora_rank=4, lora_alpha=6.0, music_rows=False)
TOKENS = np.random.default_rng(0).integers(0, 100, (2, 12)).astype(np.int32)
POSITIONS = np.tile(np.arange(12, dtype=np.int32), (2, 1))


def hidden(definition: Definition, params: Params) -> jax.Array:
    return definition.forward(params, jnp.asarray(TOKENS), jnp.asarray(POSITIONS), jnp.ones_like(POSITIONS))


def stirred(params: Params) -> Params:
    """The same weights with adapters as training leaves them: no B is zero."""
    rng = np.random.default_rng(5)
    flat = hf_names.flat(params)
    drawn = {path: 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in flat.items() if "b" in path}
    return hf_names.nested(flat | drawn)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapted_model_begins_as_its_base_to_the_bit(tiny_model: ModelConfig, dtype: str) -> None:
    run = Execution("float32", dtype, "none")
    base = Definition(tiny_model, run).init(jax.random.key(0))
    adapted = Definition(tiny_model, run, LORA)
    params = finetune.join(adapted.init(jax.random.key(1)), base)
    assert not np.array_equal(hidden(adapted, stirred(params)), hidden(adapted, params)), "adapters do nothing"
    np.testing.assert_array_equal(hidden(adapted, params), hidden(Definition(tiny_model, run), base))


def test_a_is_normal_of_one_over_its_inputs_and_b_is_zero(tiny_model: ModelConfig) -> None:
    wide = dataclasses.replace(tiny_model, d_model=256, d_ff=512)
    params = Definition(wide, INFERENCE, dataclasses.replace(LORA, lora_rank=32)).init(jax.random.key(0))
    inputs = {"output": wide.num_heads * wide.head_dim, "down": wide.d_ff}
    for part in ("attention", "feed_forward"):
        for name, adapter in params["blocks"][part]["adapters"].items():
            assert not np.any(adapter["b"]), name
            # 3 layers x 96 inputs x 32 or more numbers: the deviation of the deviation is below one in a hundred.
            assert np.std(adapter["a"]) == pytest.approx(inputs.get(name, 256) ** -0.5, rel=0.05), name


def test_only_the_chosen_projections_have_adapters(tiny_model: ModelConfig) -> None:
    few = dataclasses.replace(LORA, lora_projections=("query", "down"))
    blocks = Definition(tiny_model, INFERENCE, few).abstract()["blocks"]
    assert blocks["attention"]["adapters"].keys() == {"query"}
    assert blocks["feed_forward"]["adapters"].keys() == {"down"}
    none = dataclasses.replace(LORA, lora_rank=0, music_rows=True)
    assert "adapters" not in Definition(tiny_model, INFERENCE, none).abstract()["blocks"]["attention"]


def test_shapes_follow_the_weights_and_are_counted(tiny_model: ModelConfig) -> None:
    adapted = Definition(tiny_model, INFERENCE, LORA)
    attention = adapted.abstract()["blocks"]["attention"]
    assert attention["adapters"]["output"]["a"].shape == (3, 6, 16, 4)
    assert attention["adapters"]["output"]["b"].shape == (3, 4, 48)
    assert attention["adapters"]["key"]["b"].shape == (3, 4, 2, 16)
    trained, _ = finetune.split(adapted.abstract(), LORA)
    assert sum(leaf.size for leaf in jax.tree.leaves(trained)) == 3 * adapter_count(tiny_model, LORA)


def test_an_adapter_lies_where_its_weight_lies(tiny_model: ModelConfig) -> None:
    adapted = Definition(tiny_model, INFERENCE, LORA)
    mesh = jax.sharding.AbstractMesh((1, 1, 4, 2), sharding.AXES)
    placed = sharding.weight_shardings(mesh, adapted.abstract(), adapted.logical_axes())["blocks"]["attention"]
    for name in ("query", "key", "value", "output"):
        whole, adapter = placed[name].spec, placed["adapters"][name]
        assert (*adapter["a"].spec[:-1], *adapter["b"].spec[2:]) == tuple(whole)
        assert adapter["a"].spec[-1] is adapter["b"].spec[1] is None


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_what_is_kept_changes_no_gradient(tiny_model: ModelConfig, policy: str) -> None:
    params = stirred(Definition(tiny_model, INFERENCE, LORA).init(jax.random.key(0)))
    trained, frozen = finetune.split(params, LORA)

    def gradient(remat: str) -> Params:
        definition = Definition(tiny_model, Execution("float32", "float32", remat), LORA)
        weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 48)), jnp.float32)
        return jax.grad(lambda some: jnp.sum(weights * hidden(definition, finetune.join(some, frozen))))(trained)

    for one, other in zip(jax.tree.leaves(gradient(policy)), jax.tree.leaves(gradient("none")), strict=True):
        assert np.linalg.norm(one) > 0
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)
