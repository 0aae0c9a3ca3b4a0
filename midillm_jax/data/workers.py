"""A function over many tasks in several processes, with results in the tasks' order and memory that stays flat."""

import collections
import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from midillm_jax.data.processes import held_interrupts
from midillm_jax.errors import UserError

_AHEAD = 3
"""Tasks a process that are under way or waiting to be taken: enough to hide the hand-over, few to keep memory flat."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_ordered(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """Yields ``function(task)`` for every task, in order; in this process if ``workers`` is 1.

    A task's ``str`` names it in messages.

    Processes import this program anew, so a script that calls this guards its own start with ``__main__``.

    Raises:
        UserError: a process was killed from outside.
    """
    if workers == 1:
        for task in tasks:
            yield function(task)
        return
    # spawn: the same on every system, and safe whatever threads this process has.
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_follow_parent
    ) as pool:
        waiting: collections.deque[tuple[str, concurrent.futures.Future[Result]]] = collections.deque()
        try:
            for task in tasks:
                with held_interrupts():  # submit may start a process
                    waiting.append((str(task), pool.submit(function, task)))
                if len(waiting) >= _AHEAD * workers:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(task: str, future: "concurrent.futures.Future[Result]") -> Result:
    try:
        return future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            f"a worker process ended while preparing {task}, perhaps for want of memory; try again with fewer --workers"
        ) from error


def _follow_parent() -> None:
    """In a worker: Ctrl-C is left to the parent, and a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
