"""What the JAX engine computes: a prefill, then a loop over triples whose three slots each see only their own rows.

Under the grammar only one slot's ids can win, so the head is computed for that slot's slice of the table alone.
Noise is indexed by (seed, output, step, index within the slot), step being the number of music tokens before: a
masked computation over the whole head draws the same ids, and a request draws the same ids whatever shares its batch
(up to float rounding, which differs between batch sizes).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from midillm_jax.model import decoder
from midillm_jax.model.decoder import Cache, Weights
from midillm_jax.model.llama import Definition
from midillm_jax.music import grammar
from midillm_jax.music.vocab import (
    DURATION_OFFSET,
    DURATION_SLOT,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    NOTE_SLOT,
    ONSET_SLOT,
    REST,
    SEPARATOR,
)

Heads = tuple[jax.Array, jax.Array, jax.Array]
"""The head's rows of the onset, duration and note slot, each [W, D]."""


class Batch(NamedTuple):
    """What stays the same while a batch is decoded."""

    limits: grammar.LimitArrays
    controls: grammar.Controls
    keys: jax.Array  # random keys [B]
    written: jax.Array  # int32 [B], music tokens in the prompt
    positions: jax.Array  # int32 [B], rotary position of the first token to be written; [2B] with guidance
    max_triples: jax.Array  # int32 [B]
    temperature: jax.Array  # float32 [B]
    top_p: jax.Array  # float32 [B]
    guidance: jax.Array  # float32 [B]; what counts of it is in _guided


class Carry(NamedTuple):
    """What changes."""

    triple: jax.Array  # int32 scalar, triples written
    hidden: jax.Array  # [B, D], from which the next token is drawn; [2B, D] with guidance, those without prompt last
    cache: Cache
    state: jax.Array  # int32 [B, K], of the grammar
    ids: jax.Array  # int32 [B, triples, 3], amt_ids
    finite: jax.Array  # bool scalar


def slot_heads(table: jax.Array, text_vocab_size: int) -> Heads:
    """Each slot's rows of the head table [V, D]: [SLOT_WIDTHS[slot], D]."""
    music = table[text_vocab_size : text_vocab_size + SEPARATOR + 1]
    onsets = jnp.concatenate([music[:MAX_ONSET_TICKS], music[SEPARATOR : SEPARATOR + 1]])
    return onsets, music[DURATION_OFFSET:NOTE_OFFSET], music[NOTE_OFFSET : REST + 1]


def slot_logits(hidden: jax.Array, heads: Heads, slot: int) -> jax.Array:
    """Logits float32 [B, SLOT_WIDTHS[slot]] of hidden states [B, D]."""
    return decoder.product(hidden, heads[slot])


def gumbel_noise(keys: jax.Array, step: jax.Array, width: int) -> jax.Array:
    """Gumbel noise [B, width] of the rows' keys [B] at their steps int32 [B]."""

    def row(key: jax.Array, at: jax.Array) -> jax.Array:
        return jax.random.gumbel(jax.random.fold_in(key, at), (width,), jnp.float32)

    return jax.vmap(row)(keys, step)


