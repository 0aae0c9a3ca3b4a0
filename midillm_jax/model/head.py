"""The output head: hidden states and rows of the table become losses, without ever holding the whole logits.

A music token can be normalised over the rows its slot can hold instead of the whole table; which rows these are is
said here once, for the loss (training/loss.py) and for scores (evaluation/scorer.py).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from midillm_jax.music import vocab


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


def token_losses(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, rows: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of each target under a softmax over the first ``rows`` rows of ``table``.

    Args:
        hidden: [B, T, D], the states that predict.
        table: [R, D], R >= rows.
        targets: int32 [B, T] row numbers; a target outside 0..rows-1 gets a meaningless finite loss.
        rows: rows that take part.
        chunk: positions of T whose logits exist at one time.

    Returns:
        losses [B, T] in nats and log-normalisers [B, T], float32.
    """
    batch, length, width = hidden.shape
    chunk = min(chunk, length)
    chunks = -(-length // chunk)
    padding = chunks * chunk - length
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0))).reshape(batch, chunks, chunk, width)
    targets = jnp.pad(targets, ((0, 0), (0, padding))).reshape(batch, chunks, chunk)
    table = table.astype(hidden.dtype)
    row_ids = jnp.arange(table.shape[0])[None, None]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one(_: None, scanned: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        states, ids = scanned
        logits = jnp.einsum("BTD,RD->BTR", states, table, preferred_element_type=jnp.float32)
        if table.shape[0] != rows:
            logits = jnp.where(row_ids < rows, logits, -jnp.inf)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        # A comparison instead of a gather: it stays local to each device when the rows are sharded.
        target_logit = jnp.sum(jnp.where(row_ids == ids[..., None], logits, 0.0), axis=-1)
        return None, (log_z - target_logit, log_z)

    _, (losses, log_zs) = jax.lax.scan(one, None, (jnp.moveaxis(hidden, 1, 0), jnp.moveaxis(targets, 1, 0)))

    def flat(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(batch, -1)[:, :length]

    return flat(losses), flat(log_zs)


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
    starts = [(text_vocab_size + span.start, span.size) for span in SLOT_SPANS[slot]]
    return jnp.concatenate([table[start : start + size] for start, size in starts])
