"""Worker processes: what they cost, how they end, and what is heard of their errors.

That they make the same batches is in test_batches.py.
"""

import collections
import dataclasses
import gc
import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.config import DataConfig, Source
from midillm_jax.data.batches import Batches
from midillm_jax.data.packing import Batch
from midillm_jax.data.rows import Plan, RowMaker, open_kinds
from midillm_jax.data.shards import Manifest, Piece, ShardWriter, pack_piece, write_manifest
from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable
from midillm_jax.text.tokenizer import load_tokenizer, train_sentencepiece

VOCAB = 300


def record(number: int) -> bytes:
    notes = np.full(50, 60, np.int32)
    table = NoteTable(np.arange(0, 500, 10, dtype=np.int32), notes, notes, np.full(50, 80, np.uint8))
    return pack_piece(Piece(table, (), "test", str(number), f"{number:03d}.mid"))


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """Forty short pieces, two workers."""
    train_sentencepiece(
        [f"some words to learn from, {number} of them" for number in range(300)], tmp_path / "t.model", VOCAB
    )
    splits = {}
    for split in ("train", "validation"):
        with ShardWriter(tmp_path / "midi", split) as writer:  # type: ignore[arg-type]
            for number in range(40):
                writer.write(record(number), 50)
        splits[split] = writer.split
    write_manifest(tmp_path / "midi", Manifest("midi", splits, {"test": 80}, (), {}, {}))
    return DataConfig(
        str(tmp_path / "t.model"), 256, 4, 0, music=(Source(str(tmp_path / "midi")),), streams=4, workers=2
    )


def make(data: DataConfig, split: str = "train") -> Batches:
    return Batches(data, split=split, text_vocab_size=VOCAB, seed=1)  # type: ignore[arg-type]


def ours() -> list[int]:
    """Processes that this one started and that still run."""
    return [process.pid for process in multiprocessing.active_children() if process.name.startswith("row-worker")]


def test_workers_start_with_the_first_batch_and_end_with_the_last(data: DataConfig) -> None:
    batches = make(data)
    assert not ours()
    next(batches)
    assert len(ours()) == 2
    batches.close()
    batches.close()
    assert not ours()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_there_are_no_more_workers_than_streams(data: DataConfig) -> None:
    config = dataclasses.replace(data, workers=7)
    with make(dataclasses.replace(data, workers=0)) as thread, make(config) as batches:
        for _ in range(5):
            np.testing.assert_array_equal(next(batches)["tokens"], next(thread)["tokens"])
        assert len(ours()) == 4


def test_workers_end_with_the_object_that_asked_for_them(data: DataConfig) -> None:
    batches = make(data)
    next(batches)
    assert len(ours()) == 2
    del batches
    gc.collect()
    assert not ours()


def test_held_out_batches_need_no_process(data: DataConfig) -> None:
    with make(data, "validation") as batches:
        next(batches)
        assert not ours()


def test_a_damaged_record_is_named_in_its_turn(data: DataConfig) -> None:
    """After all that comes before it, and again when asked again; without a thread in between as with one."""
    folder = Path(data.music[0].path)
    with ShardWriter(folder, "train") as writer:
        for number in range(40):
            writer.write(record(number)[: -9 if number == 5 else None], 50)
    manifest = Manifest("midi", {"train": writer.split, "validation": writer.split}, {"test": 40}, (), {}, {})
    write_manifest(folder, manifest)

    def until_it_fails(workers: int, prefetch: int) -> tuple[list[Batch], str]:
        config = dataclasses.replace(data, workers=workers, prefetch=prefetch)
        made = []
        with make(config) as batches:
            while True:
                try:
                    made.append(next(batches))
                except UserError as error:
                    with pytest.raises(UserError, match="it is damaged"):
                        next(batches)
                    return made, str(error)

    alone, message = until_it_fails(0, 0)
    for prefetch in (0, 3):
        made, found = until_it_fails(2, prefetch)
        assert found == message
        assert len(made) == len(alone)
        for one, other in zip(made, alone, strict=True):
            np.testing.assert_array_equal(one["tokens"], other["tokens"])


