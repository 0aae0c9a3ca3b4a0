"""The llama.cpp engine, over llama-cpp-python: laptops and Macs, from a GGUF export.

Nothing here imports jax. What it draws at a temperature above 0 differs from what the JAX engine draws with the same
seed; at 0 it is the same where the file and the cache are float32, up to the rounding of nearly equal logits.
"""

import ctypes
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference import whole_head
from midillm_jax.inference.engine import Engine, Stage, Written
from midillm_jax.inference.request import TokenRequest
from midillm_jax.music import grammar
from midillm_jax.music.vocab import DURATION_SLOT, NOTE_SLOT, SEPARATOR, VOCAB_SIZE

MAX_SEQUENCES = 8
"""Sequences decoded together."""
_PROMPT_TOKENS = 512
"""Tokens of a prompt that are read at a time."""
_NO_LIMITS = grammar.Limits()


@dataclasses.dataclass
class _Sequence:
    """A request on its way. It stands at an onset between two steps."""

    request: TokenRequest
    place: int  # in the cache
    state: np.ndarray  # int32 [K], of the grammar
    generator: np.random.Generator
    position: int  # of the next token
    drawn: int = -1  # amt_id that is not yet fed
    ids: list[int] = dataclasses.field(default_factory=list)  # amt_ids that no step has returned
    triples: int = 0  # that steps have returned