def draw(logits: jax.Array, mask: jax.Array, noise: jax.Array, temperature: jax.Array, top_p: jax.Array) -> jax.Array:
    """Indices int32 [B] drawn from masked logits float32 [B, W].

    At temperature 0, the most likely index. Else from the nucleus: the smallest set of most likely indices whose
    probability reaches top_p, and whatever ties with its least likely member.

    No sort is needed. The Gumbel maximum over all indices is that over the nucleus if it lies in it, which one sum
    over the more likely indices tells; if it does not, neither does anything as unlikely, so that is left out and the
    maximum taken again. One or two rounds are the rule.
    """
    width = logits.shape[1]
    greedy = temperature[:, None] == 0
    scaled = jnp.where(mask, logits / jnp.where(greedy, 1.0, temperature[:, None]), -jnp.inf)
    score = scaled + jnp.where(greedy, 0.0, noise)
    weights = jnp.exp(scaled - jnp.max(scaled, axis=1, keepdims=True))
    enough = jnp.where(top_p < 1, top_p * jnp.sum(weights, axis=1), jnp.inf)
    indices = jnp.arange(width)[None, :]

    def unsettled(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return ~jnp.all(carry[2])

    def again(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        bound = carry[0]
        open_score = jnp.where(scaled > bound, score, -jnp.inf)
        best = jnp.max(open_score, axis=1, keepdims=True)
        # First index of the maximum; on a CPU twice as fast as argmax.
        index = jnp.min(jnp.where(open_score == best, indices, width - 1), axis=1)
        found = jnp.take_along_axis(scaled, index[:, None], axis=1)
        more_likely = jnp.sum(jnp.where(scaled > found, weights, 0.0), axis=1)
        # Not finite: the model is broken, which the caller reports; do not search for ever.
        inside = (more_likely < enough) | ~jnp.isfinite(best[:, 0])
        return jnp.where(inside[:, None], bound, found), index, inside

    batch = logits.shape[0]
    nothing = (jnp.full((batch, 1), -jnp.inf), jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))
    return jax.lax.while_loop(unsettled, again, nothing)[1]


def prefill(
    definition: Definition, cache_length: int, weights: Weights, tokens: jax.Array, lengths: jax.Array, rows: jax.Array
) -> tuple[jax.Array, Cache]:
    """Reads prompts, each once, for the rows that begin with them.

    Args:
        definition: the model.
        cache_length: tokens that the cache has room for.
        weights: its weights.
        tokens: int32 [U, P], padded on the left.
        lengths: int32 [U], tokens without padding.
        rows: int32 [B], which prompt a row begins with; where U = B, row i begins with prompt i.

    Returns:
        the hidden state of each row's last token [B, D], and a cache of B rows.
    """
    positions = jnp.arange(tokens.shape[1])[None, :] - (tokens.shape[1] - lengths)[:, None]
    cache = decoder.init_cache(definition, tokens.shape[0], cache_length)
    valid = positions >= 0
    hidden, cache = decoder.extend(definition, weights, tokens, jnp.maximum(positions, 0), valid, cache)
    if tokens.shape[0] == rows.shape[0]:
        return hidden[:, -1], cache
    keys, values, valid = jax.tree.map(lambda leaf: leaf[rows], (cache.keys, cache.values, cache.valid))
    return hidden[rows, -1], Cache(keys, values, valid, cache.length)


def _guided(hidden: jax.Array, heads: Heads, slot: int, guidance: jax.Array) -> jax.Array:
    """Logits float32 [B, W] of hidden states [B, D], or of [2B, D] whose later half has not read the prompt."""
    logits = slot_logits(hidden, heads, slot)
    batch = guidance.shape[0]
    if logits.shape[0] == batch:
        return logits
    prompted, free = logits[:batch], logits[batch:]
    weight = guidance[:, None]
    # At 1 exactly what the prompt gives, so that such rows draw the same ids beside guided ones.
    return jnp.where(weight == 1, prompted, free + weight * (prompted - free))


def decode(
    definition: Definition,
    text_vocab_size: int,
    triples: int,
    weights: Weights,
    heads: Heads,
    batch: Batch,
    carry: Carry,
) -> Carry:
    """Writes up to so many more triples a row; ends early when every row has ended."""
    until = 3 * jnp.minimum(carry.triple + triples, carry.ids.shape[1])

    def draw_slot(slot: int, step: jax.Array, hidden: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The next id of each row int32 [B], and the grammar's state behind it."""
        logits = _guided(hidden, heads, slot, batch.guidance)
        if slot == ONSET_SLOT:
            logits = grammar.fold_end(jnp, logits, batch.limits)
        mask = grammar.allowed(jnp, state, slot, batch.limits)
        noise = gumbel_noise(batch.keys, batch.written + step, logits.shape[1])
        sampled = grammar.slot_ids(jnp, draw(logits, mask, noise, batch.temperature, batch.top_p), slot)
        forced = grammar.forced(jnp, state, batch.controls)
        ids = jnp.where(forced == grammar.FREE, sampled, forced)
        return ids, grammar.advance(jnp, state, ids, batch.limits)

    slots = [functools.partial(draw_slot, slot) for slot in (ONSET_SLOT, DURATION_SLOT, NOTE_SLOT)]

    def running(scanned: tuple[jax.Array, Carry]) -> jax.Array:
        step, carry = scanned
        return (step < until) & ~((step % 3 == ONSET_SLOT) & jnp.all(ended(batch, carry)))

    def write(scanned: tuple[jax.Array, Carry]) -> tuple[jax.Array, Carry]:
        # A token at a time, though a triple is what ends: the layers, written out, are then compiled once, not thrice.
        step, carry = scanned
        ids, state = jax.lax.switch(step % 3, slots, step, carry.hidden, carry.state)
        positions = (batch.positions + step)[:, None]
        # With guidance each id is read twice: behind the prompt, and without.
        tokens = jnp.tile(ids + text_vocab_size, len(positions) // len(ids))[:, None]
        valid = jnp.ones_like(tokens, bool)
        hidden, cache = decoder.extend(definition, weights, tokens, positions, valid, carry.cache)
        written = jax.lax.dynamic_update_slice(carry.ids, ids[:, None, None], (0, step // 3, step % 3))
        finite = carry.finite & jnp.all(jnp.isfinite(hidden))
        return step + 1, Carry((step + 1) // 3, hidden[:, 0], cache, state, written, finite)

    return jax.lax.while_loop(running, write, (3 * carry.triple, carry))[1]


def ended(batch: Batch, carry: Carry) -> jax.Array:
    """Rows that have nothing more to write: bool [B]."""
    return grammar.has_closed(carry.state) | (carry.triple >= batch.max_triples)
