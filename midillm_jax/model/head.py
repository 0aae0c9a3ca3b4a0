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


def token_losses(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    spans: tuple[Span, ...],
    chunk: int,
    placement: Placement | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of each target under a softmax over the rows of ``table`` that lie in ``spans``.

    On a mesh every device multiplies its own tokens by its own share of these rows, gathered over fsdp once. Its share
    of the table's gradient adds up over all chunks before it is reduced over the mesh, once.

    Args:
        hidden: [B, T, D], the states that predict; products are computed in its dtype and added up in float32.
        table: [R, D].
        targets: int32 [B, T], numbers within the spans' rows, counted from 0 through all of them; any other number
            gets a meaningless finite loss.
        spans: rows that take part.
        chunk: positions of T whose logits exist at one time; the backward pass computes them a second time.
        placement: where ``hidden`` and ``table`` lie; None on one device.

    Returns:
        losses [B, T] in nats and log-normalisers [B, T], float32.
    """
    return _losses(_Head(spans, min(chunk, hidden.shape[1]), table.shape[0], placement), hidden, table, targets)


@dataclasses.dataclass(frozen=True)
class _Head:
    """The static part of token_losses. Methods in which a local table occurs run on one device's part of the mesh."""

    spans: tuple[Span, ...]
    chunk: int
    table_rows: int
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
        return 0 if self.placement is None else jax.lax.axis_index("tensor")

    def _wanted(self) -> np.ndarray:
        """Row of the table for each row of the softmax, padded to suit tiles and mesh; padding lies past the table."""
        wanted = np.concatenate([np.arange(start, start + size) for start, size in self.spans])
        return np.pad(wanted, (0, -len(wanted) % (TILE * self._parts)), constant_values=self.table_rows)

    def _held(self, local: jax.Array) -> jax.Array:
        """Where a wanted row lies in this device's rows; their number, one too many, for those it does not have."""
        at = self._wanted() - self._part() * local.shape[0]
        return jnp.where((at >= 0) & (at < local.shape[0]), at, local.shape[0])

    def rows(self, local: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """This device's share of the softmax's rows, whole [r, D], and their numbers [1, 1, r]."""
        mine = local.astype(dtype)
        if not self._in_place:
            mine = mine.at[self._held(local)].get(mode="fill", fill_value=0)
            if self._parts > 1:
                mine = jax.lax.psum_scatter(mine, "tensor", scatter_dimension=0, tiled=True)
        if self.placement is not None:
            mine = jax.lax.all_gather(mine, "fsdp", axis=1, tiled=True)
        return mine, self._part() * mine.shape[0] + jnp.arange(mine.shape[0])[None, None]

    def scatter(self, gradient: jax.Array, local: jax.Array) -> jax.Array:
        """The transpose of :meth:`rows`: gradient [r, D] of this device's tokens -> that of the local table."""
        if self.placement is not None:
            gradient = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=1, tiled=True)
            gradient = jax.lax.psum(gradient, ("slice", "data"))
        if not self._in_place:
            if self._parts > 1:
                gradient = jax.lax.all_gather(gradient, "tensor", axis=0, tiled=True)
            gradient = jnp.zeros(local.shape, gradient.dtype).at[self._held(local)].add(gradient, mode="drop")
        return gradient.astype(local.dtype)

    def over_parts(self, reduce: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        """Reduces over the devices that share a softmax."""
        return x if self._parts == 1 else reduce(x, "tensor")

    def logits(self, states: jax.Array, rows: jax.Array, numbers: jax.Array) -> jax.Array:
        """[B, t, D] by [r, D] -> [B, t, r] float32, -inf in padding."""
        logits = jnp.einsum("BTD,RD->BTR", states, rows, preferred_element_type=jnp.float32)
        return jnp.where(numbers < self.count, logits, -jnp.inf)

    def chunks(self, *fields: jax.Array) -> tuple[jax.Array, ...]:
        """[B, T, ...] -> [chunks, B, chunk, ...], the last one padded with zeros."""

        def one(x: jax.Array) -> jax.Array:
            x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % self.chunk)) + ((0, 0),) * (x.ndim - 2))
            return jnp.moveaxis(x.reshape(x.shape[0], -1, self.chunk, *x.shape[2:]), 1, 0)

        return tuple(one(x) for x in fields)

    def mapped(self, function: Callable[..., Any], inputs: tuple[Axes, ...], outputs: tuple[Axes, ...]) -> Any:
        """``function`` on every device's part."""
        return function if self.placement is None else self.placement.local(function, inputs, outputs)