class LlamaCppEngine(Engine):
    """The Engine of inference/engine.py over libllama. A sequence joins as soon as another has ended."""

    name = "llamacpp"

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        context_length: int = 0,
        max_sequences: int = MAX_SEQUENCES,
        threads: int = 0,
        float32_cache: bool = False,
    ) -> None:
        """Loads a model.

        Args:
            file: as ``python -m midillm_jax.export --format gguf`` writes it.
            context_length: longest sequence; 0 for the model's. The cache holds so many tokens for each sequence.
            max_sequences: decoded together.
            threads: 0 for the CPUs that this process may use.
            float32_cache: keys and values in float32 rather than float16, and attention without fusion.

        Raises:
            UserError: llama-cpp-python is not installed, or llama.cpp does not load the file.
        """
        try:
            import llama_cpp.llama_cpp as library
        except ImportError as error:
            raise UserError(
                f"llama-cpp-python cannot be imported here ({error}); `pip install llama-cpp-python` builds it "
                "(a C++ compiler is needed), or use another --backend"
            ) from None
        self._library: Any = library
        # llama.cpp says at length what it does; the reason of a failure is kept.
        self._said: list[str] = []
        self._log = library.llama_log_callback(self._hear)  # llama.cpp goes on calling it
        library.llama_log_set(self._log, ctypes.c_void_p(0))
        library.llama_backend_init()
        self._model = library.llama_model_load_from_file(os.fsencode(file), library.llama_model_default_params())
        if not self._model:
            raise UserError(f"{file}: llama.cpp does not load this file: {self._reason()}; export it again")
        self._rows = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        self.text_vocab_size = self._rows - VOCAB_SIZE
        if self.text_vocab_size < 1:
            raise UserError(
                f"{file}: its vocabulary of {self._rows} tokens has no music rows; expected what "
                "`python -m midillm_jax.export --format gguf` writes"
            )
        trained = library.llama_model_n_ctx_train(self._model)
        self.context_length = min(context_length or trained, trained)
        options = library.llama_context_default_params()
        options.n_ctx = self.context_length * max_sequences
        options.n_seq_max = max_sequences
        options.n_batch = max(_PROMPT_TOKENS, max_sequences)
        options.n_threads = options.n_threads_batch = threads or _cpus()
        if float32_cache:
            options.type_k = options.type_v = library.GGML_TYPE_F32
            options.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = library.llama_init_from_model(self._model, options)
        if not self._context:
            raise UserError(
                f"{file}: llama.cpp makes no context of {max_sequences} x {self.context_length} tokens: "
                f"{self._reason()}; ask for fewer sequences or a shorter context"
            )
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(options.n_batch, 0, 1)
        self._places = list(range(max_sequences))
        self._waiting: dict[int, TokenRequest] = {}
        self._running: dict[int, _Sequence] = {}

    def close(self) -> None:
        """Gives the memory back; the engine is not to be used afterwards."""
        if self._context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)
            self._context = None

    def _take(self, key: int, request: TokenRequest) -> None:
        self._waiting[key] = request

    def drop(self, key: int) -> None:
        """See :meth:`midillm_jax.inference.engine.Engine.drop`."""
        self._waiting.pop(key, None)
        if key in self._running:
            place = self._running.pop(key).place
            self._library.llama_memory_seq_rm(self._memory, place, -1, -1)
            self._places.append(place)

    def step(self, tell: Callable[[Stage], None] = lambda stage: None) -> list[Written]:
        """See :meth:`midillm_jax.inference.engine.Engine.step`: a triple of each, after the prompts of new ones."""
        if self._waiting and self._places:
            tell("prefill")
        while self._waiting and self._places:
            self._begin()
        tell("decode")
        rows = [row for row in self._running.values() if row.drawn != SEPARATOR]
        for _ in (DURATION_SLOT, NOTE_SLOT):
            self._extend(rows)
        # The last note needs no logits behind it.
        self._extend([row for row in rows if row.triples + 1 < row.request.max_triples])
        written = []
        for key, row in list(self._running.items()):
            if row.drawn == SEPARATOR:
                row.ids += [SEPARATOR, SEPARATOR]
            # An onset that begins the next triple waits for its other two.
            whole = len(row.ids) // 3 * 3
            new, row.ids = np.array(row.ids[:whole], np.int32), row.ids[whole:]
            row.triples += whole // 3
            done = row.drawn == SEPARATOR or row.triples >= row.request.max_triples
            if done:
                self.drop(key)
            written.append(Written(key, new, done))
        return written

    def _begin(self) -> None:
        """Reads the prompt of the request that has waited longest, and draws its first onset."""
        key = next(iter(self._waiting))
        request, place = self._waiting.pop(key), self._places.pop()
        tokens = request.token_ids(self.text_vocab_size)
        # Any function of seed and output would do.
        generator = np.random.Generator(np.random.Philox(key=[request.seed, request.output]))
        state = grammar.replay(request.history, request.limits)
        row = self._running[key] = _Sequence(request, place, state, generator, len(tokens))
        for start in range(0, len(tokens), _PROMPT_TOKENS):
            part = tokens[start : start + _PROMPT_TOKENS]
            self._feed([(token, start + at, place) for at, token in enumerate(part)], only_last=True)
        self._draw([row], self._logits([len(part) - 1]))

    def _extend(self, rows: list[_Sequence]) -> None:
        """Feeds what each has drawn, and draws the next."""
        if not rows:
            return
        self._feed([(row.drawn + self.text_vocab_size, row.position, row.place) for row in rows])
        for row in rows:
            row.position += 1
        self._draw(rows, self._logits(range(len(rows))))

    def _feed(self, tokens: list[tuple[int, int, int]], only_last: bool = False) -> None:
        """Runs the model over (token id, position, place), for logits of each token or of the last one."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, (token, position, place) in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, place
            batch.logits[index] = not only_last or index == len(tokens) - 1
        failed = self._library.llama_decode(self._context, batch)
        if failed:
            raise RuntimeError(f"llama.cpp: llama_decode gave {failed}: {self._reason()}")

    def _logits(self, indices: Iterable[int]) -> np.ndarray:
        """Logits after tokens of the last batch: float32 [B, V], a copy."""
        rows = [self._library.llama_get_logits_ith(self._context, index) for index in indices]
        return np.stack([np.ctypeslib.as_array(row, (self._rows,)) for row in rows])

    def _draw(self, rows: list[_Sequence], logits: np.ndarray) -> None:
        """Draws the next id of rows that stand at the same slot; logits float32 [B, V]."""
        state = np.stack([row.state for row in rows])
        limits = _packed_limits(tuple(row.request.limits for row in rows))
        controls = _packed_controls(tuple(row.request.controls for row in rows))
        slot = int(grammar.slots(state)[0])
        masked = whole_head.slot_logits(logits, state, slot, limits, self.text_vocab_size)
        if np.isnan(masked).any():
            raise UserError("the model gave numbers that are not finite; its weights are broken, use another file")
        indices = [
            draw(row_logits, row.generator, row.request.temperature, row.request.top_p)
            for row, row_logits in zip(rows, masked, strict=True)
        ]
        free = grammar.slot_ids(np, np.array(indices, np.int32), slot)
        forced = grammar.forced(np, state, controls)
        ids: Any = np.where(forced == grammar.FREE, free, forced)
        for row, amt_id, moved in zip(rows, ids.tolist(), grammar.advance(np, state, ids, limits), strict=True):
            row.drawn, row.state = amt_id, moved
            row.ids.append(amt_id)

    def _hear(self, level: int, text: bytes, user_data: Any) -> None:
        if level >= 4:  # GGML_LOG_LEVEL_ERROR; 5 continues a line
            self._said.append(text.decode(errors="replace").strip())

    def _reason(self) -> str:
        """What llama.cpp said first of a failure; what it says last is that there was one."""
        said = [line for line in self._said if line]
        self._said.clear()
        return said[0] if said else "it does not say why"


def _cpus() -> int:
    """Of this process; macOS and Windows tell those of the machine alone."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# The rows stay the same from step to step until one ends.
