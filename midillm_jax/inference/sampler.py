"""The JAX engine: a jitted prefill, then a jitted loop over triples whose three slots each see only their own rows.

Under the grammar only one slot's ids can win, so the head is computed for that slot's slice of the table alone.
Noise is indexed by (seed, output, step, index within the slot), step being the number of music tokens before: a
masked computation over the whole head draws the same ids, and a request draws the same ids whatever shares its batch
(up to float rounding, which differs between batch sizes).

Shapes come in few buckets (rows, prompt length, cache length), and each is compiled once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.request import Progress, TokenRequest, check_lengths
from midillm_jax.model.llama import Cache, Definition, Params, head_table
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

ROW_BUCKETS = (1, 4, 8, 16, 32)
"""Sequences decoded together."""
PROMPT_BUCKET = 64
"""Prompts are padded on the left to a multiple of this."""
CACHE_BUCKET = 256
"""The cache is made for a multiple of this many tokens."""
CONTROL_BUCKET = 64
"""Controls are padded to a multiple of this."""
CHUNK_TRIPLES = 16
"""Triples written between two looks at the clock; the host waits once a chunk."""

Heads = tuple[jax.Array, jax.Array, jax.Array]
"""The head's rows of the onset, duration and note slot, each [D, W]: on a CPU, x @ head is fastest when the table
is stored transposed."""
Compiled = dict[tuple[Any, ...], Any]
"""Compiled functions by what they were compiled for."""


class Batch(NamedTuple):
    """What stays the same while a batch is decoded."""

    limits: grammar.LimitArrays
    controls: grammar.Controls
    keys: jax.Array  # random keys [B]
    written: jax.Array  # int32 [B], music tokens in the prompt
    positions: jax.Array  # int32 [B], rotary position of the first token to be written
    max_triples: jax.Array  # int32 [B]
    temperature: jax.Array  # float32 [B]
    top_p: jax.Array  # float32 [B]


class Carry(NamedTuple):
    """What changes."""

    triple: jax.Array  # int32 scalar, triples written
    hidden: jax.Array  # [B, D], from which the next token is drawn
    cache: Cache
    state: jax.Array  # int32 [B, K], of the grammar
    ids: jax.Array  # int32 [B, triples, 3], amt_ids
    finite: jax.Array  # bool scalar


def slot_heads(table: jax.Array, text_vocab_size: int) -> Heads:
    """Each slot's rows of the head table [V, D], transposed: [D, SLOT_WIDTHS[slot]]."""
    music = table[text_vocab_size : text_vocab_size + SEPARATOR + 1]
    onsets = jnp.concatenate([music[:MAX_ONSET_TICKS], music[SEPARATOR : SEPARATOR + 1]])
    return onsets.T, music[DURATION_OFFSET:NOTE_OFFSET].T, music[NOTE_OFFSET : REST + 1].T


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
    definition: Definition, cache_length: int, params: Params, tokens: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, Cache]:
    """Prompts int32 [B, P], padded on the left -> hidden state of the last token [B, D], cache."""
    positions = jnp.arange(tokens.shape[1])[None, :] - (tokens.shape[1] - lengths)[:, None]
    cache = definition.init_cache(tokens.shape[0], cache_length)
    hidden, cache = definition.extend(params, tokens, jnp.maximum(positions, 0), positions >= 0, cache)
    return hidden[:, -1], cache


