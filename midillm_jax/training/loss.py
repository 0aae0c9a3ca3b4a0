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
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from midillm_jax.config import LossConfig, ModelConfig
from midillm_jax.model.head import Span, first_rows, slot_rows, slot_spans, token_losses
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
    music_table: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The batch's objective, a scalar, and the loss of every token, predicted by the state before it, [rows, T].

    Only the objective has a gradient: the sum over tokens of weight x (loss + z_loss x squared log-normaliser).

    Args:
        hidden: [rows, T, D] of the batch's own tokens.
        table: output head [V, D], or its text rows where ``music_table`` has the others.
        batch: fields of CONTRACTS, [rows, T], ordered as ``layout`` says.
        placement: where all this lies; None on one device.
        music_table: the head's music rows, where a finetuning keeps them apart.
    """
    previous = jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]

    def losses(fields: Sequence[jax.Array], table: jax.Array, spans: tuple[Span, ...]) -> tuple[jax.Array, jax.Array]:
        states, targets, weights = fields
        chunk = max(1, loss.chunk_tokens * layout.shards // states.shape[0])
        found = token_losses(
            states, table, targets, spans, chunk, weights=weights, z_loss=loss.z_loss, placement=placement
        )
        return found.objective, found.losses

    fields = (previous, batch["tokens"], batch["loss_weights"])
    if loss.kind == "full":
        if music_table is not None:
            table = jnp.concatenate([rows.astype(hidden.dtype) for rows in (table, music_table)])
        return losses(fields, table, first_rows(model.vocab_size))
    text_table, first_music = table, 0
    if music_table is None:
        music_table, first_music = table, model.text_vocab_size

    of_text, of_music = zip(*(layout.split(field) for field in fields), strict=True)
    objective, text, music = jnp.zeros(()), jnp.zeros(of_text[1].shape), jnp.zeros(of_music[1].shape)
    if layout.text_rows:
        objective, text = losses(of_text, text_table, first_rows(model.text_vocab_size))
    if layout.music_rows:
        for slot in range(3):
            states, targets, weights = (field[:, slot::3] for field in of_music)
            targets = slot_rows(targets - model.text_vocab_size, slot)
            of_slot, each = losses((states, targets, weights), music_table, slot_spans(slot, first_music))
            objective, music = objective + of_slot, music.at[:, slot::3].set(each)
    return objective, layout.join(text, music)


def sums(objective: jax.Array, losses: jax.Array, batch: Batch, model: ModelConfig) -> dict[str, jax.Array]:
    """What a step adds up over its tokens, float32 scalars.

    ``objective`` and ``weight`` make the loss; ``text_nats`` / ``text_tokens``, and ``onset_nats``,
    ``duration_nats``, ``note_nats`` / ``music_tokens`` or ``notes`` make the logged figures. ``notes`` counts
    sounding notes: not rests, not separators. All sums are over targets of non-zero weight.
    """
    weights, slot = batch["loss_weights"], batch["slot"]
    amt_ids = batch["tokens"] - model.text_vocab_size
    silent = (amt_ids == vocab.REST) | (amt_ids == vocab.SEPARATOR)

    def total(where: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(where & (weights > 0), losses, 0.0))

    return {
        "objective": objective,
        "weight": jnp.sum(weights),
        "text_nats": total(slot == vocab.NO_SLOT),
        "text_tokens": jnp.sum((slot == vocab.NO_SLOT) & (weights > 0)).astype(jnp.float32),
        "onset_nats": total(slot == vocab.ONSET_SLOT),
        "duration_nats": total(slot == vocab.DURATION_SLOT),
        "note_nats": total(slot == vocab.NOTE_SLOT),
        "music_tokens": jnp.sum((slot != vocab.NO_SLOT) & (weights > 0)).astype(jnp.float32),
        "notes": jnp.sum((slot == vocab.NOTE_SLOT) & (weights > 0) & ~silent).astype(jnp.float32),
    }
