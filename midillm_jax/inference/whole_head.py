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
        in_place: write to ``logits`` and return them.

    Returns:
        float32 [B, V]. Text, flags and padding are -inf; a forced id is 0 and all others of its row -inf.
    """
    music = logits[:, text_vocab_size : text_vocab_size + SEPARATOR + 1]
    standing, forced = grammar.slots(state), grammar.forced(xp, state, controls)
    free = forced == grammar.FREE
    of_slots = {}
    for slot in standing_at:
        of_slot = _of_slot(xp, music, slot, limits)
        here = (free & (standing == slot))[:, None]
        of_slots[slot] = xp.where(grammar.allowed(xp, state, slot, limits) & here, of_slot, -math.inf)
    # A table has far more rows than a slot: they are written once, and nothing else is done with them.
    if in_place:
        masked = logits
        masked[:] = -math.inf
    else:
        masked = xp.full_like(logits, -math.inf)
    of_music = masked[:, text_vocab_size:]
    for slot, of_slot in of_slots.items():
        if slot == ONSET_SLOT:
            of_music[:, :MAX_ONSET_TICKS] = of_slot[:, :MAX_ONSET_TICKS]
            of_music[:, SEPARATOR] = of_slot[:, MAX_ONSET_TICKS]
        elif slot == DURATION_SLOT:
            of_music[:, DURATION_OFFSET:NOTE_OFFSET] = of_slot
        else:
            of_music[:, NOTE_OFFSET:CONTROL_OFFSET] = of_slot
    columns = xp.where(free, 0, forced)
    of_music[controls.rows, columns] = xp.where(free, of_music[controls.rows, columns], 0.0)
    return masked


def _of_slot(xp: Any, music: Array, slot: int, limits: grammar.LimitArrays) -> Array:
    """A slot's logits float32 [B, SLOT_WIDTHS[slot]] out of those of the music rows, end folded."""
    if slot == ONSET_SLOT:
        with_end = xp.concatenate((music[:, :MAX_ONSET_TICKS], music[:, SEPARATOR:]), 1)
        return grammar.fold_end(xp, with_end, limits)
    return music[:, DURATION_OFFSET:NOTE_OFFSET] if slot == DURATION_SLOT else music[:, NOTE_OFFSET:CONTROL_OFFSET]


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
    music = logits[:, text_vocab_size : text_vocab_size + SEPARATOR + 1]
    return np.where(grammar.allowed(np, state, slot, limits), _of_slot(np, music, slot, limits), np.float32(-np.inf))