def _decode(
    definition: Definition, text_vocab_size: int, params: Params, heads: Heads, batch: Batch, carry: Carry
) -> Carry:
    """Writes up to CHUNK_TRIPLES more triples a row; ends early when every row has ended."""
    until = jnp.minimum(carry.triple + CHUNK_TRIPLES, carry.ids.shape[1])

    def running(carry: Carry) -> jax.Array:
        return (carry.triple < until) & ~jnp.all(_ended(batch, carry))

    def write(carry: Carry) -> Carry:
        hidden, cache, state, triple = carry.hidden, carry.cache, carry.state, []
        for slot in (ONSET_SLOT, DURATION_SLOT, NOTE_SLOT):
            step = 3 * carry.triple + slot
            logits = jnp.matmul(hidden, heads[slot].astype(hidden.dtype), preferred_element_type=jnp.float32)
            if slot == ONSET_SLOT:
                logits = grammar.fold_end(jnp, logits, batch.limits)
            mask = grammar.allowed(jnp, state, slot, batch.limits)
            noise = gumbel_noise(batch.keys, batch.written + step, logits.shape[1])
            sampled = grammar.slot_ids(jnp, draw(logits, mask, noise, batch.temperature, batch.top_p), slot)
            forced = grammar.forced(jnp, state, batch.controls)
            ids = jnp.where(forced == grammar.FREE, sampled, forced)
            state = grammar.advance(jnp, state, ids, batch.limits)
            triple.append(ids)
            tokens, positions = (ids + text_vocab_size)[:, None], (batch.positions + step)[:, None]
            hidden, cache = definition.extend(params, tokens, positions, jnp.ones_like(tokens, bool), cache)
            hidden = hidden[:, 0]
        ids = jax.lax.dynamic_update_slice(carry.ids, jnp.stack(triple, 1)[:, None], (0, carry.triple, 0))
        return Carry(carry.triple + 1, hidden, cache, state, ids, carry.finite & jnp.all(jnp.isfinite(hidden)))

    return jax.lax.while_loop(running, write, carry)


def _ended(batch: Batch, carry: Carry) -> jax.Array:
    """Rows that have nothing more to write: bool [B]."""
    return grammar.has_closed(carry.state) | (carry.triple >= batch.max_triples)


