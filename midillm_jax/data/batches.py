"""Prepared folders into training batches: the same ones on any number of hosts, and after any interruption.

Rows come from S logical streams (``data.streams``). Stream s reads the records i = s mod S of every folder of its
kind, shuffled anew in each pass, and packs them by itself. Row r of a kind in batch i is filled by stream
(i * rows + r) mod S; host h of H makes the rows r = h mod H, which belong to the streams s = h mod H. So what a row
holds depends on the seed alone, and the state of a run is that of its streams.
"""

from collections.abc import Iterator
from typing import Any, Literal, Self

import grain

from midillm_jax.config import DataConfig, Source
from midillm_jax.data.identity import check_same, identity
from midillm_jax.data.packing import PENDING_MUSIC, PENDING_TEXT, Batch, empty_batch
from midillm_jax.data.shards import SplitName, open_split, unpack_piece, unpack_text
from midillm_jax.data.streams import Folder, Streams
from midillm_jax.data.windows import MusicExamples, TextExamples, split_record_id
from midillm_jax.errors import UserError
from midillm_jax.music.vocab import TICKS_PER_SECOND
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer

Kind = Literal["text", "music"]
KINDS: tuple[Kind, ...] = ("text", "music")
"""In the order of their rows in a batch."""
LEAST_ROW_LENGTH = 64

StreamStates = dict[str, dict[str, Any]]
"""Stream number, as str, -> its state; JSON-able. Beside them, under "data", what all of them follow from."""
_DATA = "data"


