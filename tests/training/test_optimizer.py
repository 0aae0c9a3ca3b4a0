import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from midillm_jax.config import ModelConfig, OptimizerConfig
from midillm_jax.model.llama import Definition, Execution
from midillm_jax.training.optimizer import MasterState, apply_gradient, make_optimizer, schedule

PLAIN = {"text_rows": 0, "param_dtype": "float32"}


def test_the_schedule_warms_up_and_decays_to_its_share() -> None:
    rate = schedule(OptimizerConfig(learning_rate=2e-3, warmup_steps=10, final_learning_rate_share=0.1), steps=110)
    assert rate(0) == 0
    assert rate(5) == pytest.approx(1e-3)
    assert rate(10) == pytest.approx(2e-3)
    # Half way down the cosine lies half way between peak and end.
    assert rate(60) == pytest.approx((2e-3 + 2e-4) / 2)
    assert rate(110) == pytest.approx(2e-4)


def test_norms_and_embedding_rows_are_not_decayed() -> None:
    axes = {"final_norm": ("norm",), "embedding": ("vocab", "embed"), "gate": ("layers", "embed", "ff")}
    params = {"final_norm": jnp.ones(4), "embedding": jnp.ones((6, 4)), "gate": jnp.ones((2, 4, 8))}
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=0, weight_decay=0.1)
    rule = make_optimizer(config, 10, axes, **PLAIN)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    np.testing.assert_array_equal(updates["final_norm"], 0)
    np.testing.assert_array_equal(updates["embedding"], 0)
    np.testing.assert_allclose(updates["gate"], -0.5 * 0.1, rtol=1e-6)


def test_large_gradients_are_clipped_as_a_whole() -> None:
    axes = {"gate": ("layers", "embed", "ff"), "up": ("layers", "embed", "ff")}
    params = {name: jnp.zeros((1, 1, 1)) for name in axes}
    gradient = {"gate": jnp.full((1, 1, 1), 30.0), "up": jnp.full((1, 1, 1), 40.0)}
    rule = make_optimizer(OptimizerConfig(learning_rate=1.0, warmup_steps=0, clip_norm=5.0), 10, axes, **PLAIN)
    _, state = rule.update(gradient, rule.init(params), params)
    # Adam's first moment is (1 - beta1) of the clipped gradient: 30 and 40 have norm 50, so a tenth is left.
    moment = optimizer_moment(state)
    assert float(moment["gate"][0, 0, 0]) == pytest.approx(0.1 * 3.0)
    assert float(moment["up"][0, 0, 0]) == pytest.approx(0.1 * 4.0)


def optimizer_moment(state: object) -> dict[str, jax.Array]:
    """The first moment, wherever optax's chain keeps it."""
    found = [
        leaf.mu for leaf in jax.tree.leaves(state, is_leaf=lambda leaf: hasattr(leaf, "mu")) if hasattr(leaf, "mu")
    ]
    assert len(found) == 1
    return found[0]


TEXT_ROWS = 3
AXES = {"embedding": ("vocab", "embed"), "head": ("vocab", "embed"), "gate": ("layers", "embed", "ff")}


