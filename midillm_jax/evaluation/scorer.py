"""A model's negative log-likelihood of windows, slot by slot, in JAX."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.likelihood import SLOTS
from midillm_jax.model import head, hf
from midillm_jax.model.llama import Definition, Params, head_table
from midillm_jax.music.vocab import NO_SLOT
from midillm_jax.text.prompt import Segment, lead

ROWS = 4
"""Windows scored together."""
CHUNK = 64
"""Tokens of each row whose logits are in memory at one time."""
_LENGTH_MULTIPLE = 48
"""Rows are padded to a multiple of this (itself one of 3), so that few shapes are compiled."""

Tables = tuple[jax.Array, jax.Array, jax.Array]


def _batch_nats(
    definition: Definition,
    params: Params,
    tables: Tables,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array,
    counted: jax.Array,
) -> jax.Array:
    """Nats by slot [B, 3] of rows [B, T]."""
    hidden = definition.forward(params, tokens, positions, segment_ids)
    before = jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    totals = []
    for slot, table in enumerate(tables):
        targets = head.slot_rows(tokens[:, slot::3] - definition.config.text_vocab_size, slot)
        losses = head.token_losses(before[:, slot::3], table, targets, head.first_rows(len(table)), CHUNK).losses
        totals.append(jnp.sum(jnp.where(counted[:, slot::3], losses, 0.0), axis=1))
    return jnp.stack(totals, axis=1)


class Scorer:
    """Scores windows under a model's weights."""

    def __init__(self, definition: Definition, params: Params) -> None:
        self._params = params
        dtype = definition.run.compute_dtype
        self._tables = tuple(
            head.span_rows(head_table(params), head.slot_spans(slot, definition.config.text_vocab_size)).astype(dtype)
            for slot in range(len(SLOTS))
        )
        self._nats = jax.jit(functools.partial(_batch_nats, definition))

    def nats(self, segments: Sequence[Segment], report: Callable[[int], None] | None = None) -> np.ndarray:
        """Negative log-likelihood of each segment's music by slot, float64 [segments, 3].

        Args:
            segments: prompt, flag and music without controls (text/prompt.py).
            report: called with how many are done.
        """
        order = np.argsort([len(segment) for segment in segments], kind="stable")
        scored = np.zeros((len(segments), len(SLOTS)))
        done = 0
        for chosen in _chunks(order.tolist()):
            scored[chosen] = self._score([segments[index] for index in chosen])
            done += len(chosen)
            if report is not None:
                report(done)
        if not np.isfinite(scored).all():
            raise UserError("the model gave numbers that are not finite; its weights are broken, use another file")
        return scored

    def _score(self, segments: Sequence[Segment]) -> np.ndarray:
        leads = [lead(segment) for segment in segments]
        longest = max(start + len(segment) for start, segment in zip(leads, segments, strict=True))
        length = -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
        tokens, positions, segment_ids = (np.zeros((ROWS, length), np.int32) for _ in range(3))
        counted = np.zeros((ROWS, length), bool)
        for row, (start, segment) in enumerate(zip(leads, segments, strict=True)):
            place = slice(start, start + len(segment))
            tokens[row, place] = segment.tokens
            positions[row, place] = np.arange(len(segment))
            segment_ids[row, place] = 1
            counted[row, place] = segment.slot != NO_SLOT
        nats = self._nats(self._params, self._tables, tokens, positions, segment_ids, counted)
        return np.asarray(nats, np.float64)[: len(segments)]


def _chunks(indices: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(indices), ROWS):
        yield indices[start : start + ROWS]


def load_scorer(folder: Path) -> Scorer:
    """The model of a Hugging Face folder, computing in the type its weights are stored in (float16 in float32).

    Raises:
        UserError: no model there, or one that knows no music.
    """
    return Scorer(*hf.load_music_model(folder))
