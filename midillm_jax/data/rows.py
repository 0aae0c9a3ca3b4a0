"""The rows of a host's batches: which folder and which stream each is filled from, and the filling itself.

Everything here runs in one process, be it the one that trains or a worker (data/row_workers.py), and imports neither
JAX nor Grain, so that a worker starts fast and stays small.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, Protocol

from midillm_jax.config import DataConfig, Source
from midillm_jax.data.packing import PENDING_MUSIC, PENDING_TEXT, Batch, empty_batch
from midillm_jax.data.shards import SplitName, open_split
from midillm_jax.data.streams import Folder, Streams
from midillm_jax.data.windows import MusicExamples, TextExamples
from midillm_jax.errors import UserError
from midillm_jax.music.vocab import TICKS_PER_SECOND
from midillm_jax.text.tokenizer import Tokenizer

Kind = Literal["text", "music"]
KINDS: tuple[Kind, ...] = ("text", "music")
"""In the order of their rows in a batch."""
LEAST_ROW_LENGTH = 64

StreamStates = dict[str, dict[str, Any]]
"""Stream number, as str, -> its state; JSON-able."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a host's rows follow from; small, as every worker is sent one."""

    data: DataConfig
    split: SplitName
    seed: int
    host: int
    hosts: int

    def rows(self, kind: Kind) -> int:
        """Rows of a kind in the global batch."""
        return self.data.text_rows if kind == "text" else self.data.music_rows

    @property
    def workers(self) -> int:
        """Processes that have streams to fill rows of."""
        return min(self.data.workers, self.data.streams // self.hosts)

    def own(self, count: int, worker: int = 0, workers: int = 1) -> range:
        """Which of ``count`` streams are this host's and, of those, this worker's."""
        return range(self.host + worker * self.hosts, count, self.hosts * workers)


class KindFolders(NamedTuple):
    """The open folders of a kind of rows."""

    folders: dict[int, Folder]
    """By number: data.music is counted first, then data.text."""
    stream_count: int
    """How many streams read them."""


class Part(NamedTuple):
    """What one maker adds to a batch."""

    places: list[int]
    """Which rows of this host's batch these are, ascending."""
    fields: Batch
    """[len(places), T] each."""
    states: StreamStates
    """Where the streams of these rows were left, by kind."""
    long_captions: int
    """See :class:`~midillm_jax.data.windows.MusicExamples`; counted since the maker began."""


class Rows(Protocol):
    """Makes a host's batches one after the other, in this process or in others."""

    @property
    def long_captions(self) -> int:
        """Records met so far whose caption, when drawn, left no room for music."""

    def begin(self, states: StreamStates, batches: int) -> None:
        """Goes on with the streams as they were after so many batches."""

    def make(self) -> Part:
        """The next batch, whole."""

    def close(self) -> None:
        """Ends what was begun; nothing is made after that."""


class RowMaker:
    """Makes the rows of the streams of one worker, or of all of this host's."""

    def __init__(self, plan: Plan, kinds: dict[Kind, KindFolders], worker: int = 0, workers: int = 1) -> None:
        self._plan = plan
        length = plan.data.row_length
        self._streams: dict[Kind, Streams] = {
            kind: Streams(
                list(folders.values()),
                count=stream_count,
                own=plan.own(stream_count, worker, workers),
                seed=f"{plan.seed}/{plan.split}/{kind}",
                capacity=length // 3 * 3 if kind == "music" else length,
                pending=PENDING_MUSIC if kind == "music" else PENDING_TEXT,
            )
            for kind, (folders, stream_count) in kinds.items()
        }
        self._examples = [folder.examples for opened in kinds.values() for folder in opened.folders.values()]
        self._batches = 0

    @property
    def long_captions(self) -> int:
        """Of the records of these streams."""
        return sum(len(each.long_captions) for each in self._examples if isinstance(each, MusicExamples))

    def begin(self, states: StreamStates, batches: int) -> None:
        """Reads again what the streams had at hand; ``states`` may hold other streams too."""
        for kind, streams in self._streams.items():
            for stream in streams.own:
                streams.set_state(stream, states[str(stream)][kind])
        self._batches = batches

    def make(self) -> Part:
        """Its rows of the next batch; in a batch where it has none, none."""
        found: list[tuple[int, Kind, int]] = []
        first = 0
        for kind, streams in self._streams.items():
            rows = self._plan.rows(kind)
            own = range(self._plan.host, rows, self._plan.hosts)
            counted = [(place, row + self._batches * rows) for place, row in enumerate(own, first)]
            found += [(place, kind, row) for place, row in counted if streams.stream(row) in streams.own]
            first += len(own)
        fields = empty_batch(len(found), self._plan.data.row_length)
        states: StreamStates = {}
        for index, (_, kind, row) in enumerate(found):
            streams = self._streams[kind]
            streams.fill(fields, index, row)
            stream = streams.stream(row)
            states.setdefault(str(stream), {})[kind] = streams.get_state(stream)
        self._batches += 1
        return Part([place for place, _, _ in found], fields, states, self.long_captions)

    def close(self) -> None:
        """Nothing was begun."""


def open_kinds(plan: Plan, tokenizer: Tokenizer) -> dict[Kind, KindFolders]:
    """The folders of every kind that has rows.

    Raises:
        UserError: a folder is missing or does not fit, or has too few records for the streams.
    """
    kinds = {}
    for kind in KINDS:
        if plan.rows(kind):
            folders = _open(plan, kind, tokenizer)
            kinds[kind] = KindFolders(folders, _stream_count(plan, kind, list(folders.values())))
    return kinds


def _sources(data: DataConfig, kind: Kind) -> tuple[Source, ...]:
    return data.text if kind == "text" else data.music


def _open(plan: Plan, kind: Kind, tokenizer: Tokenizer) -> dict[int, Folder]:
    data, split = plan.data, plan.split
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


def _stream_count(plan: Plan, kind: Kind, folders: list[Folder]) -> int:
    """How many streams have records: all of them in training, for held-out data perhaps fewer."""
    data, hosts = plan.data, plan.hosts
    fewest = min(folders, key=lambda folder: len(folder.reader)).reader
    if len(fewest) >= data.streams:
        return data.streams
    if plan.split == "train":
        raise UserError(
            f"{fewest.folder} has {len(fewest)} train records, too few for data.streams = {data.streams}: "
            f"prepare more or set data.streams to at most {len(fewest)}"
        )
    rows = plan.rows(kind)
    for count in range(len(fewest), 0, -1):
        if data.streams % count == 0 and (rows % count == 0 or count % rows == 0):
            break
    if count % hosts:
        raise UserError(
            f"{fewest.folder} has {len(fewest)} validation records, too few for {hosts} hosts: "
            "prepare it with a larger share for validation"
        )
    return count


def check_rows(data: DataConfig, hosts: int) -> None:
    """Raises UserError naming a field that cannot be right."""
    shares = data.anticipation
    for name, share in (
        ("caption_dropout", data.caption_dropout),
        ("tempo_stretch", data.tempo_stretch),
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
        rows = data.text_rows if kind == "text" else data.music_rows
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
