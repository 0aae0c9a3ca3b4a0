"""What an engine is: token requests go in, whole triples come out, a step at a time."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.request import TokenRequest

Stage = Literal["compile", "prefill", "decode"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """What an engine is doing now; it says so at the start of each stage and, while decoding, as it goes on."""

    stage: Stage | Literal["done"]
    triples: int
    """Written so far, over all sequences of the call."""
    total: int
    """Written at most."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What a step wrote for one request."""

    key: int
    """As :meth:`Engine.add` gave it."""
    amt_ids: np.ndarray
    """int32 [3n], whole triples that are new; the SEPARATOR triple included if the sequence ended with one."""
    done: bool
    """Nothing more comes for this request, and its key is forgotten."""


class Engine(abc.ABC):
    """Writes music for many requests at once, as its own scheduler sees fit, within the grammar of music/grammar.py.

    An engine belongs to one thread.
    """

    name: str
    """As on the command line."""
    text_vocab_size: int
    """token_id = amt_id + this."""
    context_length: int
    """Longest sequence, prompt included."""

    guides = False
    """Whether it can weigh the prompt (``TokenRequest.guidance``)."""

    _keys = 0
    """How many were given."""

    def add(self, request: TokenRequest) -> int:
        """Takes a request in, which the next step begins or which waits for room.

        Returns:
            its key.

        Raises:
            UserError: it is longer than the context, or asks for guidance of an engine that has none.
        """
        if request.length > self.context_length:
            raise UserError(
                f"a sequence of {request.length} tokens was asked for, of which {len(request.prompt)} are its "
                f"prompt, but the model's context holds {self.context_length}; ask for fewer notes"
            )
        if request.guidance != 1 and not self.guides:
            raise UserError(
                f"guidance {request.guidance:g} was asked for, which the {self.name} engine cannot do; leave it at 1, "
                "or use --backend jax"
            )
        self._keys += 1
        self._take(self._keys, request)
        return self._keys

    @abc.abstractmethod
    def _take(self, key: int, request: TokenRequest) -> None:
        """What an engine does with a request that fits."""

    @abc.abstractmethod
    def step(self, tell: Callable[[Stage], None] = lambda stage: None) -> list[Written]:
        """Goes on a little with the requests that were taken in, at best with all of them.

        Args:
            tell: hears of each stage as it begins.

        Raises:
            UserError: the model's numbers are not finite.
        """

    @abc.abstractmethod
    def drop(self, key: int) -> None:
        """Forgets a request, done or not; its place is free for another."""

    def generate(
        self, requests: Sequence[TokenRequest], report: Callable[[Progress], None] | None = None
    ) -> list[np.ndarray]:
        """All that is written for each request: whole triples, int32 [3n], its SEPARATOR triple included.

        Raises:
            UserError: as :meth:`add` and :meth:`step`; nothing of the requests is left in the engine.
        """
        total = sum(request.max_triples for request in requests)
        written: dict[int, list[np.ndarray]] = {}
        triples = 0

        def tell(stage: Stage) -> None:
            if report is not None:
                report(Progress(stage, triples, total))

        waiting: set[int] = set()
        try:
            for request in requests:
                waiting.add(key := self.add(request))
                written[key] = []
            while waiting:
                for part in self.step(tell):
                    written[part.key].append(part.amt_ids)
                    triples += len(part.amt_ids) // 3
                    if part.done:
                        waiting.discard(part.key)
        finally:
            for key in waiting:
                self.drop(key)
        if report is not None:
            report(Progress("done", total, total))
        return [np.concatenate(parts) for parts in written.values()]
