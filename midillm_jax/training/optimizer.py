"""AdamW (arXiv 1711.05101) with warm-up, cosine decay and clipping, from optax."""

from typing import Any

import jax
import optax

from midillm_jax.config import OptimizerConfig

UNDECAYED_AXES = ("norm", "vocab")
"""Weights with one of these logical axes (norm scales, embedding rows) are not decayed."""


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: 0 to the peak over warmup_steps, then a cosine to the final share at ``steps``."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.final_learning_rate_share,
    )


def make_optimizer(config: OptimizerConfig, steps: int, logical_axes: Any) -> optax.GradientTransformation:
    """The update rule of a run.

    Args:
        logical_axes: tree of tuples (model.llama.Definition.logical_axes) that says what each weight is.
    """
    decayed = jax.tree.map(
        lambda axes: not set(axes) & set(UNDECAYED_AXES), logical_axes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )
