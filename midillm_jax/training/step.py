"""The train step and the evaluation step, as pure functions of (state, batch) for jax.jit with NamedSharding."""

import dataclasses
import functools
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from midillm_jax.config import Config
from midillm_jax.errors import UserError
from midillm_jax.model import attention, finetune, sharding
from midillm_jax.model.llama import Definition, Execution, Params, head_tables
from midillm_jax.training import guard, hosts
from midillm_jax.training import loss as losses
from midillm_jax.training.optimizer import apply_gradient, make_optimizer, schedule

FROZEN = "frozen"
State = dict[str, Any]
"""``params``, which train, ``frozen``, which a finetuning leaves as they are, ``optimizer`` (optax state) and ``guard``
(guard.GuardState): an ordinary tree."""

DEVICE_FIELDS: dict[str, type[np.generic]] = {
    "tokens": np.int32,
    "segment_ids": np.int32,
    "positions": np.int32,
    "loss_weights": np.float32,
    "slot": np.int8,
}
"""Fields of a batch (data/batches.py makes them) that go to devices, and their types."""


@dataclasses.dataclass(frozen=True)
class Training:
    """Everything a step needs that is not an array."""

    config: Config
    definition: Definition
    optimizer: optax.GradientTransformation
    mesh: Mesh
    layout: losses.Layout
    """Of one part of a batch; a batch is ``optimizer.accumulation_steps`` parts."""
    share: int
    """Which share of a batch's rows this process reads."""
    shares: int
    """One for each process, or for each group of processes whose devices hold the same rows."""


