import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import OptimizerConfig
from midillm_jax.training.optimizer import make_optimizer, schedule


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
    rule = make_optimizer(config, 10, axes)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    np.testing.assert_array_equal(updates["final_norm"], 0)
    np.testing.assert_array_equal(updates["embedding"], 0)
    np.testing.assert_allclose(updates["gate"], -0.5 * 0.1, rtol=1e-6)


def test_large_gradients_are_clipped_as_a_whole() -> None:
    axes = {"gate": ("layers", "embed", "ff"), "up": ("layers", "embed", "ff")}
    params = {name: jnp.zeros((1, 1, 1)) for name in axes}
    gradient = {"gate": jnp.full((1, 1, 1), 30.0), "up": jnp.full((1, 1, 1), 40.0)}
    rule = make_optimizer(OptimizerConfig(learning_rate=1.0, warmup_steps=0, clip_norm=5.0), 10, axes)
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
