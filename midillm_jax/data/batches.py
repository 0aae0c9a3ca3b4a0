"""Prepared folders into training batches: the same ones on any number of hosts, and after any interruption.

Rows come from S logical streams (``data.streams``). Stream s reads the records i = s mod S of every folder of its
kind, shuffled anew in each pass, and packs them by itself. Row r of a kind in batch i is filled by stream
(i * rows + r) mod S; host h of H makes the rows r = h mod H, which belong to the streams s = h mod H. So what a row
holds depends on the seed alone, and the state of a run is that of its streams. Who fills the rows, a thread or
``data.workers`` processes, is decided anew whenever a run goes on.

For pipelines of Grain, :class:`Batches` is a ``grain.DatasetIterator`` and :class:`BatchDataset` an
``grain.IterDataset``: what Grain has for those, from ``map`` to ``grain.experimental.device_put`` and
``grain.checkpoint``, works on them. Inside, Grain runs the thread. Its packing, shuffle and worker processes are not
used; why is said where ours are (data/packing.py, data/streams.py, data/row_workers.py). Its checkpoint handler writes
one file a process, from which only as many processes can go on; the training loop therefore saves
:meth:`Batches.get_state` of all hosts together.
"""

import weakref
from collections.abc import Iterator
from typing import Any, Self

import grain

from midillm_jax.config import DataConfig
from midillm_jax.data.identity import check_same, identity
from midillm_jax.data.packing import Batch, fresh_state
from midillm_jax.data.row_workers import WorkerRows
from midillm_jax.data.rows import KINDS, Plan, RowMaker, Rows, StreamStates, check_rows, open_kinds
from midillm_jax.data.shards import SplitName
from midillm_jax.data.windows import split_record_id
from midillm_jax.errors import UserError
from midillm_jax.text.tokenizer import load_tokenizer

__all__ = ["BatchDataset", "Batches", "StreamStates"]

_DATA = "data"
"""In a saved state, beside the streams': what all of them follow from."""