def make_training(config: Config, mesh: Mesh) -> Training:
    """Checks what has to fit together and builds the step's static part.

    Raises:
        UserError: rows of the batch that do not divide over the mesh and the accumulation steps, or an attention that
            does not run on the mesh.
    """
    run = Execution(
        config.param_dtype, config.compute_dtype, config.remat, _attention(config, mesh), sharding.Placement(mesh)
    )
    definition = Definition(config.model, run, config.finetune)
    parts = config.optimizer.accumulation_steps
    shards = sharding.batch_shards(mesh)
    share, shares = hosts.batch_share(mesh)
    for name, rows in (("text_rows", config.data.text_rows), ("music_rows", config.data.music_rows)):
        if rows % (parts * shards):
            raise UserError(
                f"data.{name}: {rows} rows do not divide into {parts} accumulation step(s) on {shards} batch "
                f"shard(s) of the mesh; choose a multiple of {parts * shards}."
            )
    return Training(
        config=config,
        definition=definition,
        optimizer=make_optimizer(
            config.optimizer,
            config.steps,
            finetune.split(definition.logical_axes(), config.finetune)[0],
            text_rows=config.model.text_vocab_size,
            param_dtype=config.param_dtype,
        ),
        mesh=mesh,
        layout=losses.Layout(shards, config.data.text_rows // parts, config.data.music_rows // parts),
        share=share,
        shares=shares,
    )


def _attention(config: Config, mesh: Mesh) -> Literal["dot", "cudnn", "splash"]:
    """The attention that ``config.attention`` means on this mesh, which may be of TPUs that are not here."""
    device = mesh.devices.flat[0]
    chosen, length = config.attention, config.data.row_length
    why_not = _why_not_cudnn(config, device)
    if chosen == "auto":
        chosen = "splash" if device.platform == "tpu" else "dot" if why_not else "cudnn"
    if chosen == "cudnn" and why_not:
        raise UserError(f"attention: cudnn {why_not}; use --attention dot.")
    if chosen == "splash" and device.platform != "tpu":
        raise UserError(
            f"attention: splash runs on TPUs, the mesh is of {device.platform} devices; use --attention dot."
        )
    if chosen == "splash" and length % attention.SPLASH_MULTIPLE:
        raise UserError(
            f"data.row_length: splash attention takes rows of a multiple of {attention.SPLASH_MULTIPLE} tokens, found "
            f"{length}; choose such a length, or --attention dot."
        )
    return chosen


def _why_not_cudnn(config: Config, device: Any) -> str:
    """What keeps cuDNN's attention from running, as the rest of a sentence; empty if nothing does."""
    capability = re.fullmatch(r"(\d+)\.\d+", str(getattr(device, "compute_capability", "")))
    if device.platform != "gpu" or not capability:
        return f"runs on NVIDIA GPUs, the mesh is of {device.platform} devices"
    if int(capability[1]) < 8:
        return f"needs compute capability 8.0, this GPU has {capability[0]}"
    if config.compute_dtype != "bfloat16":
        return f"computes in bfloat16, compute_dtype is {config.compute_dtype}"
    if config.data.row_length % 2 or config.model.head_dim % 8 or config.model.head_dim > 128:
        return (
            f"takes rows of even length and heads of a multiple of 8 up to 128, found {config.data.row_length} and "
            f"{config.model.head_dim}"
        )
    return ""


def state_shardings(training: Training) -> State:
    """NamedShardings of the whole state; optimiser moments lie where their weights lie."""
    definition = training.definition
    shapes = jax.eval_shape(lambda: init_state(training, definition.init(jax.random.key(0))))
    placed = sharding.weight_shardings(training.mesh, weights_of(shapes), definition.logical_axes())
    weights, frozen = finetune.split(placed, definition.finetune)
    whole = sharding.replicated(training.mesh)
    moments = optax.tree.map_params(
        training.optimizer,
        lambda _, placed: placed,
        shapes["optimizer"],
        weights,
        transform_non_params=lambda _: whole,
    )
    return {
        "params": weights,
        FROZEN: frozen,
        "optimizer": moments,
        "guard": jax.tree.map(lambda _: whole, shapes["guard"]),
    }


def init_state(training: Training, params: Params) -> State:
    """The state before the first step, from all weights; the frozen ones in the compute dtype."""
    trained, frozen = finetune.split(params, training.config.finetune)
    frozen = jax.tree.map(lambda leaf: leaf.astype(training.config.compute_dtype), frozen)
    return {
        "params": trained,
        FROZEN: frozen,
        "optimizer": training.optimizer.init(trained),
        "guard": guard.fresh(),
    }


def weights_of(state: State) -> Params:
    """All weights of a state: those that train and those that are frozen."""
    return finetune.join(state["params"], state[FROZEN])


def _sums(training: Training, params: Params, batch: losses.Batch) -> dict[str, jax.Array]:
    config = training.config
    hidden = training.definition.forward(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    placement = training.definition.run.placement
    table, *music_table = head_tables(params)
    per_token = losses.batch_losses(
        hidden, table, batch, config.model, config.loss, training.layout, placement, *music_table
    )
    return losses.sums(*per_token, batch, config.model)


def train_step(training: Training, state: State, batch: losses.Batch) -> tuple[State, dict[str, jax.Array]]:
    """One update.

    Args:
        state: donated by the caller.
        batch: fields [parts, rows, T]; the gradient is that of the whole batch: the weighted sum over all
            parts divided by the sum of all weights.

    Returns:
        the new state and the batch's sums with ``gradient_norm`` (before clipping), ``learning_rate`` and ``applied``:
        0 where the guard refused the step, whose state is the old one.
    """
    total_weight = jnp.maximum(jnp.sum(batch["loss_weights"]), 1.0)

    def part_loss(trained: Params, part: losses.Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        sums = _sums(training, finetune.join(trained, state[FROZEN]), part)
        return sums["objective"] / total_weight, sums

    gradient_of = jax.grad(part_loss, has_aux=True)
    if batch["tokens"].shape[0] == 1:
        gradient, sums = gradient_of(state["params"], {name: field[0] for name, field in batch.items()})
    else:

        def add(carry: Any, part: losses.Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, carry, gradient_of(state["params"], part)), None

        first = {name: field[0] for name, field in batch.items()}
        # In float32 whatever the parameters are: small parts must not get lost in a large sum.
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, jnp.float32), jax.eval_shape(gradient_of, state["params"], first)
        )
        (gradient, sums), _ = jax.lax.scan(add, zeros, batch)
    params, optimizer_state = apply_gradient(training.optimizer, gradient, state["optimizer"], state["params"])
    norm = optax.tree.norm(gradient)
    applied = guard.accepts(training.config.guard, state["guard"], sums["objective"], norm)
    new = {"params": params, "optimizer": optimizer_state, "guard": guard.updated(state["guard"], norm)}
    sums |= {
        "gradient_norm": norm,
        "learning_rate": schedule(training.config.optimizer, training.config.steps)(state["guard"].applied),
        "applied": applied.astype(jnp.float32),
    }
    old = {name: state[name] for name in new}
    new = jax.tree.map(lambda after, before: jnp.where(applied, after, before), new, old)
    return new | {FROZEN: state[FROZEN]}, sums


TPU_OPTIONS = {
    # Gathered whole, weights are multiplied once. In the windows that XLA prefers for large products, partial sums pass
    # through memory again and again; what that costs is in docs/scaling.md. Above this many MiB, that is never.
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
}
"""Options of the compiler for TPUs."""


def jit_train_step(training: Training) -> Any:
    """:func:`train_step` as a run and ``--compile-only`` compile it: the state is donated and stays in its place."""
    on_tpu = training.mesh.devices.flat[0].platform == "tpu"
    return jax.jit(
        functools.partial(train_step, training),
        donate_argnums=0,
        out_shardings=(state_shardings(training), sharding.replicated(training.mesh)),
        compiler_options=TPU_OPTIONS if on_tpu else None,
    )


def eval_step(training: Training, params: Params, batch: losses.Batch) -> dict[str, jax.Array]:
    """Sums of a batch [parts, rows, T] without an update."""
    parts = jax.lax.map(lambda part: _sums(training, params, part), batch)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)


def place(training: Training, batch: dict[str, np.ndarray]) -> losses.Batch:
    """Moves this host's rows to its devices as global arrays [parts, rows, T].

    Rows come text first, then music. Each device shard of each part gets its share of both, so that telling
    them apart in the loss moves no data.
    """
    parts = training.config.optimizer.accumulation_steps
    text_rows = training.config.data.text_rows // training.shares
    local_shards = training.layout.shards // training.shares
    target = jax.sharding.NamedSharding(training.mesh, jax.sharding.PartitionSpec(None, sharding.BATCH_AXES))

    def one(field: np.ndarray) -> jax.Array:
        kinds = [
            rows.reshape(parts, local_shards, -1, rows.shape[-1]) for rows in (field[:text_rows], field[text_rows:])
        ]
        ordered = np.concatenate(kinds, axis=2).reshape(parts, -1, field.shape[-1])
        return jax.make_array_from_process_local_data(target, ordered)

    return {name: one(batch[name]) for name in DEVICE_FIELDS}