class JaxEngine:
    """The Engine of inference/request.py over model/llama.py, on whatever device JAX has."""

    name = "jax"

    def __init__(
        self,
        definition: Definition,
        params: Params,
        max_rows: int = ROW_BUCKETS[-1],
        compiled: Compiled | None = None,
    ) -> None:
        """An engine over weights that stay as they are.

        Args:
            definition: the model.
            params: its weights, all on one device.
            max_rows: bounds the sequences decoded together, and with it the cache's memory.
            compiled: what engines of this definition have compiled, for weights of these types on this device; this one
                adds to it. Whoever makes an engine for other weights of a model again and again compiles once.
        """
        self.text_vocab_size = definition.config.text_vocab_size
        self.context_length = definition.config.context_length
        self._definition = definition
        self._params = params
        self._buckets = [rows for rows in ROW_BUCKETS if rows <= max_rows]
        self._heads = jax.jit(slot_heads, static_argnums=1)(head_table(params), self.text_vocab_size)
        self._compiled: Compiled = {} if compiled is None else compiled

    def generate(
        self, requests: Sequence[TokenRequest], report: Callable[[Progress], None] | None = None
    ) -> list[np.ndarray]:
        """See :class:`midillm_jax.inference.request.Engine`.

        Raises:
            UserError: a request is longer than the context, or the model's numbers are not finite.
        """
        check_lengths(requests, self.context_length)
        total = sum(request.max_triples for request in requests)
        results: list[np.ndarray] = []
        while len(results) < len(requests):
            part = requests[len(results) : len(results) + self._buckets[-1]]
            written = sum(len(ids) // 3 for ids in results)

            def tell(stage: Any, triples: int, written: int = written) -> None:
                if report is not None:
                    report(Progress(stage, written + triples, total))

            results.extend(self._generate_batch(part, tell))
        if report is not None:
            report(Progress("done", total, total))
        return results

    def _generate_batch(self, requests: Sequence[TokenRequest], tell: Callable[[Any, int], None]) -> list[np.ndarray]:
        rows = next(bucket for bucket in self._buckets if bucket >= len(requests))
        # Rows without a request repeat the first and write nothing.
        padded = [*requests, *[requests[0]] * (rows - len(requests))]
        lengths = np.array([len(request.prompt) + len(request.history) for request in padded], np.int32)
        prompt_length = round_up(int(lengths.max()), PROMPT_BUCKET)
        most = max(request.max_triples for request in requests)
        cache_length = round_up(prompt_length + 3 * most, CACHE_BUCKET)
        tokens = np.zeros((rows, prompt_length), np.int32)
        for row, request in enumerate(padded):
            history = np.asarray(request.history, np.int32) + self.text_vocab_size
            tokens[row, prompt_length - lengths[row] :] = np.concatenate([request.prompt, history])
        batch = self._batch(padded, len(requests), lengths)
        state = np.stack([grammar.replay(request.history, request.limits) for request in padded])
        reading = functools.partial(prefill, self._definition, cache_length)
        hidden, cache = self._run(reading, "prefill", (cache_length,), (self._params, tokens, lengths), tell)
        ids = jnp.zeros((rows, (cache_length - prompt_length) // 3, 3), jnp.int32)
        carry = Carry(jnp.int32(0), hidden, cache, jnp.asarray(state), ids, jnp.array(True))
        decode = functools.partial(_decode, self._definition, self.text_vocab_size)
        while True:
            carry = self._run(decode, "decode", (), (self._params, self._heads, batch, carry), tell, int(carry.triple))
            if not carry.finite:
                raise UserError("the model gave numbers that are not finite; its weights are broken, use another file")
            if bool(jnp.all(_ended(batch, carry))):
                break
        return [
            _cut(ids[: request.max_triples])
            for ids, request in zip(np.asarray(carry.ids[:, : int(carry.triple)]), requests, strict=False)
        ]

    def _batch(self, padded: Sequence[TokenRequest], real: int, lengths: np.ndarray) -> Batch:
        """Numpy request fields as arrays of a batch."""
        seeds = np.array([request.seed for request in padded], np.uint32)
        outputs = np.array([request.output for request in padded], np.uint32)
        keys = jax.vmap(lambda seed, output: jax.random.fold_in(jax.random.key(seed), output))(seeds, outputs)
        most = max(len(request.controls) // 3 for request in padded)
        return Batch(
            limits=jax.tree.map(jnp.asarray, grammar.pack_limits([request.limits for request in padded])),
            controls=jax.tree.map(
                jnp.asarray,
                grammar.pack_controls([request.controls for request in padded], round_up(most, CONTROL_BUCKET)),
            ),
            keys=keys,
            written=jnp.array([len(request.history) for request in padded], jnp.int32),
            positions=jnp.asarray(lengths),
            max_triples=jnp.array([r.max_triples if row < real else 0 for row, r in enumerate(padded)], jnp.int32),
            temperature=jnp.array([request.temperature for request in padded], jnp.float32),
            top_p=jnp.array([request.top_p for request in padded], jnp.float32),
        )

    def _run(
        self,
        function: Callable[..., Any],
        stage: Any,
        static: tuple[int, ...],
        arguments: tuple[Any, ...],
        tell: Callable[[Any, int], None],
        triples: int = 0,
    ) -> Any:
        """Calls a function compiled for these shapes, compiling it first if they are new."""
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(arguments[1:]))
        key = (stage, *static, shapes)
        if key not in self._compiled:
            tell("compile", triples)
            # A prefill has nothing to give up; the loop's carry, cache and all, is written in place.
            donate = (3,) if stage == "decode" else ()
            self._compiled[key] = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        tell(stage, triples)
        return self._compiled[key](*arguments)


def _cut(triples: np.ndarray) -> np.ndarray:
    """int32 [T, 3] -> flat ids up to and including the first SEPARATOR triple."""
    ends = np.flatnonzero(triples[:, ONSET_SLOT] == SEPARATOR)
    return triples[: ends[0] + 1 if len(ends) else None].reshape(-1)


def round_up(value: int, multiple: int) -> int:
    """The least multiple that holds ``value``."""
    return -(-value // multiple) * multiple
