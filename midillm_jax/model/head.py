"""The output head: hidden states and rows of the table become losses, without ever holding the whole logits.

A music token can be normalised over the rows its slot can hold instead of the whole table; which rows these are is
said here once, for the loss (training/loss.py) and for scores (evaluation/scorer.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.model.sharding import Axes, Placement
from midillm_jax.music import vocab

TILE = 128
"""Rows of a softmax are padded to a multiple of this, the width of a TPU's tile."""

HIDDEN_AXES = ("batch", "length", "width")
TABLE_AXES = ("vocab", "embed")
TOKEN_AXES = ("batch", "length")


class Span(NamedTuple):
    """Consecutive AMT ids."""

    start: int
    size: int


SLOT_SPANS: tuple[tuple[Span, ...], ...] = (
    (
        Span(vocab.ONSET_OFFSET, vocab.MAX_ONSET_TICKS),
        Span(vocab.CONTROL_OFFSET + vocab.ONSET_OFFSET, vocab.MAX_ONSET_TICKS),
        Span(vocab.SEPARATOR, 1),
    ),
    (
        Span(vocab.DURATION_OFFSET, vocab.MAX_DURATION_TICKS),
        Span(vocab.CONTROL_OFFSET + vocab.DURATION_OFFSET, vocab.MAX_DURATION_TICKS),
        Span(vocab.SEPARATOR, 1),
    ),
    (
        Span(vocab.NOTE_OFFSET, vocab.NOTES + 1),
        Span(vocab.CONTROL_OFFSET + vocab.NOTE_OFFSET, vocab.NOTES),
        Span(vocab.SEPARATOR, 1),
    ),
)
"""The ids that can stand in the onset, duration and note slot, in the order of the slot's own rows."""


def first_rows(count: int) -> tuple[Span, ...]:
    """The first ``count`` rows of a table."""
    return (Span(0, count),)


def slot_spans(slot: int, text_vocab_size: int) -> tuple[Span, ...]:
    """The slot's own rows of a whole table, whose text rows come first."""
    return tuple(Span(text_vocab_size + start, size) for start, size in SLOT_SPANS[slot])


class Losses(NamedTuple):
    """What :func:`token_losses` returns. Only ``objective`` has a gradient."""

    objective: jax.Array
    """float32 scalar: the sum over tokens of weight x (loss + z_loss x log_z ** 2)."""
    losses: jax.Array
    """float32 [B, T], nats."""
    log_zs: jax.Array
    """float32 [B, T], the logarithm of each softmax's normaliser."""


def token_losses(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    spans: tuple[Span, ...],
    chunk: int,
    *,
    weights: jax.Array | None = None,
    z_loss: float = 0.0,
    placement: Placement | None = None,
) -> Losses:
    """Negative log-likelihood of each target under a softmax over the rows of ``table`` that lie in ``spans``.

    Differentiated, it computes the objective's gradient together with the losses, chunk by chunk, so that no logit is
    computed twice; the backward pass only multiplies by what it is given. On a mesh every device multiplies its own
    tokens by its own share of the rows, gathered over fsdp once; its share of the table's gradient adds up over all
    chunks before it is reduced over the mesh, once.

    Args:
        hidden: [B, T, D], the states that predict; products are computed in its dtype and added up in float32.
        table: [R, D].
        targets: int32 [B, T], numbers within the spans' rows, counted from 0 through all of them; any other number
            gets a meaningless finite loss.
        spans: rows that take part, in the table's order.
        chunk: positions of T whose logits exist at one time.
        weights: float32 [B, T] of the objective; 1 everywhere if not given. A token of weight 0 gives no gradient.
        z_loss: weight of the squared log-normalisers in the objective.
        placement: where ``hidden`` and ``table`` lie; None on one device.
    """
    if weights is None:
        weights = jnp.ones(targets.shape, jnp.float32)
    head = _Head(spans, min(chunk, hidden.shape[1]), table.shape[0], z_loss, placement)
    objective, losses, log_zs = _losses(head, hidden, table, targets, weights)
    return Losses(objective, jax.lax.stop_gradient(losses), jax.lax.stop_gradient(log_zs))


def span_rows(table: jax.Array, spans: tuple[Span, ...]) -> jax.Array:
    """The rows of ``table`` that lie in ``spans``, one span after the other."""
    return jnp.concatenate([table[start : start + size] for start, size in spans])


