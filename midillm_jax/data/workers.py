"""A job over many records in several processes, with results in the records' order and memory that stays flat."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from midillm_jax.errors import UserError

_CHUNK = 16
"""Records handed to a process at a time: enough to hide the hand-over, few enough to keep memory flat."""
_CHUNKS_AHEAD = 4
"""Chunks a process that are under way or waiting to be taken."""


class Named(Protocol):
    """What a job is done on: a data/sources.py Record, or anything else that can be pickled and has a name."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)
Made = TypeVar("Made")
_Waiting = collections.deque[tuple[list[Item], concurrent.futures.Future[list[Made]]]]


def run_ordered(job: Callable[[Item], Made], records: Iterable[Item], workers: int) -> Iterator[tuple[Item, Made]]:
    """Yields every record with what the job makes of it, in order. The job and what it makes can be pickled.

    Processes import this program anew, so a script that calls this guards its own start with ``__main__``.

    Raises:
        UserError: a process was killed from outside.
    """
    chunks = _chunks(records)
    if workers == 1:
        for chunk in chunks:
            yield from zip(chunk, _run_chunk(job, chunk), strict=True)
        return
    # spawn: the same on every system, and safe whatever threads this process has.
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_follow_parent
    ) as pool:
        waiting: _Waiting[Item, Made] = collections.deque()
        try:
            for chunk in chunks:
                with _held_interrupts():
                    waiting.append((chunk, pool.submit(_run_chunk, job, chunk)))
                if len(waiting) >= _CHUNKS_AHEAD * workers:
                    yield from _next(waiting)
            while waiting:
                yield from _next(waiting)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _next(waiting: _Waiting[Item, Made]) -> Iterator[tuple[Item, Made]]:
    chunk, future = waiting.popleft()
    try:
        outcomes = future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            f"a worker process ended while reading {chunk[0].name} or one of the records after it, perhaps for want "
            "of memory; try again with fewer --workers"
        ) from error
    yield from zip(chunk, outcomes, strict=True)


def _run_chunk(job: Callable[[Item], Made], chunk: list[Item]) -> list[Made]:
    outcomes = []
    for record in chunk:
        try:
            outcomes.append(job(record))
        except Exception as error:
            error.add_note(f"while preparing {record.name}")
            raise
    return outcomes


def _chunks(records: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(records)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


@contextlib.contextmanager
def _held_interrupts() -> Iterator[None]:
    """Keeps Ctrl-C waiting while ``submit`` may start a process, which inherits that: it is the parent's to handle."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """In a worker: Ctrl-C is left to the parent, and a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
