"""What a model says comes next in a text, over its text rows, and how far that is from what another one says."""

import jax
import jax.numpy as jnp


def log_probabilities(states: jax.Array, table: jax.Array, text_rows: int) -> jax.Array:
    """Log-softmax over the text rows, float32 [P, text_rows]; music rows take no part.

    Args:
        states: [P, D], the states that predict; products are computed in its dtype and added up in float32.
        table: output head [V, D] whose first rows are the text's.
    """
    rows = table[:text_rows].astype(states.dtype)
    return jax.nn.log_softmax(jnp.einsum("PD,VD->PV", states, rows, preferred_element_type=jnp.float32))


def divergence(said: jax.Array, now: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of what was said from what is said now, in nats: float32 [P] of [P, V] each."""
    return jnp.sum(jnp.exp(said) * (said - now), axis=-1)
