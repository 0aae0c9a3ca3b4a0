"""The JAX engine: batches of requests through the compiled functions of inference/sampler.py, on any device JAX has.

Shapes come in few buckets (rows, prompt length, cache length), and each is compiled once. A batch is decoded to its
end before the next one begins: requests that come in meanwhile wait. vLLM and llama.cpp let them join.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference import sampler
from midillm_jax.inference.engine import Engine, Stage, Written
from midillm_jax.inference.request import TokenRequest
from midillm_jax.inference.sampler import Batch, Carry
from midillm_jax.model import decoder
from midillm_jax.model.llama import Definition, Params, head_table
from midillm_jax.music import grammar
from midillm_jax.music.vocab import ONSET_SLOT, SEPARATOR

ROW_BUCKETS = (1, 4, 8, 16, 32)
"""Sequences decoded together."""
PROMPT_BUCKET = 64
"""Prompts are padded on the left to a multiple of this."""
CACHE_BUCKET = 256
"""The cache is made for a multiple of this many tokens."""
CONTROL_BUCKET = 64
"""Controls are padded to a multiple of this."""
STEP_TRIPLES = 16
"""Triples that a step writes; the host waits once a step."""

Compiled = dict[tuple[Any, ...], Any]
"""Compiled functions by what they were compiled for."""
Tell = Callable[[Stage], None]


class _Running:
    """A batch on its way."""

    def __init__(self, rows: dict[int, tuple[int, TokenRequest]], batch: Batch, carry: Carry) -> None:
        self.rows = rows  # key -> row and request, of those that are not done
        self.batch = batch
        self.carry = carry
        self.triples = 0  # written so far, as far as the host knows

    def stop(self, rows: Sequence[int]) -> None:
        """Rows that write no more."""
        at = jnp.asarray(rows, jnp.int32)
        self.batch = self.batch._replace(max_triples=self.batch.max_triples.at[at].set(0))


class JaxEngine(Engine):
    """The Engine of inference/engine.py over model/llama.py."""

    name = "jax"
    guides = True

    def __init__(
        self,
        definition: Definition,
        params: Params,
        max_rows: int = ROW_BUCKETS[-1],
        compiled: Compiled | None = None,
        step_triples: int = STEP_TRIPLES,
    ) -> None:
        """An engine over weights that stay as they are.

        Args:
            definition: the model.
            params: its weights, all on one device. The engine has a copy in the arrangement of model/decoder.py: let
                go of them.
            max_rows: bounds the sequences decoded together, and with it the cache's memory.
            compiled: what engines of this definition have compiled, for weights of these types on this device; this one
                adds to it. Whoever makes an engine for other weights of a model again and again compiles once.
            step_triples: triples that a step writes.
        """
        self.text_vocab_size = definition.config.text_vocab_size
        self.context_length = definition.config.context_length
        self._definition = definition
        self._weights = decoder.arrange(params)
        self._buckets = [rows for rows in ROW_BUCKETS if rows <= max_rows]
        self._heads = jax.jit(sampler.slot_heads, static_argnums=1)(head_table(params), self.text_vocab_size)
        self._compiled: Compiled = {} if compiled is None else compiled
        self._step_triples = step_triples
        self._waiting: dict[int, TokenRequest] = {}
        self._running: _Running | None = None

    def _take(self, key: int, request: TokenRequest) -> None:
        self._waiting[key] = request

    def drop(self, key: int) -> None:
        """See :meth:`midillm_jax.inference.engine.Engine.drop`. A batch ends when it has no other requests."""
        self._waiting.pop(key, None)
        if self._running is not None and key in self._running.rows:
            row, _ = self._running.rows.pop(key)
            self._running.stop([row])
            if not self._running.rows:
                self._running = None

    def step(self, tell: Tell = lambda stage: None) -> list[Written]:
        """See :meth:`midillm_jax.inference.engine.Engine.step`: a prefill, or some triples of the batch."""
        if self._running is None:
            keys = list(self._waiting)[: self._buckets[-1]]
            if any(self._waiting[key].guidance != 1 for key in keys):
                keys = keys[: max(self._buckets[-1] // 2, 1)]  # each is decoded twice, with and without its prompt
            if keys:
                self._running = self._begin({key: self._waiting[key] for key in keys}, tell)
                for key in keys:
                    del self._waiting[key]
            return []
        running = self._running
        decode = functools.partial(sampler.decode, self._definition, self.text_vocab_size, self._step_triples)
        arguments = (self._weights, self._heads, running.batch, running.carry)
        running.carry = self._run(decode, "decode", (self._step_triples,), arguments, tell)
        if not running.carry.finite:
            self._running = None
            raise UserError("the model gave numbers that are not finite; its weights are broken, use another file")
        before, running.triples = running.triples, int(running.carry.triple)
        ids = np.asarray(running.carry.ids[:, before : running.triples])
        written = []
        for key, (row, request) in list(running.rows.items()):
            new = _cut(ids[row, : request.max_triples - before])
            closed = len(new) > 0 and new[-1] == SEPARATOR
            done = bool(closed) or running.triples >= request.max_triples
            if done:
                del running.rows[key]
            written.append(Written(key, new, done))
        if not running.rows:
            self._running = None
        return written

    def _begin(self, requests: dict[int, TokenRequest], tell: Tell) -> _Running:
        rows = self._bucket(len(requests))
        # Rows without a request repeat the first and write nothing.
        real = list(requests.values())
        padded = [*real, *[real[0]] * (rows - len(real))]
        texts = [one.token_ids(self.text_vocab_size) for one in padded]
        if any(one.guidance != 1 for one in real):
            texts += [one.token_ids(self.text_vocab_size, prompted=one.guidance == 1) for one in padded]
        different = list(dict.fromkeys(texts))
        if len(different) < len(texts) and self._bucket(len(different)) < len(texts):
            row_texts = [different.index(text) for text in texts]
            different += [different[0]] * (self._bucket(len(different)) - len(different))
        else:
            row_texts, different = list(range(len(texts))), texts
        longest = max(map(len, different))
        prompt_length = round_up(longest, PROMPT_BUCKET)
        cache_length = round_up(prompt_length + 3 * max(one.max_triples for one in real), CACHE_BUCKET)
        tokens = np.zeros((len(different), prompt_length), np.int32)
        for index, text in enumerate(different):
            tokens[index, prompt_length - len(text) :] = text
        lengths = np.array([len(text) for text in different], np.int32)
        prefill = functools.partial(sampler.prefill, self._definition, cache_length)
        arguments = (self._weights, tokens, lengths, np.array(row_texts, np.int32))
        hidden, cache = self._run(prefill, "prefill", (cache_length,), arguments, tell)
        state = np.stack([grammar.replay(one.history, one.limits) for one in padded])
        ids = jnp.zeros((rows, (cache_length - prompt_length) // 3, 3), jnp.int32)
        carry = Carry(jnp.int32(0), hidden, cache, jnp.asarray(state), ids, jnp.array(True))
        batch = _batch(padded, np.array([len(text) for text in texts], np.int32))
        running = _Running(dict(zip(requests, enumerate(real), strict=True)), batch, carry)
        running.stop(range(len(real), rows))
        return running

    def _bucket(self, rows: int) -> int:
        return next(bucket for bucket in self._buckets if bucket >= rows)

    def _run(
        self,
        function: Callable[..., Any],
        stage: Stage,
        static: tuple[int, ...],
        arguments: tuple[Any, ...],
        tell: Tell,
    ) -> Any:
        """Calls a function compiled for these shapes, compiling it first if they are new."""
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(arguments[1:]))
        key = (stage, *static, shapes)
        if key not in self._compiled:
            tell("compile")
            # A prefill has nothing to give up; the loop's carry, cache and all, is written in place.
            donate = (3,) if stage == "decode" else ()
            self._compiled[key] = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        tell(stage)
        return self._compiled[key](*arguments)


def _batch(padded: Sequence[TokenRequest], lengths: np.ndarray) -> Batch:
    """Numpy request fields as arrays of a batch; lengths int32 [B] or [2B] are those of prompt and history."""
    seeds = np.array([request.seed for request in padded], np.uint32)
    outputs = np.array([request.output for request in padded], np.uint32)
    keys = jax.vmap(lambda seed, output: jax.random.fold_in(jax.random.key(seed), output))(seeds, outputs)
    most = round_up(max(1, *(len(request.controls) // 3 for request in padded)), CONTROL_BUCKET)
    limits = grammar.pack_limits([request.limits for request in padded])
    controls = grammar.pack_controls([request.controls for request in padded], most)
    return Batch(
        limits=jax.tree.map(jnp.asarray, limits),
        controls=jax.tree.map(jnp.asarray, controls),
        keys=keys,
        written=jnp.array([len(request.history) for request in padded], jnp.int32),
        positions=jnp.asarray(lengths),
        max_triples=jnp.array([request.max_triples for request in padded], jnp.int32),
        temperature=jnp.array([request.temperature for request in padded], jnp.float32),
        top_p=jnp.array([request.top_p for request in padded], jnp.float32),
        guidance=jnp.array([request.guidance for request in padded], jnp.float32),
    )


def _cut(triples: np.ndarray) -> np.ndarray:
    """int32 [T, 3] -> flat ids up to and including the first SEPARATOR triple."""
    ends = np.flatnonzero(triples[:, ONSET_SLOT] == SEPARATOR)
    return triples[: ends[0] + 1 if len(ends) else None].reshape(-1)


def round_up(value: int, multiple: int) -> int:
    """The least multiple that holds ``value``."""
    return -(-value // multiple) * multiple
