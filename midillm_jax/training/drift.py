"""How far a run has moved from the text model it began with."""

import functools
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.files import write_whole
from midillm_jax.model import next_text
from midillm_jax.model.llama import Params, head_tables
from midillm_jax.model.sharding import replicated
from midillm_jax.music import vocab
from midillm_jax.training import hosts, loss
from midillm_jax.training.held_out import open_batches
from midillm_jax.training.step import Training, place

FILE = "text_at_start.npy"
POSITIONS = 128
"""Of text, on which distributions are compared; at 128,256 text rows they take 66 MB."""


class TextDrift:
    """KL divergence of the starting weights' next-token distribution from the present one, over the text rows.

    Measured on the first text targets of the first held-out batch. Prompts are no targets, so without text rows there
    is nothing to measure. What the starting weights say there is kept in ``RUN/text_at_start.npy``.
    """

    def __init__(self, training: Training, folder: Path, step: int, params: Params) -> None:
        """``params`` are the starting weights if ``step`` is 0."""
        with open_batches(training, "validation") as batches:
            batch = place(training, next(batches))
        self._batch = {name: field[0] for name, field in batch.items()}
        everywhere = replicated(training.mesh)
        said = jax.jit(functools.partial(_text_log_probabilities, training), out_shardings=everywhere)
        path = folder / FILE
        if step == 0:
            start = np.asarray(jax.device_get(said(params, self._batch)))
            if hosts.is_first():
                content = io.BytesIO()
                np.save(content, start)
                write_whole(path, content.getvalue())
        else:
            start = np.load(path)

        def divergence(params: Params, batch: loss.Batch, start: jax.Array) -> jax.Array:
            each = next_text.divergence(start, _text_log_probabilities(training, params, batch))
            return jnp.sum(each) / jnp.maximum(jnp.sum(jnp.any(start != 0, axis=-1)), 1)

        self._divergence = jax.jit(divergence, out_shardings=everywhere)
        self._start = jax.device_put(start, everywhere)
        self.measurable = bool(start.any())
        """Whether the batch has a text position at all."""

    def nats(self, params: Params) -> float:
        """Mean over the positions."""
        return float(self._divergence(params, self._batch, self._start))


def _text_log_probabilities(training: Training, params: Params, batch: loss.Batch) -> jax.Array:
    """float32 [POSITIONS, text rows] of the first text targets with weight; zeros where there are fewer."""
    hidden = training.definition.forward(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    previous = jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    text = ((batch["slot"] == vocab.NO_SLOT) & (batch["loss_weights"] > 0)).ravel()
    (chosen,) = jnp.nonzero(text, size=POSITIONS, fill_value=-1)
    states = previous.reshape(-1, previous.shape[-1])[chosen]
    said = next_text.log_probabilities(states, head_tables(params)[0], training.config.model.text_vocab_size)
    return jnp.where(chosen[:, None] >= 0, said, 0.0)