def test_a_fault_of_our_own_keeps_its_type_and_says_where(data: DataConfig, tmp_path: Path) -> None:
    folder = Path(data.music[0].path)
    with ShardWriter(folder, "train") as writer:
        for number in range(40):
            writer.write(record(number), 50)
    lengths = folder / "train-lengths.npy"
    np.save(lengths, np.zeros(40, np.int32))  # no window of any piece: a list without examples
    listed = dataclasses.replace(writer.split.lengths, sha256=hashlib.sha256(lengths.read_bytes()).hexdigest())
    split = dataclasses.replace(writer.split, lengths=listed)
    write_manifest(folder, Manifest("midi", {"train": split}, {"test": 40}, (), {}, {}))
    with make(data) as batches, pytest.raises(ZeroDivisionError) as error:
        next(batches)
    assert any("streams.py" in note for note in error.value.__notes__)


def test_a_worker_that_is_killed_is_reported(data: DataConfig) -> None:
    with make(data) as batches:
        next(batches)
        os.kill(ours()[0], signal.SIGKILL)
        with pytest.raises(UserError, match=r"worker process [01] of data\.workers ended with exit code -9"):
            collections.deque(batches, maxlen=0)


def test_a_maker_of_some_streams_makes_their_rows_alone(data: DataConfig) -> None:
    plan = Plan(data, "train", 1, 0, 1)
    kinds = open_kinds(plan, load_tokenizer(data.tokenizer))
    whole, first, second = (RowMaker(plan, kinds, *share) for share in ((0, 1), (0, 2), (1, 2)))
    for _ in range(5):
        part = whole.make()
        assert part.places == [0, 1, 2, 3]
        for places, maker in (([0, 2], first), ([1, 3], second)):
            share = maker.make()
            assert share.places == places
            assert set(share.states) == {str(place) for place in places}
            assert share.states == {stream: part.states[stream] for stream in share.states}
            np.testing.assert_array_equal(share.fields["tokens"], part.fields["tokens"][places])


PROGRAM = """
    import json, multiprocessing, sys, time

    def main():
        from midillm_jax.config import DataConfig, Source
        from midillm_jax.data.batches import Batches

        fields = json.loads(sys.argv[1])
        fields["music"] = (Source(**fields["music"][0]),)
        fields.pop("anticipation")
        batches = Batches(DataConfig(**fields), split="train", text_vocab_size=300, seed=1)
        next(batches)
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        if sys.argv[2] == "end":
            return batches  # not closed
        while True:
            next(batches)
            time.sleep(0.01)

    GUARD
        left = main()
"""


def program(
    data: DataConfig, folder: Path, what: str = "", guard: str = 'if __name__ == "__main__":'
) -> subprocess.Popen[str]:
    """A program of one's own that reads batches."""
    path = folder / "mine.py"
    path.write_text(textwrap.dedent(PROGRAM).replace("GUARD", guard))
    return subprocess.Popen(
        [sys.executable, str(path), json.dumps(dataclasses.asdict(data)), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_end(pids: list[int]) -> None:
    """Fails if one of the processes is there after half a minute."""
    left = pids
    deadline = time.monotonic() + 30
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
        time.sleep(0.02)
    assert not left


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "interrupted", "terminated", "end"])
def test_no_worker_outlives_its_parent(data: DataConfig, tmp_path: Path, how: str) -> None:
    process = program(data, tmp_path, how)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    if how == "killed":
        process.kill()
    elif how == "interrupted":
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does: to the workers as well
    elif how == "terminated":
        process.terminate()
    _, errors = process.communicate()
    wait_for_end(pids)
    if how == "interrupted":
        assert errors.count("Traceback") == 1  # the program's own
        assert "row_workers" not in errors
    else:
        assert errors == ""


@linux
@pytest.mark.slow
def test_workers_do_without_jax(data: DataConfig, tmp_path: Path) -> None:
    process = program(data, tmp_path)
    assert process.stdout is not None
    for pid in process.stdout.readline().split():
        libraries = Path(f"/proc/{pid}/maps").read_text()
        assert "array_record" in libraries
        assert "jaxlib" not in libraries
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_program_without_a_guard_is_told(data: DataConfig, tmp_path: Path) -> None:
    process = program(data, tmp_path, guard="if True:")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert re.search(r"UserError: worker process [01] of data\.workers ended with exit code 1,", errors), errors
    assert '`if __name__ == "__main__":`' in errors
