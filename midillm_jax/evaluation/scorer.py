"""A model's negative log-likelihood of windows, slot by slot, in JAX."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.likelihood import PLAIN_WIDTHS, SLOT_STARTS, SLOTS, slot_indices
from midillm_jax.model import hf
from midillm_jax.model.llama import Definition, Execution, Params, head_table
from midillm_jax.music.vocab import CONTROL_OFFSET, NO_SLOT, NOTE_SLOT, SEPARATOR
from midillm_jax.text.prompt import Segment, lead

ROWS = 4
"""Windows scored together."""
_LENGTH_MULTIPLE = 48
"""Rows are padded to a multiple of this (itself one of 3), so that few shapes are compiled."""

Tables = tuple[jax.Array, jax.Array, jax.Array]


def slot_tables(table: jax.Array, text_vocab_size: int) -> Tables:
    """The head's rows that an onset, duration or note is normalised over, controls and SEPARATOR last: [W, D] each."""
    music = table[text_vocab_size:]

    def rows(slot: int) -> jax.Array:
        start, plain = SLOT_STARTS[slot], PLAIN_WIDTHS[slot]
        # There is no control REST.
        controls = plain - 1 if slot == NOTE_SLOT else plain
        return jnp.concatenate(
            [
                music[start : start + plain],
                music[CONTROL_OFFSET + start : CONTROL_OFFSET + start + controls],
                music[SEPARATOR : SEPARATOR + 1],
            ]
        )

    return rows(0), rows(1), rows(2)


def _row_nats(tables: Tables, hidden: jax.Array, targets: jax.Array, counted: jax.Array) -> jax.Array:
    """Nats by slot [3] of one row: hidden [T, D] before each target, targets int32 [T], counted bool [T]."""
    totals = []
    for slot, table in enumerate(tables):
        logits = jnp.einsum("TD,WD->TW", hidden[slot::3], table, preferred_element_type=jnp.float32)
        log_z = jax.nn.logsumexp(logits, axis=1)
        chosen = jnp.take_along_axis(logits, targets[slot::3, None], axis=1)[:, 0]
        totals.append(jnp.sum(jnp.where(counted[slot::3], log_z - chosen, 0.0)))
    return jnp.stack(totals)


def _batch_nats(
    definition: Definition,
    params: Params,
    tables: Tables,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array,
    targets: jax.Array,
    counted: jax.Array,
) -> jax.Array:
    """Nats by slot [B, 3] of rows [B, T]."""
    hidden = definition.forward(params, tokens, positions, segment_ids)
    before = jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    # Row by row, so that the logits of one row at a time are in memory.
    return jax.lax.map(lambda row: _row_nats(tables, *row), (before, targets, counted))


class Scorer:
    """Scores windows under a model's weights."""

    def __init__(self, definition: Definition, params: Params) -> None:
        self._text_vocab_size = definition.config.text_vocab_size
        self._params = params
        dtype = definition.run.compute_dtype
        self._tables = tuple(
            table.astype(dtype)
            for table in jax.jit(slot_tables, static_argnums=1)(head_table(params), self._text_vocab_size)
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
        tokens, positions, segment_ids, targets = (np.zeros((ROWS, length), np.int32) for _ in range(4))
        counted = np.zeros((ROWS, length), bool)
        widths = np.array([len(table) for table in self._tables])
        for row, (start, segment) in enumerate(zip(leads, segments, strict=True)):
            place = slice(start, start + len(segment))
            tokens[row, place] = segment.tokens
            positions[row, place] = np.arange(len(segment))
            segment_ids[row, place] = 1
            counted[row, place] = segment.slot != NO_SLOT
            indices = slot_indices(segment.tokens[segment.slot != NO_SLOT] - self._text_vocab_size)
            targets[row, counted[row]] = np.where(indices == PLAIN_WIDTHS, widths - 1, indices).reshape(-1)
        nats = self._nats(self._params, self._tables, tokens, positions, segment_ids, targets, counted)
        return np.asarray(nats, np.float64)[: len(segments)]


def _chunks(indices: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(indices), ROWS):
        yield indices[start : start + ROWS]


def load_scorer(folder: Path) -> Scorer:
    """The model of a Hugging Face folder, computing in the type its weights are stored in (float16 in float32).

    Raises:
        UserError: no model there, or one that knows no music.
    """
    config, params = hf.read_hf(folder)
    if not config.music_vocab_size:
        raise UserError(f"{folder}: this is a text model without music rows; train it with --init-from {folder} first")
    kind = str(params["final_norm"].dtype)
    if kind not in ("float32", "bfloat16"):
        kind = "float32"
    definition = Definition(config, Execution(param_dtype=kind, compute_dtype=kind, remat="none"))
    return Scorer(definition, jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), params))
