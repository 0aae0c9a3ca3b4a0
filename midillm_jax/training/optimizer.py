"""AdamW (arXiv 1711.05101) with warm-up, cosine decay and clipping, from optax; what it does to text rows and types."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from midillm_jax.config import OptimizerConfig

UNDECAYED_AXES = ("norm", "vocab")
"""Weights with one of these logical axes (norm scales, embedding rows) are not decayed."""


class MasterState(NamedTuple):
    """State of a rule whose updates add up in float32 while the parameters are bfloat16."""

    master: Any
    """The parameters' tree in float32; they are its rounding."""
    rule: Any
    """State of the rule that updates it."""


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: 0 to the peak over warmup_steps, then a cosine to the final share at ``steps``."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.final_learning_rate_share,
    )


def make_optimizer(
    config: OptimizerConfig, steps: int, logical_axes: Any, *, text_rows: int, param_dtype: str
) -> optax.GradientTransformation:
    """The update rule of a run; :func:`apply_gradient` applies it.

    Args:
        logical_axes: tree of tuples (model.llama.Definition.logical_axes) that says what each weight is.
        text_rows: rows at the beginning of each table that ``text_rows_learning_rate_share`` is about.
        param_dtype: of the parameters.
    """

    def axes_hold(names: tuple[str, ...]) -> Any:
        return jax.tree.map(
            lambda axes: bool(set(axes) & set(names)), logical_axes, is_leaf=lambda leaf: isinstance(leaf, tuple)
        )

    rule = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            mu_dtype=config.moment_dtype,
            weight_decay=config.weight_decay,
            mask=jax.tree.map(lambda undecayed: not undecayed, axes_hold(UNDECAYED_AXES)),
        ),
    )
    share = config.text_rows_learning_rate_share
    if share != 1:
        rule = _with_slow_text_rows(rule, share, text_rows, axes_hold(("vocab",)))
    return _with_master(rule) if config.master_weights and param_dtype != "float32" else rule


def _with_slow_text_rows(
    rule: optax.GradientTransformation, share: float, text_rows: int, tables: Any
) -> optax.GradientTransformation:
    """``rule``, its updates of the text rows of the leaves that ``tables`` marks multiplied by ``share``.

    Its state is that of ``rule``, so that a run may go on with another share.
    """

    def scale(is_table: bool, leaf: jax.Array) -> jax.Array:
        if not is_table:
            return leaf
        is_text = jnp.arange(leaf.shape[0])[:, None] < text_rows
        # Minus zero added to a weight leaves every bit of it, the sign of a zero included.
        return jnp.where(is_text, leaf * share if share else -jnp.zeros_like(leaf), leaf)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if share == 0:
            # What is frozen has no say in the norm that the others are clipped to.
            gradient = jax.tree.map(scale, tables, gradient)
        updates, state = rule.update(gradient, state, params)
        return jax.tree.map(scale, tables, updates), state

    return optax.GradientTransformation(rule.init, update)


def _with_master(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """``rule`` on a float32 copy of the parameters; the updates are that copy's."""

    def init(params: Any) -> MasterState:
        master = optax.tree.cast(params, jnp.float32)
        return MasterState(master, rule.init(master))

    def update(gradient: Any, state: MasterState, params: Any = None) -> tuple[Any, MasterState]:
        updates, inner = rule.update(optax.tree.cast(gradient, jnp.float32), state.rule, state.master)
        return updates, MasterState(optax.apply_updates(state.master, updates), inner)

    return optax.GradientTransformation(init, update)


def apply_gradient(rule: optax.GradientTransformation, gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """The parameters and the optimizer's state after one update.

    Parameters with a master are its rounding, so that no update is lost in them; without one they are added to in
    their own type.
    """
    if isinstance(state, MasterState):
        _, state = rule.update(gradient, state, params)
        return jax.tree.map(lambda exact, old: exact.astype(old.dtype), state.master, params), state
    gradient = jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), gradient, params)
    updates, state = rule.update(gradient, state, params)
    return optax.apply_updates(params, updates), state
