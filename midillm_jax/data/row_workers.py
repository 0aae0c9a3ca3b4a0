"""A host's rows made by several processes.

Worker w of W makes the rows of every W-th of this host's streams, and what a stream's rows hold depends on nothing
else, so the batches are those of one process whatever W is. Parts of batches come through a pipe from each worker; one
that nobody reads stands still, so that no worker runs far ahead.

Processes start with the first batch, at the state that was set by then. They end with :meth:`WorkerRows.close`, or with
this process, however it ends: a worker that finds its pipe closed at the other end stops. They are spawned, which is
safe whatever threads this process has, and import its main module anew; so a program of one's own guards its start::

    if __name__ == "__main__":
        main()

Grain's mp_prefetch (0.2.18) is not used: its state is that of its workers, so that a run cannot go on with another
number of them; they import Grain, hence JAX, and take 199 MB each, ours 74; and if this process is killed
they wait for ever. ``BatchDataset`` (data/batches.py) takes it with one worker.
"""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import multiprocessing.reduction
import signal
import traceback

from midillm_jax.data.packing import empty_batch
from midillm_jax.data.processes import held_interrupts
from midillm_jax.data.rows import Part, Plan, RowMaker, StreamStates, open_kinds
from midillm_jax.errors import UserError
from midillm_jax.text.tokenizer import load_tokenizer

LEAST_AHEAD = 2
"""Parts of a worker that are held here while another is behind; as many as workers, if each makes whole batches."""


class _Worker:
    """A process and what came from it."""

    def __init__(self, number: int, plan: Plan, states: StreamStates, batches: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.connection, sender = context.Pipe(duplex=False)
        self.process: multiprocessing.process.BaseProcess = context.Process(
            target=_work, args=(sender, plan, number, states, batches), name=f"row-worker-{number}", daemon=True
        )
        with held_interrupts():
            self.process.start()
        # Held by the worker alone, so that its end is the pipe's.
        sender.close()
        self.parts: collections.deque[Part] = collections.deque()
        self.error: Exception | None = None
        """What ended it."""

    def receive(self) -> None:
        """Takes one part, or learns how the worker ended."""
        try:
            received = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            received = UserError(
                f"worker process {self.number} of data.workers ended with exit code {self.process.exitcode}, perhaps "
                "for want of memory, or because the program does not guard its start with "
                '`if __name__ == "__main__":`; mend that or ask for fewer workers (0 needs none)'
            )
        if isinstance(received, Exception):
            self.error = received
        else:
            self.parts.append(received)

    def close(self) -> None:
        """Ends it at once: it only reads, so nothing is left half-done."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


class WorkerRows:
    """A host's batches, put together from the parts of its workers (:class:`~midillm_jax.data.rows.Rows`)."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._workers: list[_Worker] = []
        self._start: tuple[StreamStates, int] | None = None
        self.long_captions = 0

    def begin(self, states: StreamStates, batches: int) -> None:
        """Ends the workers there are; others start here with the next batch."""
        self.close()
        self._start = states, batches

    def make(self) -> Part:
        """The next batch.

        Raises:
            UserError: a worker process ended.
            Exception: what a worker met, with its traceback as a note; again whenever it is asked.
        """
        if not self._workers:
            assert self._start is not None
            workers = range(self._plan.workers)
            self._workers = [_Worker(number, self._plan, *self._start) for number in workers]
        while lacking := [worker for worker in self._workers if not worker.parts]:
            for worker in lacking:
                if worker.error is not None:
                    raise worker.error
            self._receive()
        parts = [worker.parts.popleft() for worker in self._workers]
        fields = empty_batch(sum(len(part.places) for part in parts), self._plan.data.row_length)
        states: StreamStates = {}
        for part in parts:
            for name, rows in part.fields.items():
                fields[name][part.places] = rows
            states |= part.states
        self.long_captions = sum(part.long_captions for part in parts)
        return Part(list(range(len(fields["tokens"]))), fields, states, self.long_captions)

    def close(self) -> None:
        """Ends the workers."""
        while self._workers:
            self._workers.pop().close()

    def _receive(self) -> None:
        """Waits until some worker has a part, and takes one of each that has."""
        ahead = max(LEAST_AHEAD, len(self._workers))
        ready = {
            worker.connection: worker for worker in self._workers if worker.error is None and len(worker.parts) < ahead
        }
        for connection in multiprocessing.connection.wait(list(ready)):
            ready[connection].receive()  # type: ignore[index]


def _work(
    sender: multiprocessing.connection.Connection, plan: Plan, worker: int, states: StreamStates, batches: int
) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        maker = RowMaker(plan, open_kinds(plan, load_tokenizer(plan.data.tokenizer)), worker, plan.workers)
        maker.begin(states, batches)
        while True:
            part = maker.make()
            try:
                sender.send(part)
            except BrokenPipeError:
                return  # the parent is gone
    except Exception as error:
        with contextlib.suppress(OSError):
            sender.send(_portable(error))


def _portable(error: Exception) -> Exception:
    """An error with its traceback as a note; where it cannot be sent, one that says as much."""
    text = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"in a worker process:\n{text}")
        multiprocessing.reduction.ForkingPickler.loads(multiprocessing.reduction.ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(f"in a worker process:\n{text}")
    return error
