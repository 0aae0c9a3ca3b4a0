"""What happens on the page when somebody writes, opens, stops or goes back; what they see of it. No Gradio in here."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import PurePath

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.music import clock
from midillm_jax.music.terms import listed
from midillm_jax.serving import places, roll_view, wishes
from midillm_jax.serving.roll_view import View
from midillm_jax.serving.versions import Version, Visit, Visits
from midillm_jax.serving.wishes import Plan, Wish
from midillm_jax.serving.writer import Done, Event, Job, Reached, Stopped, Waiting, Writer, Wrote

_UPDATE_SECONDS = 0.25
"""Between two pictures of the notes that come."""
_RENDERERS = 2
"""FluidSynths at a time; each takes a core."""
_NAME_LETTERS = 60
_TITLE_LETTERS = 48
"""Of a version in the list."""
_STAGES = {
    "compile": "Compiling for this length, which takes some seconds the first time",
    "prefill": "Reading what is there",
    "decode": "Writing",
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """What is on the page now."""

    status: str
    view: View
    busy: bool = False
    """Something is being written, and can be stopped."""
    problem: bool = False
    """The status says what to mend."""
    plan: str | None = None
    """Of an edit; None where it stays as it is."""


class Desk:
    """The page's handlers, for all tabs. They are called in the server's event loop."""

    def __init__(self, writer: Writer, visits: Visits, bounds: wishes.Bounds) -> None:
        self.writer, self.visits, self.bounds = writer, visits, bounds
        self._rendering = asyncio.Semaphore(_RENDERERS)

    def arrive(self, name: str) -> Shown:
        """A tab was opened."""
        return _unchanged(self.visits.of(name), "")

    def refuse(self, name: str, error: UserError) -> Shown:
        """Says what is wrong with what was asked; what is on the page stays there."""
        visit = self.visits.of(name)
        return _unchanged(visit, str(error), problem=True, busy=visit.job is not None)

    async def write(self, name: str, wish: Wish) -> AsyncIterator[Shown]:
        """Writes what is wished for, and shows it while it comes; each take becomes a version."""
        visit = self.visits.of(name)
        origin = visit.version
        before = visit.current
        try:
            plan = await asyncio.to_thread(_plan, wish, origin, self.bounds)
            if visit.job is not None:  # asked here, as nothing else of this tab comes between this and the next line
                yield _occupied(visit)
                return
            visit.job = job = (self.writer.submit if plan.needs_model else self.writer.submit_beside)(plan.work)
        except UserError as error:
            yield _unchanged(visit, str(error), problem=True)
            return
        try:
            takes: list[wishes.Take] = []
            async for event, shown in self._progress(job, plan, origin):
                if isinstance(event, Done):
                    takes = event.result
                yield shown
            # Every take follows the version that it was made from.
            made = []
            for number, take in enumerate(takes, 1):
                visit.current = before
                title = plan.title if len(takes) == 1 else f"{plan.title} (take {number})"
                made.append(await asyncio.to_thread(visit.add, take.midi, title, take.account))
            visit.current = made[0].number
        except Stopped:
            yield _unchanged(visit, "Stopped; nothing was kept of it")
            return
        except UserError as error:
            visit.current = before
            yield _unchanged(visit, str(error), problem=True)
            return
        finally:
            # However it ended, a closed tab included, the engine is free for others.
            job.stop()
            visit.job = None
        async for shown in self._show(visit, made[0], "Written" if plan.edit is None else "Edited"):
            yield shown

    async def _progress(self, job: Job, plan: Plan, origin: Version | None) -> AsyncIterator[tuple[Event, Shown]]:
        view = await asyncio.to_thread(_beginning, plan, origin)
        new: list[np.ndarray] = []
        status, told = "", 0.0
        async for event in job.events():
            if isinstance(event, Wrote) and event.output == 0:
                new.append(event.events)
            elif isinstance(event, Waiting):
                status = f"Waiting; {event.before} before you" if event.before else "About to begin"
            elif isinstance(event, Reached):
                status = _STAGES[event.stage]
                if event.stage == "decode" and plan.edit is None:
                    status += f": {event.seconds:.0f} of at most {plan.seconds:.0f} s"
            now = time.monotonic()
            if isinstance(event, Done) or now - told >= _UPDATE_SECONDS:
                if new:
                    view = roll_view.written(view, np.concatenate(new))
                    new.clear()
                told = now
                yield event, Shown(status, view, busy=True, plan=plan.edit)

    async def read_words(self, name: str, words: str) -> Shown:
        """Shows the plan that the words of an edit mean, and changes nothing."""
        visit = self.visits.of(name)
        if visit.job is not None:
            return _occupied(visit)
        score = None if visit.version is None else visit.version.score
        try:
            plan = await asyncio.to_thread(wishes.plan_text, Wish("edit", words=words), score)
        except UserError as error:
            return _unchanged(visit, str(error), problem=True)
        return dataclasses.replace(_unchanged(visit, "This is the plan; change it as you like"), plan=plan)

    async def open(self, name: str, file_name: str, data: bytes) -> AsyncIterator[Shown]:
        """A person's file becomes a version."""
        visit = self.visits.of(name)
        if visit.job is not None:
            yield _occupied(visit)
            return
        # The name may be a path, and as long as somebody likes.
        shown_name = PurePath(file_name.replace("\\", "/")).name[:_NAME_LETTERS] or "the file"
        try:
            version = await asyncio.to_thread(visit.add, data, shown_name, "")
        except UserError as error:
            yield _unchanged(visit, str(error), problem=True)
            return
        async for shown in self._show(visit, version, "Opened"):
            yield shown

    async def undo(self, name: str) -> AsyncIterator[Shown]:
        """Goes back a step."""
        visit = self.visits.of(name)
        if visit.job is not None:
            yield _occupied(visit)
            return
        version = visit.undo()
        if version is None:
            yield _unchanged(visit, "There is no earlier version to go back to")
            return
        async for shown in self._show(visit, version, f"Back to version {version.number}"):
            yield shown

    async def go_to(self, name: str, number: int) -> AsyncIterator[Shown]:
        """Shows another version."""
        visit = self.visits.of(name)
        if visit.job is not None:
            yield _occupied(visit)
            return
        try:
            version = visit.go_to(number)
        except UserError as error:
            yield _unchanged(visit, str(error), problem=True)
            return
        async for shown in self._show(visit, version, f"Version {number}"):
            yield shown

    def mark(self, name: str, kind: wishes.Kind, where: str) -> Shown:
        """Shows in the roll which stretch or place a text means."""
        visit = self.visits.of(name)
        version = visit.version
        shown = _unchanged(visit, "")
        if version is None or not where.strip():
            return dataclasses.replace(shown, view=shown.view | {"span": None})
        score = version.score
        try:
            if kind == "continue":
                start = places.place(score, where)
                assert start is not None
                span = (start, clock.music_end(score))
            else:
                found = places.stretch(score, where)
                assert found is not None
                span = found
        except UserError as error:
            return _unchanged(visit, str(error), problem=True)
        tempos = clock.tempo_map(score)
        return dataclasses.replace(shown, view=shown.view | {"span": [tempos.seconds(tick) for tick in span]})

    def unmark(self, name: str) -> View | None:
        """The roll with no stretch marked; None while it shows what is being written."""
        visit = self.visits.of(name)
        return None if visit.job is not None else _unchanged(visit, "").view | {"span": None}

    def stop(self, name: str) -> None:
        """Ends what is being written for a tab; its :meth:`write` says so."""
        self.visits.of(name).stop()

    def leave(self, name: str) -> None:
        """A tab was closed."""
        self.visits.leave(name)

    async def _show(self, visit: Visit, version: Version, what: str) -> AsyncIterator[Shown]:
        """A version: its notes at once, its picture and its sound when they are rendered."""
        status = f"{what}: {version.account}" if version.account else what
        if not version.sound.is_file():
            yield Shown(f"{status}. Rendering the sound", roll_view.shown(version))
        sound, silence = None, None
        try:
            async with self._rendering:
                await asyncio.to_thread(version.draw)
                sound = await asyncio.to_thread(version.play)
        except UserError as error:
            silence = str(error)
        if visit.version is version:  # nobody has gone elsewhere meanwhile
            yield Shown(status, roll_view.shown(version, sound, silence))


