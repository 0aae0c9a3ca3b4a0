"""Next-token cross-entropy that never holds the whole logits (model/head.py). Two forms:

``full``
    Every target is normalised over all rows of the table (padding rows left out), as MIDI-LLM was trained.
``slot``
    A music target is normalised over the rows its slot can hold, controls included: onset 20,001 rows (with
    SEPARATOR), duration 2,001, note 33,026 (with REST and SEPARATOR). Text targets use the text rows. It bounds
    the likelihood under the grammar from above; a model trained so must be sampled with the grammar.

Which slot a token has follows from its index: data/batches.py puts every onset at an index = 0 mod 3.
"""

import dataclasses

import jax
import jax.numpy as jnp

from midillm_jax.config import LossConfig, ModelConfig
from midillm_jax.model.head import first_rows, slot_rows, slot_spans, token_losses
from midillm_jax.model.sharding import Placement
from midillm_jax.music import vocab

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a device batch [parts, rows, T] is ordered: each of ``shards`` groups holds its text rows first."""

    shards: int
    text_rows: int
    music_rows: int

    def split(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[rows, ...] -> text rows and music rows, each still split over devices by the rows axis."""
        text = self.text_rows // self.shards
        grouped = x.reshape(self.shards, -1, *x.shape[1:])
        return (
            grouped[:, :text].reshape(self.text_rows, *x.shape[1:]),
            grouped[:, text:].reshape(self.music_rows, *x.shape[1:]),
        )

    def join(self, text: jax.Array, music: jax.Array) -> jax.Array:
        """The inverse of :meth:`split`."""
        grouped = [x.reshape(self.shards, -1, *x.shape[1:]) for x in (text, music)]
        joined = jnp.concatenate(grouped, axis=1)
        return joined.reshape(self.text_rows + self.music_rows, *text.shape[1:])


def batch_losses(
    hidden: jax.Array,
    table: jax.Array,
    batch: Batch,
    model: ModelConfig,
    loss: LossConfig,
    layout: Layout,
    placement: Placement | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Losses and log-normalisers [rows, T] of every token as a target, predicted by the state before it.

    Args:
        hidden: [rows, T, D] of the batch's own tokens.
        table: output head [V, D].
        batch: fields of CONTRACTS, [rows, T], ordered as ``layout`` says.
        placement: where all this lies; None on one device.
    """
    previous = jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    tokens = batch["tokens"]

    def chunk(rows: int) -> int:
        return max(1, loss.chunk_tokens * layout.shards // rows)

    if loss.kind == "full":
        return token_losses(previous, table, tokens, first_rows(model.vocab_size), chunk(tokens.shape[0]), placement)

    text_hidden, music_hidden = layout.split(previous)
    text_tokens, music_tokens = layout.split(tokens)
    text: tuple[jax.Array, jax.Array] = (jnp.zeros(text_tokens.shape), jnp.zeros(text_tokens.shape))
    if layout.text_rows:
        spans = first_rows(model.text_vocab_size)
        text = token_losses(text_hidden, table, text_tokens, spans, chunk(layout.text_rows), placement)
    music: tuple[jax.Array, jax.Array] = (jnp.zeros(music_tokens.shape), jnp.zeros(music_tokens.shape))
    if layout.music_rows:
        for slot in range(3):
            spans = slot_spans(slot, model.text_vocab_size)
            targets = slot_rows(music_tokens[:, slot::3] - model.text_vocab_size, slot)
            parts = token_losses(music_hidden[:, slot::3], table, targets, spans, chunk(layout.music_rows), placement)
            music = (music[0].at[:, slot::3].set(parts[0]), music[1].at[:, slot::3].set(parts[1]))
    return layout.join(text[0], music[0]), layout.join(text[1], music[1])


def sums(
    losses: jax.Array, log_zs: jax.Array, batch: Batch, model: ModelConfig, loss: LossConfig
) -> dict[str, jax.Array]:
    """What a step adds up over its tokens, float32 scalars.

    ``objective`` and ``weight`` make the loss; ``text_nats`` / ``text_tokens``, ``onset_nats``,
    ``duration_nats``, ``note_nats`` / ``notes`` make the logged figures. ``notes`` counts sounding notes: not
    rests, not separators. All sums are over targets of non-zero weight.
    """
    weights, slot = batch["loss_weights"], batch["slot"]
    # Where the weight is 0 a slot loss means nothing: it must not reach the sum, not even as 0 x inf.
    weighted = jnp.where(weights > 0, losses, 0.0) * weights
    penalty = jnp.where(weights > 0, jnp.square(log_zs), 0.0) * weights
    amt_ids = batch["tokens"] - model.text_vocab_size
    silent = (amt_ids == vocab.REST) | (amt_ids == vocab.SEPARATOR)

    def total(where: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(where & (weights > 0), losses, 0.0))

    return {
        "objective": jnp.sum(weighted) + loss.z_loss * jnp.sum(penalty),
        "weight": jnp.sum(weights),
        "text_nats": total(slot == vocab.NO_SLOT),
        "text_tokens": jnp.sum((slot == vocab.NO_SLOT) & (weights > 0)).astype(jnp.float32),
        "onset_nats": total(slot == vocab.ONSET_SLOT),
        "duration_nats": total(slot == vocab.DURATION_SLOT),
        "note_nats": total(slot == vocab.NOTE_SLOT),
        "notes": jnp.sum((slot == vocab.NOTE_SLOT) & (weights > 0) & ~silent).astype(jnp.float32),
    }