def weights(dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Two tables of three text and four music rows, and a matrix; one text weight is minus zero."""
    keys = jax.random.split(jax.random.key(0), 3)
    made = {
        name: jax.random.normal(key, (7, 5) if "vocab" in AXES[name] else (2, 5, 8)).astype(dtype)
        for name, key in zip(AXES, keys, strict=True)
    }
    return made | {"embedding": made["embedding"].at[0, 0].set(-0.0)}


def trained(config: OptimizerConfig, params: Any, gradients: list[Any], text_rows: int = TEXT_ROWS) -> tuple[Any, Any]:
    """Parameters and state after one update for each gradient."""
    dtype = str(params["gate"].dtype)
    rule = make_optimizer(config, len(gradients), AXES, text_rows=text_rows, param_dtype=dtype)
    state, step = rule.init(params), jax.jit(functools.partial(apply_gradient, rule))
    for gradient in gradients:
        params, state = step(gradient, state, params)
    return params, state


def noise(params: Any, steps: int, scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(1)
    return [
        jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), params)
        for _ in range(steps)
    ]


FAST = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=1e9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_frozen_text_rows_keep_every_bit(dtype: Any) -> None:
    before = weights(dtype)
    config = dataclasses.replace(FAST, text_rows_learning_rate_share=0.0)
    after, _ = trained(config, before, noise(before, 5))
    for table in ("embedding", "head"):
        old, new = np.asarray(before[table]), np.asarray(after[table])
        assert new[:TEXT_ROWS].tobytes() == old[:TEXT_ROWS].tobytes()
        assert (new[TEXT_ROWS:] != old[TEXT_ROWS:]).all()
    assert (after["gate"] != before["gate"]).all()


def test_text_rows_move_by_their_share_of_the_learning_rate() -> None:
    before = weights()
    gradients = noise(before, 1)
    whole, _ = trained(FAST, before, gradients)
    slow, _ = trained(dataclasses.replace(FAST, text_rows_learning_rate_share=0.25), before, gradients)
    for table in ("embedding", "head"):
        moved, moved_slowly = whole[table] - before[table], slow[table] - before[table]
        np.testing.assert_allclose(moved_slowly[:TEXT_ROWS], 0.25 * moved[:TEXT_ROWS], atol=1e-6)
        np.testing.assert_allclose(moved_slowly[TEXT_ROWS:], moved[TEXT_ROWS:], atol=1e-7)
    np.testing.assert_allclose(slow["gate"], whole["gate"], atol=1e-7)


def test_frozen_rows_have_no_say_in_clipping() -> None:
    before = weights()
    config = dataclasses.replace(FAST, text_rows_learning_rate_share=0.0, clip_norm=1.0)
    gradient = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.01), before)  # of norm 0.12: not clipped
    loud = gradient | {"embedding": gradient["embedding"].at[:TEXT_ROWS].set(1e6)}
    for one, other in zip(
        jax.tree.leaves(trained(config, before, [gradient])),
        jax.tree.leaves(trained(config, before, [loud])),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_small_updates_add_up_in_the_master_and_are_lost_without() -> None:
    # A step of 1e-4 is far below bfloat16's spacing of 2**-8 under 1: each alone rounds away, fifty make 0.005.
    config = dataclasses.replace(FAST, learning_rate=1e-4, weight_decay=0.0, final_learning_rate_share=1.0)
    before = {name: jnp.ones_like(leaf) for name, leaf in weights(jnp.bfloat16).items()}
    gradients = [jax.tree.map(jnp.ones_like, before)] * 50
    with_master, state = trained(config, before, gradients)
    without, _ = trained(dataclasses.replace(config, master_weights=False), before, gradients)
    assert isinstance(state, MasterState)
    for name in before:
        np.testing.assert_allclose(state.master[name], 1 - 50e-4, rtol=1e-5)
        np.testing.assert_array_equal(with_master[name], state.master[name].astype(jnp.bfloat16))
        assert with_master[name].dtype == jnp.bfloat16
        np.testing.assert_array_equal(without[name], 1)


def test_the_master_takes_the_very_steps_of_float32_parameters() -> None:
    # The same gradients, exact in bfloat16: the master is then what float32 parameters would have become.
    low = weights(jnp.bfloat16)
    gradients = noise(low, 8)
    exact = optax.tree.cast(low, jnp.float32)
    params, _ = trained(FAST, exact, [optax.tree.cast(each, jnp.float32) for each in gradients])
    _, state = trained(FAST, low, gradients)
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(state.master), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("master", [True, False])
def test_types_of_the_state_are_those_of_the_config_and_stay(master: bool) -> None:
    config = dataclasses.replace(FAST, moment_dtype="bfloat16", master_weights=master)
    params = weights(jnp.bfloat16)
    _, state = trained(config, params, [])
    moved, later = trained(config, params, noise(params, 2))
    assert jax.tree.map(lambda leaf: leaf.dtype, later) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(optimizer_moment(later))} == {jnp.dtype("bfloat16")}
    moments = [
        leaf.nu for leaf in jax.tree.leaves(later, is_leaf=lambda leaf: hasattr(leaf, "nu")) if hasattr(leaf, "nu")
    ]
    assert {leaf.dtype for leaf in jax.tree.leaves(moments)} == {jnp.dtype("float32" if master else "bfloat16")}


def test_float32_parameters_need_no_master() -> None:
    assert not isinstance(trained(FAST, weights(), [])[1], MasterState)


def test_training_bfloat16_parameters_follows_float32_ones(tiny_model: ModelConfig) -> None:
    """Forty steps on one batch: the curve of losses with a master is that of float32, without it is not."""
    model = dataclasses.replace(tiny_model, music_vocab_size=0, num_layers=1)
    tokens = jax.random.randint(jax.random.key(1), (4, 32), 0, model.text_vocab_size)
    positions = jnp.tile(jnp.arange(32), (4, 1))

    def curve(dtype: str, master: bool) -> np.ndarray:
        definition = Definition(model, Execution(dtype, "float32", "none"))
        params = optax.tree.cast(
            Definition(model, Execution("bfloat16", "float32", "none")).init(jax.random.key(0)), dtype
        )
        config = OptimizerConfig(learning_rate=3e-5, warmup_steps=0, master_weights=master)
        rule = make_optimizer(config, 40, definition.logical_axes(), text_rows=0, param_dtype=dtype)

        def loss(params: Any) -> jax.Array:
            hidden = definition.forward(params, tokens, positions, jnp.ones_like(tokens))
            logits = (hidden @ params["embedding"].astype(hidden.dtype).T)[:, :-1, : model.text_vocab_size]
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))

        @jax.jit
        def step(params: Any, state: Any) -> tuple[Any, Any, jax.Array]:
            value, gradient = jax.value_and_grad(loss)(params)
            return *apply_gradient(rule, gradient, state, params), value

        state, losses = rule.init(params), []
        for _ in range(40):
            params, state, value = step(params, state)
            losses.append(float(value))
        return np.array(losses)

    exact = curve("float32", True)
    fall = exact[0] - exact[-1]
    assert fall > 0.02
    np.testing.assert_allclose(curve("bfloat16", True), exact, atol=0.1 * fall)
    assert np.abs(curve("bfloat16", False) - exact).max() > 0.25 * fall