def _plan(wish: Wish, origin: Version | None, bounds: wishes.Bounds) -> Plan:
    return wishes.plan(wish, None, bounds) if origin is None else wishes.plan(wish, origin.score, bounds, origin.music)


def _beginning(plan: Plan, origin: Version | None) -> View:
    """The roll before anything comes."""
    if origin is not None and plan.change is not None:
        return roll_view.being_written(origin, plan.change, plan.start, plan.seconds)
    if origin is not None and plan.edit is not None:
        return roll_view.being_edited(origin)
    return roll_view.nothing() | {"seconds": plan.seconds}


def _unchanged(visit: Visit, status: str, *, problem: bool = False, busy: bool = False) -> Shown:
    """What is on the page stays there."""
    version = visit.version
    if version is None:
        return Shown(status, roll_view.nothing(), busy, problem)
    sound = version.sound if version.sound.is_file() else None
    return Shown(status, roll_view.shown(version, sound), busy, problem)


def _occupied(visit: Visit) -> Shown:
    return _unchanged(visit, "A piece is being written; stop it first, or wait for it", problem=True, busy=True)


def facts(version: Version) -> str:
    """How a version is listed."""
    names = [name for _, name, _ in roll_view.legend(version.table)]
    few = listed([*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else names)
    title = version.title if len(version.title) <= _TITLE_LETTERS else version.title[: _TITLE_LETTERS - 1] + "\u2026"
    return f"{version.number} \u00b7 {title} \u00b7 {version.table.seconds():.0f} s, {few}"