class Batches(Iterator[Batch]):
    """An endless iterator over batches, made ahead of time by a thread that :meth:`close` or a with block ends.

    Each batch is a dict of arrays (:func:`~midillm_jax.data.packing.empty_batch` describes them): this host's text
    rows and then its music rows, both in the order r = host, host + hosts, ...
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
        """Opens the folders; the first batch is made when it is asked for.

        Held-out data is read without augmentation, from as many of the streams as it has records for.

        Raises:
            UserError: a folder or the tokenizer is missing or does not fit, too few records for the streams, or rows,
                streams and hosts that do not divide each other.
        """
        _check(data, hosts)
        tokenizer = load_tokenizer(data.tokenizer)
        if tokenizer.vocab_size != text_vocab_size:
            raise UserError(
                f"data.tokenizer {data.tokenizer} has {tokenizer.vocab_size} tokens and model.text_vocab_size is "
                f"{text_vocab_size}: set both to those of one tokenizer"
            )
        self._streams = data.streams
        self._own = range(host, data.streams, hosts)
        self._folders: dict[int, Folder] = {}
        kinds: dict[Kind, Streams] = {}
        for kind in KINDS:
            if _rows(data, kind) == 0:
                continue
            folders = _open(data, kind, split, tokenizer)
            self._folders |= folders
            count = _stream_count(data, kind, split, list(folders.values()), hosts)
            kinds[kind] = Streams(
                list(folders.values()),
                count=count,
                own=range(host, count, hosts),
                seed=f"{seed}/{split}/{kind}",
                capacity=data.row_length // 3 * 3 if kind == "music" else data.row_length,
                pending=PENDING_MUSIC if kind == "music" else PENDING_TEXT,
            )
        self._identity = identity(
            data,
            {kind: [(folder.reader, folder.weight) for folder in streams.folders] for kind, streams in kinds.items()},
            seed=seed,
            tokenizer=tokenizer,
        )
        self._maker = _BatchMaker(data, kinds, host, hosts, self._own)
        self._states = self._maker.states
        self._batches = 0
        self._ahead: Any = grain.experimental.ThreadPrefetchDatasetIterator(self._maker, data.prefetch)

    def __next__(self) -> Batch:
        if self._ahead is None:
            raise ValueError("these batches are closed")
        batch, self._states = next(self._ahead)
        self._batches += 1
        return batch

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
                    f"the saved data state lacks stream {stream} of {self._streams}: restore the state of all hosts"
                )
            own[str(stream)] = states[str(stream)]
        if len({state["batches"] for state in own.values()}) > 1:
            raise UserError(
                "the saved data state is not of one moment of a run: restore the state of all hosts from one checkpoint"
            )
        self._ahead.set_state(own)
        self._states = self._maker.states
        self._batches = self._maker.batches

    @property
    def long_captions(self) -> int:
        """Captioned records that so far could not be shown with the caption drawn: it left no room for music.

        Counted as batches are made, which is ahead of their use. The first of each folder is named in a warning.
        """
        examples = [folder.examples for folder in self._folders.values()]
        return sum(len(each.long_captions) for each in examples if isinstance(each, MusicExamples))

    def describe(self, record_id: int) -> str:
        """Names a record of ``record_ids`` for a message: folder, number and original file."""
        number, record = split_record_id(record_id)
        reader = self._folders[number].reader
        unpack = unpack_text if reader.manifest.kind == "text" else unpack_piece
        return f"{reader.folder}: {reader.name} record {record} ({unpack(reader[record]).name})"

    def close(self) -> None:
        """Ends the thread; there are no batches after that."""
        if self._ahead is not None:
            self._ahead.close()
            # Grain's iterator closes itself again when it is collected, which fails once the interpreter is ending.
            self._ahead = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _BatchMaker:
    """Makes batches one after the other, each with the states that its rows left behind.

    The states travel with the batch because the thread that makes batches runs ahead of those who use them.
    """

    def __init__(self, data: DataConfig, kinds: dict[Kind, Streams], host: int, hosts: int, own: range) -> None:
        self._data = data
        self._kinds = kinds
        self._host = host
        self._hosts = hosts
        self.batches = 0
        self.states: StreamStates = {str(stream): {} for stream in own}
        for kind, streams in kinds.items():
            for stream in streams.own:
                self.states[str(stream)][kind] = streams.get_state(stream)

    def __next__(self) -> tuple[Batch, StreamStates]:
        rows = {kind: _rows(self._data, kind) for kind in self._kinds}
        batch = empty_batch(sum(rows.values()) // self._hosts, self._data.row_length)
        # Earlier batches keep the states that they were handed out with.
        states = dict(self.states)
        index = 0
        for kind, streams in self._kinds.items():
            for row in range(self._host, rows[kind], self._hosts):
                stream = streams.fill(batch, index, self.batches * rows[kind] + row)
                states[str(stream)] = states[str(stream)] | {kind: streams.get_state(stream)}
                index += 1
        self.states = states
        self.batches += 1
        return batch, states

    def __iter__(self) -> Iterator[tuple[Batch, StreamStates]]:
        return self

    def get_state(self) -> dict[str, Any]:
        """For the prefetcher, which copies it with every batch; the states themselves go with the batch."""
        return {}

    def set_state(self, states: StreamStates) -> None:
        for kind, streams in self._kinds.items():
            for stream in streams.own:
                streams.set_state(stream, states[str(stream)][kind])
        self.states = {
            stream: {kind: state[kind] for kind in KINDS if kind in state} for stream, state in states.items()
        }
        self.batches = next(iter(states.values()))["batches"]


def _rows(data: DataConfig, kind: Kind) -> int:
    return data.text_rows if kind == "text" else data.music_rows


def _sources(data: DataConfig, kind: Kind) -> tuple[Source, ...]:
    return data.text if kind == "text" else data.music


def _open(data: DataConfig, kind: Kind, split: SplitName, tokenizer: Tokenizer) -> dict[int, Folder]:
    """The folders of a kind by number: data.music is counted first, then data.text."""
    folders = {}
    for place, source in enumerate(_sources(data, kind)):
        if kind == "text":
            number = len(data.music) + place
            reader = open_split(source.path, split, kinds=("text",), fingerprint=tokenizer.fingerprint)
            folders[number] = Folder(reader, TextExamples(reader, number, tokenizer), source.weight)
        else:
            reader = open_split(source.path, split, kinds=("midi", "pairs"))
            examples = MusicExamples(
                reader,
                place,
                data,
                tokenizer,
                text_vocab_size=tokenizer.vocab_size,
                augment=split == "train",
            )
            folders[place] = Folder(reader, examples, source.weight)
    return folders


def _stream_count(data: DataConfig, kind: Kind, split: SplitName, folders: list[Folder], hosts: int) -> int:
    """How many streams have records: all of them in training, for held-out data perhaps fewer."""
    fewest = min(folders, key=lambda folder: len(folder.reader)).reader
    if len(fewest) >= data.streams:
        return data.streams
    if split == "train":
        raise UserError(
            f"{fewest.folder} has {len(fewest)} train records, too few for data.streams = {data.streams}: "
            f"prepare more or set data.streams to at most {len(fewest)}"
        )
    rows = _rows(data, kind)
    for count in range(len(fewest), 0, -1):
        if data.streams % count == 0 and (rows % count == 0 or count % rows == 0):
            break
    if count % hosts:
        raise UserError(
            f"{fewest.folder} has {len(fewest)} validation records, too few for {hosts} hosts: "
            "prepare it with a larger share for validation"
        )
    return count


def _check(data: DataConfig, hosts: int) -> None:
    """Raises UserError naming a field that cannot be right."""
    shares = data.anticipation
    for name, share in (
        ("caption_dropout", data.caption_dropout),
        ("anticipation.spans", shares.spans),
        ("anticipation.random", shares.random),
        ("anticipation.instruments", shares.instruments),
        ("anticipation, all shares together,", shares.spans + shares.random + shares.instruments),
    ):
        # A sum of shares may exceed 1 by rounding.
        if not 0 <= share <= 1 + 1e-9:
            raise UserError(f"data.{name} is {share}: give a share from 0 to 1")
    if shares.span_seconds * TICKS_PER_SECOND < 1:
        raise UserError(
            f"data.anticipation.span_seconds is {shares.span_seconds}: give at least {1 / TICKS_PER_SECOND} s"
        )
    if data.row_length < LEAST_ROW_LENGTH:
        raise UserError(f"data.row_length is {data.row_length}: give at least {LEAST_ROW_LENGTH} tokens")
    if data.streams < 1 or data.streams % hosts:
        raise UserError(f"data.streams is {data.streams}: give a multiple of the number of hosts, which is {hosts}")
    if data.music_rows + data.text_rows == 0:
        raise UserError("data.music_rows and data.text_rows are both 0: a batch needs rows")
    for kind in KINDS:
        rows = _rows(data, kind)
        if rows == 0:
            continue
        if rows % hosts:
            raise UserError(f"data.{kind}_rows is {rows}: give a multiple of the number of hosts, which is {hosts}")
        if rows % data.streams and data.streams % rows:
            raise UserError(
                f"data.{kind}_rows is {rows} and data.streams is {data.streams}: one must be a multiple of the other"
            )
        if not _sources(data, kind):
            raise UserError(
                f"data.{kind}_rows is {rows} but data.{kind} names no folder: name one or set the rows to 0"
            )
        for source in _sources(data, kind):
            if source.weight <= 0:
                raise UserError(f"data.{kind} gives {source.path} the weight {source.weight}: give one above 0")
