"""A small model, its engine under a test's control, and a server of it on the loopback."""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jax
from prometheus_client.parser import text_string_to_metric_families

from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.engine import Stage, Written
from midillm_jax.inference.jax_engine import Compiled, JaxEngine
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.serving import http
from midillm_jax.serving.api import create_app
from midillm_jax.serving.metrics import Metrics
from midillm_jax.serving.schema import Bounds
from midillm_jax.serving.service import Service
from midillm_jax.text.tokenizer import Tokenizer
from tests.inference.parts import CONFIG as SMALL
from tests.inference.parts import untrained

CONFIG = dataclasses.replace(SMALL, context_length=440)  # so that all caches have 512 places, and one shape compiles
BOUNDS = Bounds(outputs=4, prompt_letters=1500, body_bytes=4096, seconds=120)
PATIENCE = 60
"""Seconds that a test waits for what should happen at once."""
_compiled: Compiled = {}


class SteppedEngine(JaxEngine):
    """The JAX engine, a triple a step, and only as many steps as a test allows."""

    def __init__(self, scale: float = 1.0) -> None:
        definition = Definition(CONFIG, INFERENCE)
        params = jax.tree.map(lambda leaf: leaf * scale, definition.init(jax.random.key(0)))
        super().__init__(definition, params, compiled=_compiled, step_triples=1)
        self._buckets = [4]  # one shape to compile for all tests
        self._left = math.inf
        self._changed = threading.Condition()

    def allow(self, steps: float) -> None:
        with self._changed:
            self._left = steps
            self._changed.notify()

    def step(self, tell: Callable[[Stage], None] = lambda stage: None) -> list[Written]:
        with self._changed:
            self._changed.wait_for(lambda: self._left > 0)
            self._left -= 1
        return super().step(tell)

    def empty(self) -> bool:
        return not self._waiting and self._running is None


def make_folder(folder: Path) -> Path:
    return untrained(folder, CONFIG, "small")


def make_model(tokenizer: Tokenizer, engine: JaxEngine | None = None, length: int | None = None) -> MusicModel:
    return MusicModel(engine or SteppedEngine(), tokenizer, True, length or CONFIG.context_length)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    for _ in range(PATIENCE * 50):
        if holds():
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"not within {PATIENCE} seconds: {what}")


@dataclasses.dataclass
class Served:
    url: str
    model: MusicModel
    client: httpx.Client

    @property
    def engine(self) -> SteppedEngine:
        assert isinstance(self.model.engine, SteppedEngine)
        return self.model.engine

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics, 0 if there is none."""
        text = self.client.get("/metrics").raise_for_status().text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(sample.value for sample in samples if (sample.name, sample.labels) == (name, labels))

    def post(self, **fields: Any) -> httpx.Response:
        return self.client.post("/v1/music", json=fields)


@contextlib.contextmanager
def serving(model: MusicModel, *, max_waiting: int = 64, **bounds: Any) -> Iterator[Served]:
    """A real server in a thread."""
    metrics = Metrics()
    bound = http.bind("127.0.0.1", 0)
    engine = model.engine
    with bound, Service(lambda: model, max_waiting, metrics) as service:
        app = create_app(service, metrics, "small", dataclasses.replace(BOUNDS, **bounds))
        server = http.Server(app, 0, service.close)
        listening, urls = threading.Event(), []

        def started(url: str) -> None:
            urls.append(url)
            listening.set()

        thread = threading.Thread(target=http.run, args=(server, bound, started))
        thread.start()
        assert listening.wait(PATIENCE)
        try:
            with httpx.Client(base_url=urls[0], timeout=PATIENCE) as client:
                yield Served(urls[0], model, client)
        finally:
            if isinstance(engine, SteppedEngine):
                engine.allow(math.inf)
            server.should_exit = True
            thread.join()
