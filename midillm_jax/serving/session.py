"""A request to a service as asyncio sees it: notes and pieces one after the other, times, a deadline."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import Composition, composition
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.serving.metrics import Metrics
from midillm_jax.serving.service import EngineFailed, Event, Failed, Service, Taken, Unavailable, Wrote

KEEP_ALIVE_SECONDS = 15.0
"""Proxies cut a connection on which nothing comes for a minute or so."""

_log = logging.getLogger(__name__)


class TimedOut(UserError):
    """The time for a request is over."""


@dataclasses.dataclass(frozen=True)
class Notes:
    """Notes as they are sampled."""

    output: int
    table: NoteTable


@dataclasses.dataclass(frozen=True)
class Piece:
    """An output that is done."""

    output: int
    composition: Composition


@dataclasses.dataclass(frozen=True)
class Quiet:
    """Nothing came for KEEP_ALIVE_SECONDS."""


@dataclasses.dataclass
class Timings:
    """Seconds since the request came in; None for what has not happened."""

    queued: float | None = None
    """Until the engine had it."""
    first_note: float | None = None
    """Until the first note of any output was sampled, waiting for others' music included."""
    total: float | None = None
    """Until the last output was done."""


class Session:
    """One request, from submission to close; belongs to one event loop."""

    def __init__(self, service: Service, request: MusicRequest, timeout: float, metrics: Metrics) -> None:
        """Hands the request in.

        Args:
            timeout: seconds until it is given up.

        Raises:
            UserError: as :meth:`midillm_jax.serving.service.Service.submit`.
        """
        loop = asyncio.get_running_loop()
        self.timings = Timings()
        self.outcome = "cancelled"  # what it is if the client goes, and nothing else happens
        self._service, self._metrics, self._timeout = service, metrics, timeout
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._deadline = loop.time() + timeout

        def hear(event: Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._job = service.submit(request, hear)

    def close(self) -> None:
        """Frees what is not done, and counts how the request ended."""
        self._service.drop(self._job)
        self._metrics.requests.labels(self.outcome).inc()

    async def taken(self) -> None:
        """Waits until the engine has the request; call it before :meth:`events`.

        Raises:
            UserError: the engine refuses it, TimedOut among them.
            EngineFailed: the engine broke.
        """
        while (event := await self._next()) is None:
            pass
        assert isinstance(event, Taken)
        self.timings.queued = event.seconds

    async def events(self) -> AsyncIterator[Notes | Piece | Quiet]:
        """All that is written, until every output is done.

        Raises:
            UserError, EngineFailed: as :meth:`taken`.
        """
        requests = self._job.requests
        written: dict[int, list[np.ndarray]] = {output: [] for output in range(len(requests))}
        while written:
            event = await self._next()
            if event is None:
                yield Quiet()
                continue
            assert not isinstance(event, Taken)
            table = decode_notes(event.amt_ids)
            if len(table):
                if self.timings.first_note is None:
                    self.timings.first_note = event.seconds
                    self._metrics.first_note.observe(event.seconds)
                yield Notes(event.output, table)
            written[event.output].append(event.amt_ids)
            if event.done:
                ids = np.concatenate(written.pop(event.output)).astype(np.int32)
                piece = await self._compose(event.output, ids)
                if not written:
                    self.timings.total = event.seconds
                    self._metrics.total.observe(event.seconds)
                    self.outcome = "done"
                yield Piece(event.output, piece)

    async def _compose(self, output: int, ids: np.ndarray) -> Composition:
        """The check of the grammar and the MIDI file, beside the loop: it takes some milliseconds."""
        try:
            return await asyncio.to_thread(composition, self._service.model.engine, self._job.requests[output], ids)
        except Exception:
            _log.exception("a piece is not music")
            self.outcome = "failed"
            raise EngineFailed("the engine wrote what is not music, which is a fault of this server") from None

    async def _next(self) -> Wrote | Taken | None:
        """The next event, or None after KEEP_ALIVE_SECONDS without one."""
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            event = await asyncio.wait_for(self._events.get(), min(left, KEEP_ALIVE_SECONDS))
        except TimeoutError:
            if left > KEEP_ALIVE_SECONDS:
                return None
            self.outcome = "timeout"
            raise TimedOut(
                f"not done after {self._timeout:g} seconds; ask for fewer notes or pieces, or come back later"
            ) from None
        if isinstance(event, Failed):
            self.outcome = "failed" if isinstance(event.error, EngineFailed | Unavailable) else "refused"
            raise event.error
        return event