@dataclasses.dataclass(frozen=True)
class _Head:
    """The static part of token_losses. Methods in which a local table occurs run on one device's part of the mesh."""

    spans: tuple[Span, ...]
    chunk: int
    table_rows: int
    z_loss: float
    placement: Placement | None

    @property
    def count(self) -> int:
        return sum(span.size for span in self.spans)

    @property
    def _parts(self) -> int:
        return 1 if self.placement is None else self.placement.mesh.shape["tensor"]

    @property
    def _in_place(self) -> bool:
        """Whether each device uses the rows it has: moving them would balance no more than an eighth of the work."""
        return self.spans[0].start == 0 and 8 * self.spans[0].size > 7 * self.table_rows

    def _part(self) -> jax.Array | int:
        return 0 if self._parts == 1 else jax.lax.axis_index("tensor")

    def _taken(self, local: jax.Array) -> jax.Array:
        """This device's share of the softmax's rows, of as many columns as it has; linear in ``local``."""
        if self._in_place:
            return local
        padding = -self.count % (TILE * self._parts)
        if self._parts == 1:
            return jnp.pad(span_rows(local, self.spans), ((0, padding), (0, 0)))
        # Every device places the wanted rows that it has, and zeros for the others; added up, they are dealt out.
        wanted = np.concatenate([np.arange(start, start + size) for start, size in self.spans])
        wanted = np.pad(wanted, (0, padding), constant_values=self.table_rows)
        place = wanted - self._part() * local.shape[0]
        at = jnp.where((place >= 0) & (place < local.shape[0]), place, local.shape[0])
        return jax.lax.psum_scatter(
            local.at[at].get(mode="fill", fill_value=0), "tensor", scatter_dimension=0, tiled=True
        )

    def rows(self, local: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """This device's share of the softmax's rows, whole [r, D], and their numbers [1, r]."""
        mine = self._taken(local.astype(dtype))
        if self.placement is not None:
            mine = jax.lax.all_gather(mine, "fsdp", axis=1, tiled=True)
        return mine, self._part() * mine.shape[0] + jnp.arange(mine.shape[0])[None]

    def reduced(self, gradient: jax.Array) -> jax.Array:
        """Gradient [r, D] of rows by this device's tokens -> by all tokens, of this device's columns."""
        if self.placement is None:
            return gradient
        gradient = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=1, tiled=True)
        return jax.lax.psum(gradient, ("slice", "data"))

    def spread(self, gradient: jax.Array, local: jax.Array) -> jax.Array:
        """The gradient of the local table whose rows, as :meth:`_taken` gives them, have this one."""
        of_table = jax.linear_transpose(self._taken, jax.ShapeDtypeStruct(local.shape, gradient.dtype))
        return of_table(gradient)[0].astype(local.dtype)

    def over_parts(self, reduce: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        """Reduces over the devices that share a softmax."""
        return x if self._parts == 1 else reduce(x, "tensor")

    def scores(
        self, states: jax.Array, rows: jax.Array, numbers: jax.Array, ids: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """[n, D] by [r, D] -> unnormalised probabilities [n, r] (0 in padding) and, [n], what they add up to over all
        parts, losses and log-normalisers; float32."""
        logits = jnp.einsum("TD,RD->TR", states, rows, preferred_element_type=jnp.float32)
        logits = jnp.where(numbers < self.count, logits, -jnp.inf)
        top = self.over_parts(jax.lax.pmax, jnp.max(logits, axis=-1))
        at = ids - numbers[0, 0]
        chosen = jnp.take_along_axis(logits, at[:, None], axis=-1, mode="clip")[:, 0]
        # On one device of several the target may lie elsewhere.
        chosen = jnp.where((at >= 0) & (at < logits.shape[1]), chosen, 0.0)
        likely = jnp.exp(logits - top[:, None])
        # A CPU's reduction runs on one thread and would take the exponentials once more; its products run on all. On a
        # TPU or GPU a product would round what it adds up.
        mass = jax.lax.platform_dependent(
            likely,
            cpu=lambda x: jnp.einsum("TR,R->T", x, jnp.ones(x.shape[1])),
            default=functools.partial(jnp.sum, axis=-1),
        )
        mass, chosen = self.over_parts(jax.lax.psum, jnp.stack([mass, chosen]))
        log_z = top + jnp.log(mass)
        return likely, mass, log_z - chosen, log_z

    def objective(self, losses: jax.Array, log_zs: jax.Array, weights: jax.Array) -> jax.Array:
        # Where the weight is 0 a loss means nothing: it must not reach the sum, not even as 0 x inf.
        each = jnp.where(weights > 0, losses + self.z_loss * jnp.square(log_zs), 0.0)
        return jnp.sum(weights * each)

    def chunks(self, *fields: jax.Array) -> tuple[jax.Array, ...]:
        """[B, T, ...] -> [chunks, B x chunk, ...], the last one padded with zeros."""

        def one(x: jax.Array) -> jax.Array:
            x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % self.chunk)) + ((0, 0),) * (x.ndim - 2))
            x = jnp.moveaxis(x.reshape(x.shape[0], -1, self.chunk, *x.shape[2:]), 1, 0)
            return x.reshape(x.shape[0], -1, *x.shape[3:])

        return tuple(one(x) for x in fields)

    def mapped(self, function: Callable[..., Any], inputs: tuple[Axes, ...], outputs: Axes | tuple[Axes, ...]) -> Any:
        """``function`` on every device's part."""
        return function if self.placement is None else self.placement.local(function, inputs, outputs)