_packed_limits = functools.lru_cache(maxsize=4)(grammar.pack_limits)
_packed_controls = functools.lru_cache(maxsize=4)(grammar.pack_controls)


def draw(logits: np.ndarray, generator: np.random.Generator, temperature: float, top_p: float) -> int:
    """An index of masked logits float32 [W]: the most likely at temperature 0, else one of the nucleus.

    The nucleus is that of sampler.draw: the smallest set of most likely indices whose probability reaches top_p, and
    whatever ties with its least likely member. As there, no sort is needed: what is drawn from all lies in it if less
    than top_p is more likely; if not, neither does anything as unlikely, and it is drawn again without that.
    """
    if temperature == 0:
        return int(logits.argmax())
    indices = np.flatnonzero(logits > -np.inf)
    scaled = logits[indices].astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    enough = top_p * weights.sum() if top_p < 1 else np.inf
    while True:
        cumulative = weights.cumsum()
        index = int(np.searchsorted(cumulative[:-1], generator.random() * cumulative[-1], side="right"))
        likely = weights > weights[index]
        if weights[likely].sum() < enough:
            return int(indices[index])
        indices, weights = indices[likely], weights[likely]


class Grammar:
    """The grammar for ``llama_cpp.Llama``: an entry of its ``logits_processor``, for one completion.

    ``Llama.generate(prompt_ids, logits_processor=LogitsProcessorList([Grammar(prompt_ids, ...)]), ...)`` writes music
    behind the flag in the prompt, or continues what stands there.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        text_vocab_size: int,
        limits: grammar.Limits = _NO_LIMITS,
        controls: Sequence[int] = (),
    ) -> None:
        """The state after a prompt.

        Args:
            prompt: token ids, with the flag.
            text_vocab_size: token_id = amt_id + this.
            limits: of the music.
            controls: as in TokenRequest.
        """
        self._text = text_vocab_size
        self._limits = grammar.pack_limits([limits])
        self._state = grammar.replay(whole_head.split_prompt(prompt, text_vocab_size), limits)[None]
        self._controls = grammar.pack_controls([controls], int(grammar.controls_written(self._state[0])))
        self._seen = len(prompt)

    def __call__(self, input_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Masks the next token's logits: int [T] so far and float32 [V] -> float32 [V]."""
        for token in np.asarray(input_ids, np.int32)[self._seen :]:
            self._state = grammar.advance(np, self._state, token[None] - self._text, self._limits)
        self._seen = len(input_ids)
        return whole_head.masked_logits(np, scores[None], self._state, self._limits, self._controls, self._text)[0]
