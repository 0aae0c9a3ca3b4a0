"""One thread that owns an engine and does one work after the other there; who asked hears how it goes and may stop it.

service.py shares an engine between requests of one window each. A work here is a whole piece, of as many windows as it
takes (inference/windows.py), and has the engine to itself.
"""

import asyncio
import dataclasses
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.engine import Stage

Tell = Callable[[Stage, float], None]
Hear = Callable[[int, np.ndarray], None]
Work = Callable[[MusicModel, Tell, Hear], Any]
"""What is to be done with the model; calls ``tell`` and ``hear`` as windows.write does, and gives what came of it."""

_BESIDE = 2
"""Works without the engine at a time; each takes a core."""
_TICK_SECONDS = 0.25
"""How often one who waits hears of it."""
_FAULT = "the music could not be written, which is a fault of this program; its terminal says more"
_log = logging.getLogger(__name__)


class Stopped(Exception):
    """Whoever asked for a work wants it no more."""


@dataclasses.dataclass(frozen=True)
class Waiting:
    """Nothing was done yet."""

    before: int
    """Works that come before this one."""


@dataclasses.dataclass(frozen=True)
class Reached:
    """The engine goes on."""

    stage: Stage
    seconds: float
    """Of the music, over all outputs."""


@dataclasses.dataclass(frozen=True)
class Wrote:
    """New notes of one output."""

    output: int
    events: np.ndarray
    """int32 [3n]."""


@dataclasses.dataclass(frozen=True)
class Done:
    """The work is done."""

    result: Any


Event = Waiting | Reached | Wrote | Done


class Job:
    """A work on its way; belongs to the event loop in which it was handed in."""

    def __init__(self, writer: "Writer", work: Work) -> None:
        self.work = work
        self.stopped = False
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def put(self, event: Event | Exception) -> None:
        """From the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed, as the server has ended
            self.stopped = True

    def stop(self) -> None:
        """Nothing more of it is done; the engine is free after the step it is in. Any number of times."""
        self.stopped = True
        self._writer.forget(self)

    async def events(self) -> AsyncIterator[Event]:
        """How it goes, until it is done; the last one is Done.

        Raises:
            Stopped: by :meth:`stop`.
            UserError: what was asked for cannot be written, or the engine failed.
        """
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), _TICK_SECONDS)
            except TimeoutError:
                if self.stopped:
                    raise Stopped from None
                if (before := self._writer.before(self)) is not None:
                    yield Waiting(before)
                continue
            if self.stopped:
                raise Stopped
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Done):
                return


class Writer:
    """Loads a model in a thread, and does there what is handed in, first come first served."""

    def __init__(self, load: Callable[[], MusicModel], max_waiting: int) -> None:
        """Starts nothing yet.

        Args:
            load: gives the model; called in the thread that will own its engine.
            max_waiting: works that may wait.
        """
        self._load = load
        self._max_waiting = max_waiting
        self._loading: Future[MusicModel] = Future()
        # A daemon, so that Ctrl-C ends a process whose model is being loaded.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._beside: set[Job] = set()
        self._others = ThreadPoolExecutor(_BESIDE, thread_name_prefix="beside the engine")
        self._closed = False

    def __enter__(self) -> "Writer":
        """Returns when the model is loaded.

        Raises:
            UserError: as ``load`` does.
        """
        self._thread.start()
        self._loading.result()
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes, and ends the thread after the step it is in."""
        self.close()
        self._thread.join()

    def close(self) -> None:
        """Stops all works and takes no more."""
        with self._changed:
            self._closed = True
            for job in (*self._waiting, *filter(None, [self._running]), *self._beside):
                job.stopped = True
            self._waiting.clear()
            self._changed.notify()
        self._others.shutdown(wait=False)

    @property
    def model(self) -> MusicModel:
        """What was loaded. The engine is the thread's alone, but for its name and sizes."""
        return self._loading.result()

    @property
    def busy(self) -> bool:
        """Whether anything is being done or waits."""
        with self._changed:
            return self._running is not None or bool(self._waiting)

    def submit(self, work: Work) -> Job:
        """Takes a work in; call it in an event loop.

        Raises:
            UserError: too many wait, or the server is stopping.
        """
        job = Job(self, work)
        with self._changed:
            self._check_room(len(self._waiting))
            self._waiting.append(job)
            self._changed.notify()
        return job

    def submit_beside(self, work: Work) -> Job:
        """Takes a work in that leaves the engine alone, so that it needs not wait for it; call it in an event loop.

        Raises:
            UserError: too many wait, or the server is stopping.
        """
        job = Job(self, work)
        with self._changed:
            self._check_room(len(self._beside))
            self._beside.add(job)
            self._others.submit(self._do_beside, job)
        return job

    def _check_room(self, waiting: int) -> None:
        if self._closed:
            raise UserError("the server is stopping; start it again to write more")
        if waiting >= self._max_waiting:
            raise UserError(f"{waiting} pieces wait to be written already; try again in some minutes")

    def before(self, job: Job) -> int | None:
        """How many works come before one that waits; None if it waits no more."""
        with self._changed:
            if job not in self._waiting:
                return None
            return self._waiting.index(job) + (self._running is not None)

    def forget(self, job: Job) -> None:
        """Takes a work that waits out of the line."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def _run(self) -> None:
        try:
            model = self._load()
        except BaseException as error:
            self._loading.set_exception(error)
            return
        self._loading.set_result(model)
        while (job := self._next()) is not None:
            self._do(model, job)

    def _do_beside(self, job: Job) -> None:
        try:
            self._do(self.model, job)
        finally:
            with self._changed:
                self._beside.discard(job)

    def _do(self, model: MusicModel, job: Job) -> None:
        try:
            job.put(self._done(model, job))
        except (Stopped, UserError) as error:
            job.put(error)
        except Exception:
            _log.exception("a work failed")
            job.put(UserError(_FAULT))

    def _next(self) -> Job | None:
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return None
            self._running = self._waiting.popleft()
            return self._running

    @staticmethod
    def _done(model: MusicModel, job: Job) -> Done:
        """Does a work.

        Raises:
            Stopped: it was stopped; what it had in the engine is dropped on the way out.
        """

        def tell(stage: Stage, seconds: float) -> None:
            if job.stopped:
                raise Stopped
            job.put(Reached(stage, seconds))

        def hear(output: int, events: np.ndarray) -> None:
            if job.stopped:
                raise Stopped
            job.put(Wrote(output, events))

        return Done(job.work(model, tell, hear))
