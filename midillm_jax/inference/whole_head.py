"""The grammar over the logits of a whole head, for engines that hand those out: vLLM and llama.cpp.

The JAX engine (inference/sampler.py) computes no more than the rows of the slot; what is masked here has the same
probabilities, and the same id is the most likely one.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from midillm_jax.music import grammar
from midillm_jax.music.grammar import Array
from midillm_jax.music.vocab import (
    CONTROL_OFFSET,
    DURATION_OFFSET,
    DURATION_SLOT,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    NOTE_SLOT,
    ONSET_SLOT,
    SEPARATOR,
)


def masked_logits(
    xp: Any,
    logits: Array,
    state: Array,
    limits: grammar.LimitArrays,
    controls: grammar.Controls,
    text_vocab_size: int,
    *,
    standing_at: Collection[int] = (ONSET_SLOT, DURATION_SLOT, NOTE_SLOT),
    ends_inside: bool = True,
    in_place: bool = False,
) -> Array:
    """Logits in which only what the grammar lets come next is finite; rows may stand at different slots.

    Args:
        xp: numpy or torch.
        logits: float32 [B, V], V at least text_vocab_size + 55,026.
        state: int32 [B, K], of music/grammar.py.
        limits, controls: of the same rows, in arrays of the same library.
        text_vocab_size: token_id = amt_id + this.
        standing_at: slots at which rows may stand; the others' logits are not looked at.
        ends_inside: False if it is known that no row's limits end before the last tick, so that no end is folded.
        in_place: write to ``logits`` and return them.

    Returns:
        float32 [B, V]. Text, flags and padding are -inf; a forced id is 0 and all others of its row -inf.
    """
    if in_place:
        masked = logits
    else:
        masked = xp.empty_like(logits)
        masked[:] = logits
    standing, forced = grammar.slots(state), grammar.forced(xp, state, controls)
    free = forced == grammar.FREE
    of_music = masked[:, text_vocab_size:]
    # A table has far more rows than a slot: each is written once, and of the others nothing is computed.
    kept = 0
    for slot, first, last in _COLUMNS:
        if slot not in standing_at:
            continue
        here = free & (standing == slot)
        refused = ~(grammar.allowed(xp, state, slot, limits) & here[:, None])
        if slot == ONSET_SLOT:
            separator = of_music[:, SEPARATOR]
            if ends_inside:
                separator = _onsets(xp, of_music, limits)[:, last]
            separator = xp.where(refused[:, last], -math.inf, separator)
            refused = refused[:, :last]
        of_music[:, first:last][refused] = -math.inf
        masked[:, kept : text_vocab_size + first] = -math.inf
        kept = text_vocab_size + last
    masked[:, kept:] = -math.inf
    if ONSET_SLOT in standing_at:
        of_music[:, SEPARATOR] = separator
    columns = xp.where(free, 0, forced)
    of_music[controls.rows, columns] = xp.where(free, of_music[controls.rows, columns], 0.0)
    return masked


_COLUMNS = (
    (ONSET_SLOT, 0, MAX_ONSET_TICKS),
    (DURATION_SLOT, DURATION_OFFSET, NOTE_OFFSET),
    (NOTE_SLOT, NOTE_OFFSET, CONTROL_OFFSET),
)
"""Each slot's first music row and the one behind its last; SEPARATOR, which stands apart, belongs to the onsets."""


def _onsets(xp: Any, music: Array, limits: grammar.LimitArrays) -> Array:
    """Logits of the onset slot, float32 [B, W], out of those of the music rows, end folded."""
    onsets = xp.concatenate((music[:, :MAX_ONSET_TICKS], music[:, SEPARATOR : SEPARATOR + 1]), 1)
    return grammar.fold_end(xp, onsets, limits)


def split_prompt(token_ids: Sequence[int], text_vocab_size: int) -> np.ndarray:
    """amt_ids int32 that follow the flag in a prompt: music that is to be continued, none where there is no flag."""
    ids = np.asarray(token_ids, np.int32) - text_vocab_size
    music = np.flatnonzero(ids >= 0)
    return ids[music[0] + 1 :] if len(music) else ids[:0]


def slot_logits(
    logits: np.ndarray, state: np.ndarray, slot: int, limits: grammar.LimitArrays, text_vocab_size: int
) -> np.ndarray:
    """What :func:`masked_logits` leaves of rows that all stand at one slot, in numpy: that slot's logits alone.

    Args:
        logits: float32 [B, V].
        state: int32 [B, K].
        slot: at which the states stand.
        limits: of the same rows.
        text_vocab_size: token_id = amt_id + this.

    Returns:
        float32 [B, SLOT_WIDTHS[slot]], -inf where the grammar forbids; ``grammar.slot_ids`` gives their amt_ids.
    """
    music = logits[:, text_vocab_size:]
    _, first, last = _COLUMNS[slot]
    of_slot = _onsets(np, music, limits) if slot == ONSET_SLOT else music[:, first:last]
    return np.where(grammar.allowed(np, state, slot, limits), of_slot, np.float32(-np.inf))
