"""The thread with the engine: one work after the other, a line, and an end when nobody wants it any more."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference import windows
from midillm_jax.inference.compose import MusicModel, load_model
from midillm_jax.inference.request import MusicRequest
from midillm_jax.serving.writer import Done, Event, Hear, Job, Stopped, Tell, Waiting, Writer, Wrote
from tests.inference.parts import untrained

PATIENCE = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MusicModel:
    return load_model(untrained(tmp_path_factory.mktemp("model")))


@pytest.fixture
def writer(model: MusicModel) -> Iterator[Writer]:
    with Writer(lambda: model, max_waiting=2) as writer:
        yield writer


def music(model: MusicModel, tell: Tell, hear: Hear) -> Any:
    place = windows.Place(end_ticks=500, max_notes=40, may_close=False)
    return windows.write(model, MusicRequest("a warm horn plays", seed=3), place, tell, hear)


async def all_of(job: Job) -> list[Event]:
    return [event async for event in job.events()]


def test_a_work_is_heard_note_by_note_and_done_in_the_thread_of_the_engine(writer: Writer) -> None:
    threads: list[threading.Thread] = []

    def work(model: MusicModel, tell: Tell, hear: Hear) -> Any:
        threads.append(threading.current_thread())
        return music(model, tell, hear)

    async def ask() -> list[Event]:
        return await all_of(writer.submit(work))

    events = asyncio.run(ask())
    done = events[-1]
    assert isinstance(done, Done)
    heard = np.concatenate([event.events for event in events if isinstance(event, Wrote)])
    np.testing.assert_array_equal(heard, done.result[0].events)
    assert threads[0].name == "engine"


def test_who_waits_hears_how_many_come_before_and_one_too_many_is_refused(writer: Writer) -> None:
    begun, go = threading.Event(), threading.Event()

    def blocking(model: MusicModel, tell: Tell, hear: Hear) -> str:
        begun.set()
        assert go.wait(PATIENCE)
        return "first"

    async def ask() -> tuple[list[Event], list[Event]]:
        first = asyncio.create_task(all_of(writer.submit(blocking)))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        second = writer.submit(lambda *rest: "second")
        third = writer.submit(lambda *rest: "third")
        assert [writer.before(second), writer.before(third)] == [1, 2]
        with pytest.raises(UserError, match="2 pieces wait to be written already"):
            writer.submit(lambda *rest: "fourth")
        third.stop()
        waiting = asyncio.create_task(all_of(second))
        await asyncio.sleep(0.6)  # longer than a look at the line takes
        go.set()
        return await first, await waiting

    first, second = asyncio.run(ask())
    assert first[-1] == Done("first")
    assert Waiting(1) in second
    assert second[-1] == Done("second")


def test_a_work_that_is_stopped_leaves_the_engine_to_the_next(writer: Writer, model: MusicModel) -> None:
    stopped = threading.Event()
    left: list[str] = []

    def long_music(model: MusicModel, tell: Tell, hear: Hear) -> None:
        def hear_and_wait(output: int, events: np.ndarray) -> None:
            hear(output, events)
            assert stopped.wait(PATIENCE)

        try:
            place = windows.Place(end_ticks=100_000, may_close=False)
            windows.write(model, MusicRequest(None), place, tell, hear_and_wait)
        except Stopped:
            left.append("stopped in the middle")
            raise

    async def ask() -> list[Event]:
        job = writer.submit(long_music)
        events = job.events()
        while not isinstance(await anext(events), Wrote):
            pass
        job.stop()
        stopped.set()
        with pytest.raises(Stopped):
            await anext(events)
        return await all_of(writer.submit(music))

    done = asyncio.run(ask())[-1]
    assert left == ["stopped in the middle"]
    alone: Any = music(model, lambda stage, seconds: None, lambda output, events: None)
    assert isinstance(done, Done)
    np.testing.assert_array_equal(done.result[0].events, alone[0].events)


def test_a_fault_is_one_sentence_and_the_next_work_is_done(writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    def faulty(*rest: object) -> None:
        raise ZeroDivisionError("a secret of the program")

    async def ask() -> list[Event]:
        with pytest.raises(UserError, match="a fault of this program") as raised:
            await all_of(writer.submit(faulty))
        assert "secret" not in str(raised.value)
        return await all_of(writer.submit(lambda *rest: "next"))

    assert asyncio.run(ask())[-1] == Done("next")
    assert "a secret of the program" in caplog.text


def test_a_writer_that_closes_stops_what_is_on_its_way(model: MusicModel) -> None:
    async def ask(writer: Writer) -> None:
        running = writer.submit(music)
        waiting = writer.submit(music)
        writer.close()
        for job in (running, waiting):
            with pytest.raises(Stopped):
                await all_of(job)
        with pytest.raises(UserError, match="the server is stopping"):
            writer.submit(music)

    with Writer(lambda: model, max_waiting=2) as writer:
        asyncio.run(ask(writer))


def test_a_model_that_cannot_be_loaded_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"), Writer(lambda: load_model(tmp_path / "none"), 1):
        pass


def test_what_leaves_the_engine_alone_does_not_wait_for_it_and_can_be_stopped(writer: Writer) -> None:
    begun, go = threading.Event(), threading.Event()

    def blocking(model: MusicModel, tell: Tell, hear: Hear) -> str:
        begun.set()
        while not go.wait(0.01):
            tell("decode", 0.0)
        return "through"

    async def ask() -> None:
        engine = writer.submit(blocking)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        events = await all_of(writer.submit_beside(lambda *rest: threading.current_thread().name))
        assert isinstance(events[-1], Done)
        assert events[-1].result != "engine"
        for_long = [writer.submit_beside(blocking), writer.submit_beside(blocking)]
        with pytest.raises(UserError, match="2 pieces wait"):
            writer.submit_beside(blocking)
        for job in for_long:
            job.stop()
            with pytest.raises(Stopped):
                await all_of(job)
        go.set()
        done = (await all_of(engine))[-1]
        assert done == Done("through")
        writer.close()
        with pytest.raises(UserError, match="the server is stopping"):
            writer.submit_beside(blocking)

    asyncio.run(ask())
