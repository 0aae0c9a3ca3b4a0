"""Text from the JAX engine: a jitted prefill, then a jitted loop over tokens, handed out a few at a time.

The head is computed for the text rows alone, so music cannot be drawn; what is drawn is as in inference/sampler.py.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.errors import UserError, require
from midillm_jax.inference import compose
from midillm_jax.inference.jax_engine import CACHE_BUCKET, PROMPT_BUCKET, round_up
from midillm_jax.inference.request import check_sampling
from midillm_jax.inference.sampler import draw, gumbel_noise, prefill
from midillm_jax.model import decoder, hf, hf_config
from midillm_jax.model.decoder import Cache, Weights
from midillm_jax.model.llama import Definition, Params, head_table
from midillm_jax.text.prompt import text_ids
from midillm_jax.text.tokenizer import Tokenizer

CHUNK_TOKENS = 8
"""Tokens written between two looks at them; the host waits once a chunk."""
_UNFINISHED = "\ufffd"
"""What decoding gives for a character of which only the first bytes are there."""


@dataclasses.dataclass(frozen=True)
class TextRequest:
    """Text that goes on where a prompt ends.

    Raises:
        UserError: a value is out of its range.
    """

    prompt: str
    max_tokens: int = 200
    temperature: float = 0.8
    """0 always takes the most likely id; else 0.01 to 100."""
    top_p: float = 0.95
    """Only the most likely ids that together hold this probability can be drawn."""
    seed: int = 0
    """0 .. 2**32 - 1; the same request gives the same text."""

    def __post_init__(self) -> None:
        require(("max_tokens", self.max_tokens, self.max_tokens >= 1, "1 or more"))
        check_sampling(self.prompt, self.seed, self.temperature, self.top_p)


class _Fixed(NamedTuple):
    """What stays the same while a text is written."""

    key: jax.Array  # random key [1]
    position: jax.Array  # int32 scalar, rotary position of the first token to be written
    most: jax.Array  # int32 scalar, tokens at most
    end: jax.Array  # int32 scalar, the id that ends a text
    temperature: jax.Array  # float32 [1]
    top_p: jax.Array  # float32 [1]


class _Carry(NamedTuple):
    """What changes."""

    written: jax.Array  # int32 scalar, tokens so far
    hidden: jax.Array  # [1, D], from which the next token is drawn
    cache: Cache
    ids: jax.Array  # int32 [room]
    ended: jax.Array  # bool scalar
    finite: jax.Array  # bool scalar


def _decode(definition: Definition, weights: Weights, head: jax.Array, fixed: _Fixed, carry: _Carry) -> _Carry:
    """Writes up to CHUNK_TOKENS more tokens; ends early behind the end of the text."""
    until = jnp.minimum(carry.written + CHUNK_TOKENS, fixed.most)

    def running(carry: _Carry) -> jax.Array:
        return (carry.written < until) & ~carry.ended

    def write(carry: _Carry) -> _Carry:
        logits = decoder.product(carry.hidden, head)
        noise = gumbel_noise(fixed.key, carry.written[None], logits.shape[1])
        token = draw(logits, jnp.ones_like(logits, bool), noise, fixed.temperature, fixed.top_p)
        position = (fixed.position + carry.written)[None, None]
        valid = jnp.ones((1, 1), bool)
        hidden, cache = decoder.extend(definition, weights, token[:, None], position, valid, carry.cache)
        ids = jax.lax.dynamic_update_slice(carry.ids, token, (carry.written,))
        finite = carry.finite & jnp.all(jnp.isfinite(logits))
        return _Carry(carry.written + 1, hidden[:, 0], cache, ids, token[0] == fixed.end, finite)

    return jax.lax.while_loop(running, write, carry)


class TextSampler:
    """Writes token ids of text with a model, on whatever device JAX has."""

    def __init__(self, definition: Definition, params: Params) -> None:
        self._definition = definition
        self._weights = decoder.arrange(params)
        rows = definition.config.text_vocab_size
        self._head = head_table(params)[:rows]
        self._prefill = jax.jit(functools.partial(prefill, definition), static_argnums=0)
        self._decode = jax.jit(functools.partial(_decode, definition), donate_argnums=3)

    def generate(self, prompt: list[int], end: int, request: TextRequest) -> Iterator[np.ndarray]:
        """Ids int32 behind a prompt as they are written, a few at a time, the last one ``end`` if the text ended.

        Raises:
            UserError: prompt and text are longer than the context, or the model's numbers are not finite.
        """
        _check_length(len(prompt), request.max_tokens, self._definition.config.context_length)
        prompt_length = round_up(len(prompt), PROMPT_BUCKET)
        cache_length = round_up(prompt_length + request.max_tokens, CACHE_BUCKET)
        tokens = np.zeros((1, prompt_length), np.int32)
        tokens[0, prompt_length - len(prompt) :] = prompt
        lengths, rows = np.array([len(prompt)], np.int32), np.zeros(1, np.int32)
        hidden, cache = self._prefill(cache_length, self._weights, tokens, lengths, rows)
        fixed = _Fixed(
            key=jax.random.key(request.seed)[None],
            position=jnp.int32(len(prompt)),
            most=jnp.int32(request.max_tokens),
            end=jnp.int32(end),
            temperature=jnp.float32([request.temperature]),
            top_p=jnp.float32([request.top_p]),
        )
        room = jnp.zeros(cache_length - prompt_length, jnp.int32)
        carry = _Carry(jnp.int32(0), hidden, cache, room, jnp.array(False), jnp.array(True))
        done = 0
        while done < request.max_tokens and not carry.ended:
            carry = self._decode(self._weights, self._head, fixed, carry)
            if not carry.finite:
                raise UserError("the model gave numbers that are not finite; its weights are broken, use another file")
            yield np.asarray(carry.ids[done : int(carry.written)])
            done = int(carry.written)


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A sampler with what it takes to talk to it."""

    sampler: TextSampler
    tokenizer: Tokenizer
    sequence_length: int
    """Tokens it writes at most, prompt included: its context, or the rows of its training where they were shorter."""

    def write(self, request: TextRequest) -> Iterator[tuple[str, int]]:
        """Text as it is written, and how many tokens it has by then.

        Raises:
            UserError: prompt and text are longer than a sequence, or the model's numbers are not finite.
        """
        prompt = text_ids(self.tokenizer, request.prompt)
        _check_length(len(prompt), request.max_tokens, self.sequence_length)
        return pieces(self.tokenizer, prompt, self.sampler.generate(prompt, self.tokenizer.eos_id, request))