class Batches(grain.DatasetIterator):  # type: ignore[misc]
    """An endless iterator over batches, made ahead of time until :meth:`close` or the end of a with block.

    Each batch is a dict of arrays (:func:`~midillm_jax.data.packing.empty_batch` describes them): this host's text
    rows and then its music rows, both in the order r = host, host + hosts, ...

    Training batches are made by ``data.workers`` processes, or by a thread where that is 0; held-out ones always by
    the thread, as an evaluation is over before processes have started.
    """

    _end: "weakref.finalize[..., Batches] | None" = None

    def __init__(
        self,
        data: DataConfig,
        *,
        split: SplitName,
        text_vocab_size: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        """Opens the folders; the first batch is made when it is asked for.

        Held-out data is read without augmentation, from as many of the streams as it has records for.

        Raises:
            UserError: a folder or the tokenizer is missing or does not fit, too few records for the streams, or rows,
                streams and hosts that do not divide each other.
        """
        super().__init__()
        check_rows(data, hosts)
        tokenizer = load_tokenizer(data.tokenizer)
        if tokenizer.vocab_size != text_vocab_size:
            raise UserError(
                f"data.tokenizer {data.tokenizer} has {tokenizer.vocab_size} tokens and model.text_vocab_size is "
                f"{text_vocab_size}: set both to those of one tokenizer"
            )
        plan = Plan(data, split, seed, host, hosts)
        kinds = open_kinds(plan, tokenizer)
        self._plan = plan
        self._own = plan.own(data.streams)
        self._folders = {number: folder for opened in kinds.values() for number, folder in opened.folders.items()}
        self._identity = identity(
            data,
            {kind: [(each.reader, each.weight) for each in kinds[kind].folders.values()] for kind in kinds},
            seed=seed,
            tokenizer=tokenizer,
        )
        self._states: StreamStates = {
            str(stream): {
                kind: [fresh_state() for _ in opened.folders]
                for kind, opened in kinds.items()
                if stream in plan.own(opened.stream_count)
            }
            for stream in self._own
        }
        self._batches = 0
        workers = data.workers and split == "train"
        self._rows: Rows = WorkerRows(plan) if workers else RowMaker(plan, kinds)
        self._maker = _Maker(self._rows, self._states)
        # Grain's iterator closes itself again when it is collected, which fails once the interpreter is ending. In this
        # list, which closing empties, nothing keeps it until then.
        self._ahead: list[Any] = [grain.experimental.ThreadPrefetchDatasetIterator(self._maker, data.prefetch)]
        self._end = weakref.finalize(self, _close, self._ahead, self._rows)

    def __next__(self) -> Batch:
        if not self._ahead:
            raise ValueError("these batches are closed")
        batch, self._states = next(self._ahead[0])
        self._batches += 1
        return batch

    def __str__(self) -> str:
        return f"Batches({self._plan.split}, host {self._plan.host} of {self._plan.hosts})"

    def get_state(self) -> StreamStates:
        """Where the batches handed out so far have left this host's streams, however many were made ahead."""
        states = {stream: {"batches": self._batches} | state for stream, state in self._states.items()}
        return {_DATA: dict(self._identity), **states}

    def set_state(self, states: StreamStates) -> None:
        """Goes on as after the batch at which the state was taken.

        ``states`` may hold the streams of all hosts (a union of their states), whatever their number was then.

        Raises:
            UserError: the state follows from other shards, another tokenizer, seed or config than this run (all that
                changed is named, with old and new), or a stream of this host is missing.
        """
        if _DATA not in states:
            raise UserError(
                "the saved data state does not say which data it is of, so it is of an earlier version: begin another "
                "run"
            )
        check_same(states[_DATA], self._identity)
        own = {}
        for stream in self._own:
            if str(stream) not in states:
                raise UserError(
                    f"the saved data state lacks stream {stream} of {self._plan.data.streams}: restore the state of "
                    "all hosts"
                )
            own[str(stream)] = states[str(stream)]
        if len({state["batches"] for state in own.values()}) > 1:
            raise UserError(
                "the saved data state is not of one moment of a run: restore the state of all hosts from one checkpoint"
            )
        self._ahead[0].set_state(own)
        self._states = self._maker.states
        self._batches = self._maker.batches

    def start_prefetch(self) -> None:
        """Begins to make batches before the first is asked for."""
        if self._plan.data.prefetch:
            self._ahead[0].start_prefetch()

    @property
    def ready(self) -> bool:
        """Whether the next batch is made already; without a thread it is always about to be."""
        return not self._plan.data.prefetch or self._maker.batches > self._batches

    @property
    def long_captions(self) -> int:
        """Captioned records that so far could not be shown with the caption drawn: it left no room for music.

        Counted as batches are made, which is ahead of their use. The first of each folder, and of each worker, is named
        in a warning.
        """
        return self._rows.long_captions

    def describe(self, record_id: int) -> str:
        """Names a record of ``record_ids`` for a message: folder, number and original file."""
        number, record = split_record_id(record_id)
        reader = self._folders[number].reader
        found = reader.text(record) if reader.manifest.kind == "text" else reader.piece(record)
        return f"{reader.folder}: {reader.name} record {record} ({found.name})"

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 over the shards of each folder that is read."""
        return {folder.reader.folder: folder.reader.digest for folder in self._folders.values()}

    def close(self) -> None:
        """Ends thread and workers; there are no batches after that."""
        self._closed = True
        if self._end is not None:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BatchDataset(grain.IterDataset):  # type: ignore[misc]
    """The same batches as the source of a pipeline of Grain's; each iterator begins with the first batch.

    ``mp_prefetch`` of more than one worker refuses it, as every worker would read the same: set ``data.workers``.
    """

    def __init__(
        self,
        data: DataConfig,
        *,
        split: SplitName,
        text_vocab_size: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        """Takes what :class:`Batches` takes; nothing is opened yet."""
        super().__init__()
        self._data = data
        self._options: dict[str, Any] = {
            "split": split,
            "text_vocab_size": text_vocab_size,
            "seed": seed,
            "host": host,
            "hosts": hosts,
        }

    def __iter__(self) -> Batches:
        return Batches(self._data, **self._options)

    def __str__(self) -> str:
        return f"BatchDataset({self._options['split']}, host {self._options['host']} of {self._options['hosts']})"


class _Maker:
    """What the thread runs: batches one after the other, each with the states that its rows left behind.

    The states travel with the batch because the thread that makes batches runs ahead of those who use them.
    """

    def __init__(self, rows: Rows, states: StreamStates) -> None:
        self._rows = rows
        self.states = states
        self.batches = 0
        rows.begin(states, 0)

    def __next__(self) -> tuple[Batch, StreamStates]:
        part = self._rows.make()
        # Earlier batches keep the states that they were handed out with.
        self.states = self.states | {stream: self.states[stream] | changed for stream, changed in part.states.items()}
        self.batches += 1
        return part.fields, self.states

    def __iter__(self) -> Iterator[tuple[Batch, StreamStates]]:
        return self

    def get_state(self) -> dict[str, Any]:
        """For the prefetcher, which copies it with every batch; the states themselves go with the batch."""
        return {}

    def set_state(self, states: StreamStates) -> None:
        self.states = {
            stream: {kind: state[kind] for kind in KINDS if kind in state} for stream, state in states.items()
        }
        self.batches = next(iter(states.values()))["batches"]
        self._rows.begin(self.states, self.batches)


def _close(ahead: list[Any], rows: Rows) -> None:
    # The thread first: it may be about to start workers.
    while ahead:
        ahead.pop().close()
    rows.close()