def _joined(x: jax.Array, batch: int, length: int) -> jax.Array:
    """The inverse of :meth:`_Head.chunks`, for B = ``batch`` and T = ``length``."""
    x = jnp.moveaxis(x.reshape(x.shape[0], batch, -1, *x.shape[2:]), 0, 1)
    return x.reshape(batch, -1, *x.shape[3:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(head: _Head, hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array) -> Losses:
    def local(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows, numbers = head.rows(table, hidden.dtype)

        def one(_: None, scanned: tuple[jax.Array, ...]) -> tuple[None, tuple[jax.Array, jax.Array]]:
            states, ids = scanned
            return None, head.scores(states, rows, numbers, ids)[2:]

        _, (losses, log_zs) = jax.lax.scan(one, None, head.chunks(hidden, targets))
        return _joined(losses, *hidden.shape[:2]), _joined(log_zs, *hidden.shape[:2])

    inputs, outputs = (HIDDEN_AXES, TABLE_AXES, TOKEN_AXES), (TOKEN_AXES, TOKEN_AXES)
    losses, log_zs = head.mapped(local, inputs, outputs)(hidden, table, targets)
    return Losses(head.objective(losses, log_zs, weights), losses, log_zs)


def _losses_forward(
    head: _Head, hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[Losses, tuple[jax.Array, ...]]:
    def local(hidden: jax.Array, table: jax.Array, *per_token: jax.Array) -> tuple[jax.Array, ...]:
        rows, numbers = head.rows(table, hidden.dtype)

        def one(gradient: jax.Array, scanned: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            states, ids, weight = scanned
            likely, mass, losses, log_z = head.scores(states, rows, numbers, ids)
            of_logits = likely * (weight * (1 + 2 * head.z_loss * log_z) / mass)[:, None]
            of_logits = (of_logits - jnp.where(numbers == ids[:, None], weight[:, None], 0.0)).astype(states.dtype)
            gradient += jnp.einsum("TR,TD->RD", of_logits, states, preferred_element_type=jnp.float32)
            of_states = jnp.einsum("TR,RD->TD", of_logits, rows, preferred_element_type=jnp.float32)
            return gradient, (losses, log_z, head.over_parts(jax.lax.psum, of_states).astype(states.dtype))

        zeros = jnp.zeros(rows.shape, jnp.float32)
        gradient, outputs = jax.lax.scan(one, zeros, head.chunks(hidden, *per_token))
        return (*(_joined(x, *hidden.shape[:2]) for x in outputs), head.reduced(gradient))

    inputs, outputs = (
        (HIDDEN_AXES, TABLE_AXES, TOKEN_AXES, TOKEN_AXES),
        (TOKEN_AXES, TOKEN_AXES, HIDDEN_AXES, TABLE_AXES),
    )
    losses, log_zs, of_hidden, of_rows = head.mapped(local, inputs, outputs)(hidden, table, targets, weights)
    # The table itself is kept for its shape alone; its rows' gradient is smaller than the table's for most spans.
    return Losses(head.objective(losses, log_zs, weights), losses, log_zs), (of_hidden, of_rows, table)


def _losses_backward(
    head: _Head, kept: tuple[jax.Array, ...], cotangents: Losses
) -> tuple[jax.Array, jax.Array, None, None]:
    of_hidden, of_rows, table = kept
    scale = cotangents.objective
    of_table = head.mapped(head.spread, (TABLE_AXES, TABLE_AXES), TABLE_AXES)(scale * of_rows, table)
    return (scale * of_hidden).astype(of_hidden.dtype), of_table, None, None


_losses.defvjp(_losses_forward, _losses_backward)


def slot_rows(amt_ids: jax.Array, slot: int) -> jax.Array:
    """Row of each AMT id among its slot's own rows; ids of other slots give 0."""
    row = jnp.zeros_like(amt_ids)
    offset = 0
    for start, size in SLOT_SPANS[slot]:
        inside = (amt_ids >= start) & (amt_ids < start + size)
        row = jnp.where(inside, amt_ids - start + offset, row)
        offset += size
    return row
