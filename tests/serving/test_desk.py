"""What people see as they write, open, stop and go back: the page's handlers, without a page."""

import asyncio
import contextlib
import dataclasses
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from midillm_jax.inference.compose import MusicModel, load_model
from midillm_jax.music import clock
from midillm_jax.music.parts import read_notes
from midillm_jax.serving.desk import Desk, Shown, facts
from midillm_jax.serving.versions import Visits
from midillm_jax.serving.wishes import Bounds, Wish
from midillm_jax.serving.writer import Writer
from tests.inference.parts import band_files, untrained

PATIENCE = 60
NEW = Wish("new", prompt="a warm horn plays", seconds=5, seed=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MusicModel:
    return load_model(untrained(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return band_files(tmp_path_factory.mktemp("band"), 1)[0].read_bytes()


@pytest.fixture
def desk(model: MusicModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Desk]:
    monkeypatch.setenv("PATH", str(tmp_path))  # no FluidSynth, so that nothing waits for sound
    with Visits() as visits, Writer(lambda: model, max_waiting=4) as writer:
        yield Desk(writer, visits, Bounds(outputs=3, prompt_letters=200))


async def all_of(shown: AsyncIterator[Shown]) -> list[Shown]:
    return [each async for each in shown]


def test_a_piece_is_written_in_sight_and_is_a_version(desk: Desk) -> None:
    seen = asyncio.run(all_of(desk.write("tab", NEW)))
    busy = [each for each in seen if each.busy]
    assert busy
    assert busy == seen[: len(busy)]
    # Notes are only ever added while they come, and all that came are in the piece.
    counts = [len(each.view["fresh"]) for each in busy]
    assert counts == sorted(counts)
    version = desk.visits.of("tab").version
    assert version is not None
    assert counts[-1] == len(version.table) == len(seen[-1].view["notes"]) > 0
    assert seen[-1].status.startswith(f"Written: {counts[-1]} note")
    assert seen[-1].view["midi"].endswith("1-a-warm-horn-plays.mid")
    assert "1 \u00b7 a warm horn plays \u00b7 " in facts(version)


def test_without_fluidsynth_the_page_says_what_to_install(desk: Desk) -> None:
    view = asyncio.run(all_of(desk.write("tab", NEW)))[-1].view
    assert view["sound"] is None
    assert "Audio needs FluidSynth, which was not found: " in view["silence"]
    assert view["midi"] is not None


def test_the_same_seed_writes_the_same_and_takes_differ(desk: Desk) -> None:
    async def ask() -> None:
        await all_of(desk.write("tab", NEW))
        await all_of(desk.write("tab", Wish("new", prompt=NEW.prompt, seconds=5, seed=5, outputs=3)))

    asyncio.run(ask())
    visit = desk.visits.of("tab")
    first, *takes = [version.midi.read_bytes() for version in visit.versions]
    assert takes[0] == first
    assert len(set(takes)) == 3
    # All takes come from the first version, and the first of them is on the page.
    assert [version.before for version in visit.versions] == [None, 1, 1, 1]
    assert visit.current == 2
    assert visit.versions[3].title == "a warm horn plays (take 3)"


def test_infill_undo_and_back_again(desk: Desk, piece: bytes) -> None:
    async def ask() -> tuple[list[Shown], ...]:
        return (
            await all_of(desk.open("tab", "C:\\music\\../mine.mid", piece)),
            await all_of(desk.write("tab", Wish("infill", where="2-3", seed=1))),
            await all_of(desk.undo("tab")),
            await all_of(desk.go_to("tab", 2)),
            await all_of(desk.undo("tab")),
            await all_of(desk.undo("tab")),
        )

    opened, filled, undone, again, _, nothing = asyncio.run(ask())
    assert opened[-1].view["title"] == "mine.mid"
    before, after = desk.visits.of("tab").versions
    assert before.midi.read_bytes() == piece
    span = next(each.view["span"] for each in filled if each.busy)
    inside = [row for row in filled[0].view["notes"] if span[0] <= row[0] < span[1] - 0.02]
    assert not inside, "notes that go are gone from the roll while others come"
    assert after.title == "Filled in bars 2\u20133"
    assert len(read_notes(after.score).notes) == len(filled[-1].view["notes"])
    assert undone[-1].view["notes"] == opened[-1].view["notes"] != again[-1].view["notes"] == filled[-1].view["notes"]
    assert nothing[-1].status == "There is no earlier version to go back to"
    assert nothing[-1].view["notes"] == opened[-1].view["notes"]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish("continue", where="bar 900"), "is beyond its end"),
        (Wish("new", prompt="la" * 101), "The prompt has 202 letters"),
        (Wish("new", prompt="\u266b" * 190), "prompt takes"),
    ],
)
def test_what_cannot_be_done_is_said_and_what_was_there_stays(desk: Desk, piece: bytes, wish: Wish, said: str) -> None:
    async def ask() -> tuple[list[Shown], list[Shown]]:
        return await all_of(desk.open("tab", "a.mid", piece)), await all_of(desk.write("tab", wish))

    opened, refused = asyncio.run(ask())
    assert said in refused[-1].status
    assert refused[-1].problem
    assert not refused[-1].busy
    assert refused[-1].view["notes"] == opened[-1].view["notes"]
    assert desk.visits.of("tab").current == 1


