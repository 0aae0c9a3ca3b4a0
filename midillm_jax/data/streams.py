"""The logical streams of one kind of rows: which records each reads, in which order, and from which folder next."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from midillm_jax.data.packing import Batch, RowPacker
from midillm_jax.data.shards import SplitReader
from midillm_jax.data.windows import Stretch

_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: its multiples modulo 2^64 are spread evenly, however many are taken."""


class Examples(Protocol):
    """How records of a folder become stretches of a row."""

    def visits(self) -> np.ndarray:
        """int64 [records]: examples drawn from each record in one pass."""

    def __call__(self, record: int, rng: np.random.Generator) -> Stretch:
        """One example."""


class Folder(NamedTuple):
    """A folder of a mixture."""

    reader: SplitReader
    examples: Examples
    weight: float


class Streams:
    """Fills the rows of one kind; holds only the streams of this host.

    Row ``g`` (counted over the whole run) belongs to stream ``g mod count`` and is filled from one folder. The folder
    is where ``g`` times the golden ratio falls among the weights: any run of consecutive rows has the folders' shares
    as nearly as can be, on any number of hosts.
    """

    def __init__(
        self, folders: Sequence[Folder], *, count: int, own: range, seed: str, capacity: int, pending: int
    ) -> None:
        """``seed`` names the run, the split and the kind; stream and folder are added to it here."""
        self.own = own
        self._count = count
        self.folders = folders
        self._ends = np.cumsum([folder.weight for folder in folders]) / sum(folder.weight for folder in folders)
        self._packers: dict[int, list[RowPacker]] = {stream: [] for stream in own}
        for number, folder in enumerate(folders):
            visits = folder.examples.visits()
            for stream in own:
                records = np.arange(stream, len(folder.reader), count)
                passed = np.repeat(records, visits[records])
                example = _ExampleList(passed, folder.examples, f"{seed}/{number}/{stream}")
                self._packers[stream].append(RowPacker(example, capacity, pending))

    def stream(self, row: int) -> int:
        """The stream of a row, counted over the whole run."""
        return row % self._count

    def fill(self, batch: Batch, index: int, row: int) -> None:
        """Packs ``row`` of the whole run, of a stream of this host, into row ``index`` of a batch."""
        share = (row * _GOLDEN % 2**64) / 2**64
        folder = min(int(np.searchsorted(self._ends, share, side="right")), len(self.folders) - 1)
        self._packers[self.stream(row)][folder].fill(batch, index)

    def get_state(self, stream: int) -> list[dict[str, Any]]:
        """JSON-able, one entry a folder."""
        return [packer.get_state() for packer in self._packers[stream]]

    def set_state(self, stream: int, states: list[dict[str, Any]]) -> None:
        """Goes on where :meth:`get_state` was called, which must have been with the same folders (data/identity.py)."""
        for state, packer in zip(states, self._packers[stream], strict=True):
            packer.set_state(state)


class _ExampleList:
    """The endless list of a stream's examples: each pass in an order of its own, each example with its own draws.

    Grain's index shuffle would spare the order's memory, but takes up to 4 ms an item on the short lists that streams
    are (it draws from a larger range until it hits).
    """

    def __init__(self, records: np.ndarray, examples: Examples, seed: str) -> None:
        self._records = records
        self._examples = examples
        self._seed = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "little")
        # Examples are read nearly in order, so two passes at most are in use.
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def __call__(self, index: int) -> Stretch:
        passes, place = divmod(index, len(self._records))
        rng = np.random.default_rng([self._seed, 1, index])
        return self._examples(int(self._order(passes)[place]), rng)

    def _shuffled(self, passes: int) -> np.ndarray:
        return np.random.default_rng([self._seed, 0, passes]).permutation(self._records)
