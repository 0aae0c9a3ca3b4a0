"""One thread that owns an engine, and the requests that others hand to it.

Nothing is batched here: a request goes to the engine's own scheduler in the gap between two steps, as soon as it comes
in, and what is dropped leaves it in such a gap too.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import MusicModel, token_requests
from midillm_jax.inference.engine import Engine, Written
from midillm_jax.inference.request import MusicRequest, TokenRequest
from midillm_jax.serving.metrics import Metrics

_STOPPING = "the server is stopping"
_log = logging.getLogger(__name__)


class Busy(UserError):
    """As many sequences wait as may."""


class Unavailable(UserError):
    """Nothing is taken in: the engine broke, or the service ends."""


class EngineFailed(Exception):
    """A fault that is not the request's; the message may be shown to whoever asked, the log has the rest."""


@dataclasses.dataclass(frozen=True)
class Taken:
    """The engine has the request."""

    seconds: float
    """Since it came in; so are those below."""


@dataclasses.dataclass(frozen=True)
class Wrote:
    """Some more of one output."""

    seconds: float
    output: int
    amt_ids: np.ndarray
    """int32 [3n], whole triples."""
    done: bool


@dataclasses.dataclass(frozen=True)
class Failed:
    """Nothing more comes."""

    error: UserError | EngineFailed
    """Unavailable: the service ends; another UserError: the engine refused this request."""


Event = Taken | Wrote | Failed


class Job:
    """A request on its way through a service."""

    def __init__(self, requests: list[TokenRequest], hear: Callable[[Event], None]) -> None:
        self.requests = requests
        """One an output."""
        self.began = time.perf_counter()
        self._hear = hear
        # The service's own, under its lock.
        self.waiting = set(range(len(requests)))
        self.running: set[int] = set()
        self.dropped = False

    def tell(self, event: Event) -> None:
        """Hands an event on unless nobody listens any more; under the service's lock."""
        if not self.dropped:
            self._hear(event)

    def seconds(self) -> float:
        """Since the request came in."""
        return time.perf_counter() - self.began


class Service:
    """Loads a model in a thread, and writes music there for requests from any thread."""

    def __init__(self, load: Callable[[], MusicModel], max_waiting: int, metrics: Metrics) -> None:
        """Starts nothing yet.

        Args:
            load: gives the model; called in the thread that will own its engine.
            max_waiting: sequences of which nothing is written yet, at most.
            metrics: gets the gauges of this service and its tokens.
        """
        self._load = load
        self._max_waiting = max_waiting
        self._tokens = metrics.tokens
        self._loading: Future[MusicModel] = Future()
        # A daemon, so that Ctrl-C ends a process whose model is being loaded; stop() waits for the thread.
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._changed = threading.Condition()
        self._arriving: list[Job] = []
        self._jobs: set[Job] = set()
        self._sequences: dict[int, tuple[Job, int]] = {}  # the engine's key -> job and output; the thread's own
        self._stopping = False
        self._trouble: str | None = "the model is not loaded yet"
        metrics.waiting.set_function(lambda: self._count(lambda job: job.waiting))
        metrics.running.set_function(lambda: self._count(lambda job: job.running))

    def __enter__(self) -> "Service":
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
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def close(self) -> None:
        """Takes nothing more in; what is not done fails as Unavailable."""
        with self._changed:
            self._trouble = self._trouble or _STOPPING
            for job in self._jobs:
                job.tell(Failed(Unavailable(_STOPPING)))
                job.dropped = True
            self._arriving.clear()

    @property
    def model(self) -> MusicModel:
        """What was loaded. The engine is the thread's alone, but for its name and sizes."""
        return self._loading.result()

    @property
    def trouble(self) -> str | None:
        """Why nothing is taken in, or None."""
        if self._trouble is None and not self._thread.is_alive():
            return "the engine's thread has ended"
        return self._trouble

    def submit(self, request: MusicRequest, hear: Callable[[Event], None]) -> Job:
        """Takes a request in.

        Args:
            request: what to write.
            hear: is called in the engine's thread, must return at once and not raise.

        Raises:
            Busy: too many sequences wait.
            Unavailable: see :attr:`trouble`.
            UserError: the prompt leaves no room for music.
        """
        requests = token_requests(self.model, request)
        with self._changed:
            if self.trouble is not None:
                raise Unavailable(self.trouble)
            waiting = sum(len(job.waiting) for job in self._jobs)
            if waiting + len(requests) > self._max_waiting:
                raise Busy(f"{waiting} pieces wait, and {self._max_waiting} may; come back later")
            job = Job(requests, hear)
            self._arriving.append(job)
            self._jobs.add(job)
            self._changed.notify()
        return job

    def drop(self, job: Job) -> None:
        """Nobody wants it any more, done or not: ``hear`` is not called again, and its places become free."""
        with self._changed:
            job.dropped = True
            if job in self._arriving:
                self._arriving.remove(job)
                self._jobs.discard(job)

    def _count(self, outputs: Callable[[Job], set[int]]) -> int:
        with self._changed:
            return sum(len(outputs(job)) for job in self._jobs)

    def _work(self) -> None:
        try:
            model = self._load()
        except BaseException as error:
            self._loading.set_exception(error)
            return
        self._trouble = None
        self._loading.set_result(model)
        try:
            self._serve(model.engine)
        except BaseException as error:
            _log.exception("the engine failed; nothing more is taken in")
            # A UserError is a sentence for people; what else went wrong is for the log.
            reason = f"the engine failed: {error}" if isinstance(error, UserError) else "the engine failed"
            with self._changed:
                self._trouble = reason
                for job in self._jobs:
                    job.tell(Failed(EngineFailed(reason)))
                self._jobs.clear()
                self._arriving.clear()

    def _serve(self, engine: Engine) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._jobs)
                if self._stopping:
                    return
                arriving, self._arriving = self._arriving, []
                dropped = [job for job in self._jobs if job.dropped]
            for job in dropped:
                self._forget(engine, job)
            for job in arriving:
                self._take(engine, job)
            if self._sequences:
                for part in engine.step():
                    self._deliver(part)

    def _forget(self, engine: Engine, job: Job) -> None:
        for key in [key for key, (owner, _) in self._sequences.items() if owner is job]:
            engine.drop(key)
            del self._sequences[key]
        with self._changed:
            self._jobs.discard(job)

    def _take(self, engine: Engine, job: Job) -> None:
        keys: list[int] = []
        refusal: UserError | EngineFailed | None = None
        try:
            for request in job.requests:
                keys.append(engine.add(request))
        except UserError as error:
            refusal = error
        except Exception:
            _log.exception("the engine failed to take a request in")
            refusal = EngineFailed("the engine failed to take this request in")
        if refusal is not None:
            for key in keys:
                engine.drop(key)
            with self._changed:
                self._jobs.discard(job)
                job.tell(Failed(refusal))
            return
        self._sequences.update((key, (job, output)) for output, key in enumerate(keys))
        with self._changed:
            job.tell(Taken(job.seconds()))

    def _deliver(self, part: Written) -> None:
        job, output = self._sequences[part.key]
        self._tokens.inc(len(part.amt_ids))
        with self._changed:
            job.waiting.discard(output)
            job.running.add(output)
            if part.done:
                job.running.discard(output)
                del self._sequences[part.key]
                if not job.waiting and not job.running:
                    self._jobs.discard(job)
            job.tell(Wrote(job.seconds(), output, part.amt_ids, part.done))
