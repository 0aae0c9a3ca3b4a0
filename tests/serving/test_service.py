"""The engine's thread: what it takes in, when, what it hands back, what it drops, how it fails."""

import queue
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import MusicModel, load_model, token_requests
from midillm_jax.inference.engine import Stage, Written
from midillm_jax.inference.request import MusicRequest, TokenRequest
from midillm_jax.serving.metrics import Metrics
from midillm_jax.serving.service import Busy, EngineFailed, Event, Failed, Service, Taken, Unavailable, Wrote
from midillm_jax.text.tokenizer import Tokenizer
from tests.inference.parts import words_tokenizer
from tests.serving.parts import PATIENCE, SteppedEngine, make_model, wait_until

DRUM = MusicRequest("a warm drum plays", seed=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return words_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def engine() -> SteppedEngine:
    return SteppedEngine()


@pytest.fixture
def model(tokenizer: Tokenizer, engine: SteppedEngine) -> MusicModel:
    return make_model(tokenizer, engine)


class Heard:
    """Events of a job in order."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def next(self) -> Event:
        return self.events.get(timeout=PATIENCE)

    def rest(self, outputs: int = 1) -> list[np.ndarray]:
        """All ids of each output, until all are done."""
        parts: list[list[np.ndarray]] = [[] for _ in range(outputs)]
        while outputs:
            event = self.next()
            assert not isinstance(event, Failed), event.error
            if isinstance(event, Wrote):
                parts[event.output].append(event.amt_ids)
                outputs -= event.done
        return [np.concatenate(part) for part in parts]


def service(model: MusicModel, max_waiting: int = 8, metrics: Metrics | None = None) -> Service:
    return Service(lambda: model, max_waiting, metrics or Metrics())


def test_a_job_gets_what_the_engine_writes_and_tokens_are_counted(model: MusicModel) -> None:
    request = MusicRequest("a cold horn plays", outputs=3, seed=7)
    expected = model.engine.generate(token_requests(model, request))
    metrics, heard = Metrics(), Heard()
    with service(model, metrics=metrics) as running:
        running.submit(request, heard)
        assert isinstance(heard.next(), Taken)
        written = heard.rest(3)
    assert [ids.tolist() for ids in written] == [ids.tolist() for ids in expected]
    assert metrics.registry.get_sample_value("midillm_tokens_total") == sum(map(len, expected))


def test_the_engine_gets_a_request_while_it_writes_another(model: MusicModel, engine: SteppedEngine) -> None:
    first, second = Heard(), Heard()
    with service(model) as running:
        engine.allow(2)  # a prefill and a triple
        running.submit(DRUM, first)
        assert [type(first.next()) for _ in range(2)] == [Taken, Wrote]
        running.submit(DRUM, second)
        engine.allow(1)
        assert isinstance(second.next(), Taken)
        following = first.next()
        assert isinstance(following, Wrote)
        assert not following.done
        engine.allow(100)
        assert len(first.rest()) == len(second.rest()) == 1


def test_what_waits_is_bounded_and_what_is_begun_does_not_wait(model: MusicModel, engine: SteppedEngine) -> None:
    first, metrics = Heard(), Metrics()
    with service(model, max_waiting=2, metrics=metrics) as running:
        engine.allow(0)
        running.submit(MusicRequest("a lute", outputs=2), first)
        with pytest.raises(Busy, match="2 pieces wait, and 2 may"):
            running.submit(DRUM, Heard())
        assert metrics.registry.get_sample_value("midillm_sequences_waiting") == 2
        engine.allow(2)
        assert [type(first.next()) for _ in range(3)] == [Taken, Wrote, Wrote]
        assert metrics.registry.get_sample_value("midillm_sequences_waiting") == 0
        assert metrics.registry.get_sample_value("midillm_sequences_running") == 2
        running.submit(MusicRequest("a lute", outputs=2), Heard())
        engine.allow(100)


@pytest.mark.parametrize("steps", [0, 2])
def test_what_is_dropped_leaves_the_engine(model: MusicModel, engine: SteppedEngine, steps: int) -> None:
    heard, other, metrics = Heard(), Heard(), Metrics()
    with service(model, metrics=metrics) as running:
        engine.allow(steps)
        job = running.submit(DRUM, heard)
        for _ in range(1 + steps // 2):
            assert not isinstance(heard.next(), Failed)
        running.drop(job)
        engine.allow(1)
        wait_until(engine.empty, "the engine forgets the request")
        assert heard.events.empty()
        assert metrics.registry.get_sample_value("midillm_sequences_running") == 0
        engine.allow(100)
        running.submit(DRUM, other)
        assert len(other.rest()[0]) > 3


def test_what_is_dropped_before_the_engine_has_it_is_never_added(model: MusicModel, engine: SteppedEngine) -> None:
    first, second = Heard(), Heard()
    with service(model) as running:
        engine.allow(0)
        running.submit(DRUM, first)
        assert isinstance(first.next(), Taken)  # the thread now waits in a step
        running.drop(running.submit(DRUM, second))
        engine.allow(100)
        first.rest()
        wait_until(engine.empty, "nothing is left")
    assert second.events.empty()


def test_a_request_that_the_engine_refuses_fails_alone(tokenizer: Tokenizer) -> None:
    model = make_model(tokenizer, length=4096)  # more than the engine's context
    bad, good = Heard(), Heard()
    with service(model) as running:
        running.submit(MusicRequest("a lute", outputs=2, max_notes=2000), bad)
        running.submit(MusicRequest("a lute", max_notes=5), good)
        refused = bad.next()
        assert isinstance(refused, Failed)
        assert isinstance(refused.error, UserError)
        assert "the model's context holds 440" in str(refused.error)
        assert isinstance(good.next(), Taken)
        good.rest()
        assert running.trouble is None


def test_a_prompt_without_room_is_refused_at_once(model: MusicModel) -> None:
    with service(model) as running, pytest.raises(UserError, match="shorten the prompt"):
        running.submit(MusicRequest("drum horn lute " * 400), Heard())


def test_weights_that_are_not_finite_end_the_service(tokenizer: Tokenizer) -> None:
    engine = SteppedEngine(scale=float("nan"))
    first, second = Heard(), Heard()
    with service(make_model(tokenizer, engine)) as running:
        engine.allow(0)
        running.submit(DRUM, first)
        running.submit(DRUM, second)
        engine.allow(100)
        for heard in (first, second):
            event = heard.next()
            while not isinstance(event, Failed):
                event = heard.next()
            assert isinstance(event.error, EngineFailed)
            assert "numbers that are not finite" in str(event.error)
        with pytest.raises(Unavailable, match="not finite"):
            running.submit(DRUM, Heard())


class Breaking(SteppedEngine):
    """Breaks where a test says."""

    breaks_in = "step"

    def add(self, request: TokenRequest) -> int:
        if self.breaks_in == "add":
            raise RuntimeError("secret of add")
        return super().add(request)

    def step(self, tell: Callable[[Stage], None] = lambda stage: None) -> list[Written]:
        if self.breaks_in == "step":
            raise RuntimeError("secret of step")
        return super().step(tell)


def test_a_step_that_breaks_ends_the_service_and_is_logged(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    with service(make_model(tokenizer, Breaking())) as running:
        running.submit(DRUM, heard)
        assert isinstance(heard.next(), Taken)
        failed = heard.next()
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, EngineFailed)
        assert str(failed.error) == "the engine failed"
        assert running.trouble == "the engine failed"
    assert "secret of step" in caplog.text


def test_a_fault_while_taking_one_in_is_that_requests_alone(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    engine, bad, good = Breaking(), Heard(), Heard()
    engine.breaks_in = "add"
    with service(make_model(tokenizer, engine)) as running:
        running.submit(DRUM, bad)
        failed = bad.next()
        assert isinstance(failed, Failed)
        assert "secret" not in str(failed.error)
        engine.breaks_in = ""
        running.submit(DRUM, good)
        good.rest()
    assert "secret of add" in caplog.text


def test_a_model_that_cannot_be_loaded_is_said_where_it_is_started(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no such folder"),
        Service(lambda: load_model(tmp_path / "missing"), 8, Metrics()),
    ):
        pytest.fail("it started")


def test_the_end_is_told_to_whoever_still_waits(model: MusicModel, engine: SteppedEngine) -> None:
    begun, arriving = Heard(), Heard()
    with service(model) as running:
        engine.allow(2)
        running.submit(DRUM, begun)
        assert [type(begun.next()) for _ in range(2)] == [Taken, Wrote]
        running.submit(DRUM, arriving)
        running.close()
        for heard in (begun, arriving):
            last = heard.next()
            assert isinstance(last, Failed)
            assert isinstance(last.error, Unavailable)
        with pytest.raises(Unavailable, match="the server is stopping"):
            running.submit(DRUM, Heard())
        engine.allow(1)
        wait_until(engine.empty, "the engine forgets both")
    assert begun.events.empty()
    assert arriving.events.empty()
