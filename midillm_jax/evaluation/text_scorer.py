"""A model's negative log-likelihood of text, and its distance from a base, in JAX."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.model import hf, next_text
from midillm_jax.model.llama import Definition, Params, head_table

ROWS = 4
"""Rows scored together."""
POSITIONS = 128
"""Whose distributions are in memory at one time: 66 MB a model at 128,256 text rows."""

Model = tuple[Definition, Params]


class TextScorer:
    """Scores rows of text under a model's weights, and beside a base's."""

    def __init__(self, model: Model, base: Model | None) -> None:
        models = [model] if base is None else [model, base]
        self._params = [params for _, params in models]
        self._score = jax.jit(functools.partial(_batch, [definition for definition, _ in models]))

    def score(self, rows: Sequence[np.ndarray], report: Callable[[int], None] | None = None) -> np.ndarray:
        """Of each row, nats of all tokens but its first, and divergence of the base at them: float64 [rows, 2].

        The divergence is 0 without a base.

        Args:
            rows: int32 [T] each.
            report: called with how many are done.

        Raises:
            UserError: the weights give numbers that are not finite.
        """
        scored = np.zeros((len(rows), 2))
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            scored[chosen] = self._some([rows[number] for number in chosen])
            if report is not None:
                report(start + len(chosen))
        if not np.isfinite(scored).all():
            raise UserError("the model gave numbers that are not finite; its weights are broken, use another file")
        return scored

    def _some(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        # Padded to a multiple of POSITIONS, so that few shapes are compiled.
        length = -(-max(map(len, rows)) // POSITIONS) * POSITIONS
        tokens, segment_ids = (np.zeros((ROWS, length), np.int32) for _ in range(2))
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
            segment_ids[number, : len(row)] = 1
        return np.asarray(self._score(self._params, tokens, segment_ids), np.float64)[: len(rows)]


def _batch(
    definitions: Sequence[Definition], params: Sequence[Params], tokens: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    """float32 [B, 2] of rows [B, T], T a multiple of POSITIONS."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    states = [
        definition.forward(each, tokens, positions, segment_ids)
        for definition, each in zip(definitions, params, strict=True)
    ]
    targets = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))
    counted = jnp.pad(segment_ids[:, 1:], ((0, 0), (0, 1)))

    def some(scanned: tuple[jax.Array, jax.Array, list[jax.Array]]) -> jax.Array:
        ids, counts, at = scanned
        said = [
            next_text.log_probabilities(each, head_table(weights), definition.config.text_vocab_size)
            for definition, weights, each in zip(definitions, params, at, strict=True)
        ]
        nats = -jnp.take_along_axis(said[0], ids[:, None], axis=1)[:, 0]
        apart = next_text.divergence(said[1], said[0]) if len(said) > 1 else jnp.zeros_like(nats)
        return jnp.where(counts[:, None] > 0, jnp.stack([nats, apart], axis=1), 0.0)

    def chunks(x: jax.Array) -> jax.Array:
        return x.reshape(-1, POSITIONS, *x.shape[2:])

    found = jax.lax.map(some, (chunks(targets), chunks(counted), [chunks(each) for each in states]))
    return jnp.sum(found.reshape(*tokens.shape, 2), axis=1)


def load_text_scorer(model: Path, base: Path | None) -> TextScorer:
    """Of Hugging Face folders, each computing in the type that its weights are stored in.

    Raises:
        UserError: no model in one of them, or their text vocabularies differ.
    """
    loaded = hf.load_model(model)
    if base is None:
        return TextScorer(loaded, None)
    other = hf.load_model(base)
    ours, theirs = (definition.config.text_vocab_size for definition, _ in (loaded, other))
    if ours != theirs:
        raise UserError(
            f"--base {base}: has {theirs:,} text rows, {model} has {ours:,}; expected the text model that it was "
            "trained from"
        )
    return TextScorer(loaded, other)
