"""The step's guard: an update that would do harm is not applied.

A batch is refused when its loss or the norm of its gradient is not finite, or when that norm is far above what it was
in the steps before. Nothing of such a step stays: not in the weights, not in the optimiser, not in the guard.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from midillm_jax.config import GuardConfig

_MEMORY = 0.99
"""Weight of the past in the running mean of gradient norms: about the last hundred steps count."""


class GuardState(NamedTuple):
    """Scalars that belong to a run's state."""

    applied: jax.Array
    """int32: steps that were applied."""
    mean_norm: jax.Array
    """float32: running mean of their gradient norms, not yet divided by its share of past steps (as in Adam)."""


def fresh() -> GuardState:
    """Before the first step."""
    return GuardState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))


def accepts(config: GuardConfig, state: GuardState, loss: jax.Array, norm: jax.Array) -> jax.Array:
    """Whether a step of this loss and gradient norm (before clipping) is to be applied, a boolean scalar."""
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    if config.spike_factor:
        usual = state.mean_norm / (1 - jnp.power(_MEMORY, jnp.maximum(state.applied, 1).astype(jnp.float32)))
        good &= (state.applied < config.after_steps) | (norm <= config.spike_factor * usual)
    return good


def updated(state: GuardState, norm: jax.Array) -> GuardState:
    """After a step that was applied."""
    return GuardState(state.applied + 1, _MEMORY * state.mean_norm + (1 - _MEMORY) * norm)