def test_a_file_that_is_no_music_is_said_by_its_name_alone(desk: Desk) -> None:
    shown = asyncio.run(all_of(desk.open("tab", "../../" + "x" * 500 + ".mid", b"<b>no music</b>")))[-1]
    assert shown.problem
    assert shown.status.startswith("x" * 60 + ": does not begin with a MIDI file's header")
    assert not desk.visits.of("tab").versions


def test_others_wait_their_turn_and_stop_frees_the_engine(desk: Desk) -> None:
    begun, go = threading.Event(), threading.Event()

    def blocking(*rest: Any) -> None:
        begun.set()
        assert go.wait(PATIENCE)

    async def ask() -> None:
        desk.writer.submit(blocking)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        stopped = asyncio.create_task(all_of(desk.write("one", NEW)))
        waiting = asyncio.create_task(all_of(desk.write("two", NEW)))
        await asyncio.sleep(0.6)
        again = await all_of(desk.write("one", NEW))
        assert again[-1].status.startswith("A piece is being written; stop it first")
        desk.stop("one")
        seen = await stopped
        assert seen[0].status == "Waiting; 1 before you"
        assert (seen[-1].status, seen[-1].busy) == ("Stopped; nothing was kept of it", False)
        go.set()
        assert (await waiting)[-1].status.startswith("Written")

    asyncio.run(ask())
    assert not desk.visits.of("one").versions


@pytest.mark.parametrize("closed_by", ["the tab", "the connection"])
def test_a_tab_that_closes_frees_the_engine(desk: Desk, closed_by: str) -> None:
    async def ask() -> None:
        shown = desk.write("gone", Wish("new", seconds=300, seed=1))
        await anext(shown)
        job = desk.visits.of("gone").job
        assert job is not None
        if closed_by == "the tab":
            desk.leave("gone")
            with contextlib.suppress(StopAsyncIteration):
                while (await anext(shown)).busy:
                    pass
        else:
            await shown.aclose()  # type: ignore[attr-defined]
        assert job.stopped
        assert (await all_of(desk.write("next", NEW)))[-1].status.startswith("Written")

    asyncio.run(ask())
    assert not desk.visits.of("gone").versions


def test_the_roll_marks_what_a_text_means(desk: Desk, piece: bytes) -> None:
    asyncio.run(all_of(desk.open("tab", "a.mid", piece)))
    bars = dict(desk.arrive("tab").view["bars"])
    assert desk.mark("tab", "infill", "2-3").view["span"] == pytest.approx([bars[2], bars[4]], abs=0.001)
    assert desk.mark("tab", "continue", "bar 3").view["span"][0] == pytest.approx(bars[3], abs=0.001)
    assert desk.mark("tab", "infill", "").view["span"] is None
    wrong = desk.mark("tab", "infill", "the chorus")
    assert wrong.problem
    assert "span" not in wrong.view, "what is marked stays"