def load_text_model(folder: str | os.PathLike[str]) -> TextModel:
    """A model in a Hugging Face folder, or its name on the Hub; it may be one that knows no music.

    Raises:
        UserError: the folder is missing, or holds no model or another model's tokenizer.
    """
    root = compose.model_folder(folder)
    definition, params = hf.load_model(root)
    tokenizer = compose.matching_tokenizer(root, definition.config.text_vocab_size)
    return TextModel(TextSampler(definition, params), tokenizer, hf_config.row_length(root))


def pieces(tokenizer: Tokenizer, prompt: list[int], written: Iterable[np.ndarray]) -> Iterator[tuple[str, int]]:
    """Ids behind a prompt as text that can be shown at once, and their number: a character waits for its last byte."""
    # The prompt is decoded with them: some tokenizers drop the space before the first word they are given.
    ids = list(prompt)
    text = tokenizer.decode(ids)
    shown = len(text)
    for more in written:
        ids.extend(more.tolist())
        text = tokenizer.decode(ids)
        ready = max(len(text.rstrip(_UNFINISHED)), shown)
        yield text[shown:ready], len(ids) - len(prompt)
        shown = ready
    if len(text) > shown:
        yield text[shown:], len(ids) - len(prompt)


def _check_length(prompt: int, text: int, most: int) -> None:
    if prompt + text > most:
        raise UserError(
            f"the prompt takes {prompt} tokens and max_tokens is {text}, but a sequence of this model holds {most}; "
            "shorten the prompt or ask for fewer tokens"
        )