def _joined(x: jax.Array, length: int) -> jax.Array:
    """The inverse of :meth:`_Head.chunks`."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(head: _Head, hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    def local(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows, numbers = head.rows(table, hidden.dtype)

        def one(_: None, scanned: tuple[jax.Array, ...]) -> tuple[None, tuple[jax.Array, jax.Array]]:
            states, ids = scanned
            logits = head.logits(states, rows, numbers)
            top = head.over_parts(jax.lax.pmax, jnp.max(logits, axis=-1))
            # A comparison instead of a gather: on one device of several the target may lie elsewhere.
            chosen = jnp.sum(jnp.where(numbers == ids[..., None], logits, 0.0), axis=-1)
            mass = jnp.sum(jnp.exp(logits - top[..., None]), axis=-1)
            mass, chosen = head.over_parts(jax.lax.psum, jnp.stack([mass, chosen]))
            log_z = top + jnp.log(mass)
            return None, (log_z - chosen, log_z)

        _, (losses, log_zs) = jax.lax.scan(one, None, head.chunks(hidden, targets))
        return _joined(losses, hidden.shape[1]), _joined(log_zs, hidden.shape[1])

    return head.mapped(local, (HIDDEN_AXES, TABLE_AXES, TOKEN_AXES), (TOKEN_AXES, TOKEN_AXES))(hidden, table, targets)


def _losses_forward(head: _Head, hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[Any, Any]:
    losses, log_zs = _losses(head, hidden, table, targets)
    return (losses, log_zs), (hidden, table, targets, log_zs)


def _losses_backward(
    head: _Head, kept: tuple[jax.Array, ...], cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    def local(hidden: jax.Array, table: jax.Array, *per_token: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows, numbers = head.rows(table, hidden.dtype)

        def one(gradient: jax.Array, scanned: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            states, ids, log_z, of_loss, of_log_z = scanned
            share = jnp.exp(head.logits(states, rows, numbers) - log_z[..., None])
            of_logits = share * (of_loss + of_log_z)[..., None]
            of_logits = (of_logits - jnp.where(numbers == ids[..., None], of_loss[..., None], 0.0)).astype(states.dtype)
            gradient += jnp.einsum("BTR,BTD->RD", of_logits, states, preferred_element_type=jnp.float32)
            return gradient, jnp.einsum("BTR,RD->BTD", of_logits, rows, preferred_element_type=jnp.float32)

        zeros = jnp.zeros(rows.shape, jnp.float32)
        gradient, of_hidden = jax.lax.scan(one, zeros, head.chunks(hidden, *per_token))
        of_hidden = head.over_parts(jax.lax.psum, _joined(of_hidden, hidden.shape[1]))
        return of_hidden.astype(hidden.dtype), head.scatter(gradient, table)

    inputs = (HIDDEN_AXES, TABLE_AXES, *(TOKEN_AXES,) * 4)
    of_hidden, of_table = head.mapped(local, inputs, (HIDDEN_AXES, TABLE_AXES))(*kept, *cotangents)
    return of_hidden, of_table, None


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


def slot_table(table: jax.Array, text_vocab_size: int, slot: int) -> jax.Array:
    """The slot's own rows of the head, [20,001 or 2,001 or 33,026, D]."""
    return jnp.concatenate([table[start : start + size] for start, size in slot_spans(slot, text_vocab_size)])