def test_an_edit_by_words_shows_its_plan_waits_for_no_engine_and_is_undone(desk: Desk, piece: bytes) -> None:
    begun, go = threading.Event(), threading.Event()

    def blocking(*rest: Any) -> None:
        begun.set()
        assert go.wait(PATIENCE)

    async def ask() -> tuple[Shown, list[Shown], list[Shown]]:
        await all_of(desk.open("tab", "a.mid", piece))
        desk.writer.submit(blocking)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        plan = await desk.read_words("tab", "everything an octave up in bars 2 to 3")
        edited = await all_of(desk.write("tab", Wish("edit", words="everything an octave up in bars 2 to 3")))
        go.set()
        return plan, edited, await all_of(desk.undo("tab"))

    plan, edited, undone = asyncio.run(ask())
    assert plan.plan == "bars 2-3: transpose +12 semitones [all]\n"
    assert (plan.problem, plan.busy) == (False, False)
    assert {each.plan for each in edited if each.busy} == {plan.plan}
    assert edited[-1].status.startswith("Edited: bars 2-3: transpose +12 semitones [all]: ")
    before, after = desk.visits.of("tab").versions
    assert after.title == "everything an octave up in bars 2 to 3"
    assert after.before == before.number
    assert sum(note.pitch for note in after.music.notes) > sum(note.pitch for note in before.music.notes)
    assert undone[-1].view["notes"] != edited[-1].view["notes"]
    assert desk.visits.of("tab").current == 1


def test_words_that_are_not_understood_are_named_and_nothing_is_done(desk: Desk, piece: bytes) -> None:
    async def ask() -> list[Shown]:
        nothing_yet = await desk.read_words("tab", "mute the drums")
        assert nothing_yet.status.startswith("There is no piece yet to edit")
        await all_of(desk.open("tab", "a.mid", piece))
        plan = await desk.read_words("tab", "make the chorus louder")
        written = await all_of(desk.write("tab", Wish("edit", words="make the chorus louder")))
        absent = await all_of(desk.write("tab", Wish("edit", words="mute the bagpipe")))
        return [plan, written[-1], absent[-1]]

    *unknown, absent = asyncio.run(ask())
    for shown in unknown:
        assert shown.status.startswith("'chorus' is not understood")
        assert (shown.problem, shown.plan) == (True, None)
    assert "has no 'bagpipe'" in absent.status
    assert len(desk.visits.of("tab").versions) == 1


def test_of_candidates_the_best_are_versions_and_the_others_are_said_why(desk: Desk, piece: bytes) -> None:
    async def ask() -> None:
        await all_of(desk.write("tab", dataclasses.replace(NEW, candidates=3)))
        await all_of(desk.open("tab", "a.mid", piece))
        await all_of(desk.write("tab", Wish("infill", where="2-3", seed=1, candidates=3, velocity=77)))

    asyncio.run(ask())
    new, own, filled = desk.visits.of("tab").versions
    for version in (new, filled):
        assert re.search(r", seed \d\. 3 takes: .*; kept [123]( \(.*\))?$", version.account)
    start, end = (clock.bar_map(own.score).start(bar) for bar in (2, 4))
    fresh = [note.velocity for note in filled.music.notes if start <= note.onset < end]
    assert set(fresh) == {77}


def test_a_version_has_a_picture_to_take_home(desk: Desk, piece: bytes) -> None:
    shown = asyncio.run(all_of(desk.open("tab", "a.mid", piece)))
    version = desk.visits.of("tab").version
    assert version is not None
    assert shown[-1].view["picture"].endswith("1-a-mid.svg")
    assert version.picture.read_text(encoding="utf-8").startswith("<svg ")
    assert desk.arrive("tab").view["picture"] == shown[-1].view["picture"]
