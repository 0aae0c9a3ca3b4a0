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
from collections.abc import Iterable, Iterator

from midillm_jax.data.jobs import Job, Outcome
from midillm_jax.data.sources import Record
from midillm_jax.errors import UserError

_CHUNK = 16
"""Records handed to a process at a time: enough to hide the hand-over, few enough to keep memory flat."""
_CHUNKS_AHEAD = 4
"""Chunks a process that are under way or waiting to be taken."""

_Waiting = collections.deque[tuple[list[Record], concurrent.futures.Future[list[Outcome]]]]


def run_ordered(job: Job, records: Iterable[Record], workers: int) -> Iterator[tuple[Record, Outcome]]:
    """Yields every record with its outcome, in order.

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
        waiting: _Waiting = collections.deque()
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


def _next(waiting: _Waiting) -> Iterator[tuple[Record, Outcome]]:
    chunk, future = waiting.popleft()
    try:
        outcomes = future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            f"a worker process ended while reading {chunk[0].name} or one of the records after it, perhaps for want "
            "of memory; try again with fewer --workers"
        ) from error
    yield from zip(chunk, outcomes, strict=True)


def _run_chunk(job: Job, chunk: list[Record]) -> list[Outcome]:
    outcomes = []
    for record in chunk:
        try:
            outcomes.append(job(record))
        except Exception as error:
            error.add_note(f"while preparing {record.name}")
            raise
    return outcomes


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
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
