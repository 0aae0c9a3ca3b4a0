"""Batches as CONTRACTS states them: fields, alignment, the same rows on any number of hosts and after any restart."""

import dataclasses
import itertools
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np
import pytest

from midillm_jax.config import AnticipationConfig, DataConfig, Source
from midillm_jax.data.batches import BatchDataset, Batches, StreamStates
from midillm_jax.data.packing import Batch
from midillm_jax.data.shards import (
    Manifest,
    Piece,
    ShardWriter,
    TextRecord,
    TokenizerId,
    open_split,
    pack_piece,
    pack_text,
    read_manifest,
    unpack_piece,
    unpack_text,
    write_manifest,
)
from midillm_jax.data.windows import split_record_id
from midillm_jax.errors import UserError
from midillm_jax.music import grammar_check
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import AUTOREGRESS, CONTROL_OFFSET, NOTE_OFFSET, REST, SEPARATOR
from midillm_jax.text.prompt import PROMPT_PREFIX
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece

TEXT_VOCAB = 400
STREAMS = 8
FIELDS = {
    "tokens": np.int32,
    "segment_ids": np.int32,
    "positions": np.int32,
    "loss_weights": np.float32,
    "slot": np.int8,
    "record_ids": np.int64,
}


def piece(number: int, notes: int, captions: tuple[str, ...]) -> Piece:
    rng = np.random.default_rng([number, notes])
    onsets = np.cumsum(rng.choice([0, 0, 10, 25, 130], notes)).astype(np.int32)
    ids = rng.choice([0, 33, 128], notes) * 128 + rng.integers(30, 90, notes)
    table = NoteTable(
        onsets, rng.integers(1, 300, notes).astype(np.int32), ids.astype(np.int32), np.full(notes, 80, np.uint8)
    )
    return Piece(table, captions, "test", str(number), f"{number:03d}.mid")


def write_music(folder: Path, lengths: dict[str, list[int]], captioned: bool, first: int = 0) -> None:
    splits = {}
    for split, counts in lengths.items():
        with ShardWriter(folder, split, 5_000) as writer:
            for number, notes in enumerate(counts, first):
                captions = (f"A song with piano, bass and drums, number {number}.",) if captioned else ()
                writer.write(pack_piece(piece(number, notes, captions)), notes)
        splits[split] = writer.split
    records = sum(map(len, lengths.values()))
    write_manifest(folder, Manifest("pairs" if captioned else "midi", splits, {"test": records}, (), {}, {}))


def write_text(folder: Path, lengths: dict[str, list[int]], tokenizer: Tokenizer) -> None:
    splits = {}
    for split, counts in lengths.items():
        with ShardWriter(folder, split) as writer:
            for number, tokens in enumerate(counts):
                ids = np.random.default_rng([number, tokens]).integers(3, TEXT_VOCAB, tokens).astype(np.int32)
                writer.write(pack_text(TextRecord(ids, "test", f"{number:03d}.txt")), tokens)
        splits[split] = writer.split
    marks = TokenizerId(tokenizer.fingerprint, TEXT_VOCAB)
    write_manifest(folder, Manifest("text", splits, {"test": 1}, (), {}, {}, marks))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Two music folders and a text folder, and a config that uses every kind of augmentation."""
    root = tmp_path_factory.mktemp("data")
    texts = [f"{PROMPT_PREFIX} A song with piano, bass and drums, number {i}." for i in range(300)]
    tokenizer = train_sentencepiece(texts, root / "t.model", TEXT_VOCAB)
    rng = np.random.default_rng(5)
    short, mixed = rng.integers(20, 60, 40).tolist(), [*rng.integers(20, 250, 20).tolist(), 700, 900, 2_000, 450]
    write_music(root / "pairs", {"train": short, "validation": short[:5]}, captioned=True)
    write_music(root / "midi", {"train": mixed, "validation": mixed[:3]}, captioned=False)
    write_text(root / "text", {"train": [*range(10, 300, 20), 1_500], "validation": [400, 20]}, tokenizer)
    return DataConfig(
        tokenizer=str(root / "t.model"),
        row_length=512,
        music_rows=4,
        text_rows=4,
        music=(Source(str(root / "pairs"), 3.0), Source(str(root / "midi"), 1.0)),
        text=(Source(str(root / "text")),),
        streams=STREAMS,
        caption_dropout=0.2,
        anticipation=AnticipationConfig(spans=0.1, random=0.3, instruments=0.3),
        transpose=3,
        prefetch=2,
    )


def batches(
    data: DataConfig, *, split: str = "train", seed: int = 1, host: int = 0, hosts: int = 1, **changes: object
) -> Batches:
    config = dataclasses.replace(data, **changes)
    return Batches(config, split=split, text_vocab_size=TEXT_VOCAB, seed=seed, host=host, hosts=hosts)  # type: ignore[arg-type]


def read(data: DataConfig, count: int, **arguments: object) -> list[Batch]:
    with batches(data, **arguments) as iterator:  # type: ignore[arg-type]
        return list(itertools.islice(iterator, count))


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one.keys() == other.keys()
        for field in one:
            np.testing.assert_array_equal(one[field], other[field], err_msg=f"batch {number}, {field}")


def segments(batch: Batch) -> Iterator[tuple[int, Batch]]:
    """(row, fields of one segment) in order."""
    for row, ids in enumerate(batch["segment_ids"]):
        for segment in range(1, ids.max() + 1):
            yield row, {field: batch[field][row][ids == segment] for field in batch}


def test_grain_takes_the_batches_as_a_dataset_of_its_own(data: DataConfig) -> None:
    """Its transformations, its thread, its transfer to a device; its states are ours."""
    alone = read(data, 8)
    source = BatchDataset(data, split="train", text_vocab_size=TEXT_VOCAB, seed=1)
    counted = source.map(lambda batch: batch | {"music": (batch["slot"] >= 0).sum(1)})
    pipeline = grain.experimental.ThreadPrefetchIterDataset(counted, prefetch_buffer_size=2)
    iterator = iter(pipeline)
    for expected in alone[:3]:
        found = next(iterator)
        assert (found.pop("music") == (expected["slot"] >= 0).sum(1)).all()
        assert_equal([found], [expected])
    state = json.loads(json.dumps(iterator.get_state()))
    iterator.close()
    other = iter(pipeline)
    other.set_state(state)
    for expected in alone[3:5]:
        assert_equal([{name: next_ for name, next_ in next(other).items() if name != "music"}], [expected])
    other.close()
    with batches(data) as ours:
        ours.set_state(state)
        assert_equal([next(ours)], [alone[3]])


def test_grains_own_check_of_an_exact_iterator_holds(data: DataConfig) -> None:
    few = grain.experimental.LimitIterDataset(
        BatchDataset(data, split="train", text_vocab_size=TEXT_VOCAB, seed=1), count=4
    )
    first = iter(few)
    states, expected = [], []
    for batch in first:
        expected.append(batch)
        states.append(json.loads(json.dumps(first.get_state())))
    for done, state in enumerate(states, 1):
        again = iter(few)
        again.set_state(state)
        assert again.get_state() == state
        assert_equal(list(again), expected[done:])
        again.close()
    first.close()


def test_every_field_is_as_the_contract_says(data: DataConfig) -> None:
    tokenizer = load_tokenizer(data.tokenizer)
    for batch in read(data, 10):
        assert {field: batch[field].dtype for field in batch} == FIELDS
        assert {batch[field].shape for field in batch} == {(8, 512)}
        padding = batch["segment_ids"] == 0
        for field, value in (("loss_weights", 0), ("slot", -1), ("record_ids", -1), ("positions", 0), ("tokens", 0)):
            assert (batch[field][padding] == value).all(), field
        music = batch["slot"] >= 0
        assert not music[:4].any()  # text rows come first
        assert music[4:].any(1).all()
        columns = np.broadcast_to(np.arange(512), music.shape)
        np.testing.assert_array_equal(batch["slot"][music], columns[music] % 3)
        is_music_id = batch["tokens"] >= TEXT_VOCAB
        np.testing.assert_array_equal(batch["loss_weights"][4:], music[4:])
        for ids in batch["segment_ids"]:
            used = ids[ids > 0]
            assert used[0] == 1
            assert set(np.diff(used).tolist()) <= {0, 1}  # in order, none twice
        for row, segment in segments(batch):
            assert segment["positions"].tolist() == list(range(len(segment["tokens"])))
            assert segment["tokens"][0] == tokenizer.bos_id
            assert segment["loss_weights"][0] == 0
            assert len(set(segment["record_ids"].tolist())) == 1
            if row < 4:
                assert (segment["loss_weights"][1:] == 1).all()
            else:
                given = segment["tokens"][segment["slot"] < 0]
                assert given[-1] >= TEXT_VOCAB + AUTOREGRESS
                assert (given[:-1] < TEXT_VOCAB).all()
        assert not is_music_id[:4].any()


def test_rows_hold_the_pieces_that_they_say(data: DataConfig) -> None:
    plain = dataclasses.replace(data, anticipation=AnticipationConfig(), transpose=0, text_rows=0)
    readers = [open_split(source.path, "train") for source in data.music]
    closed = whole = 0
    for batch in read(plain, 12):
        for _, segment in segments(batch):
            folder, record = split_record_id(int(segment["record_ids"][0]))
            original = unpack_piece(readers[folder][record])
            ids = segment["tokens"][segment["slot"] >= 0] - TEXT_VOCAB
            assert grammar_check.check(ids) is None
            heard = decode_notes(ids)
            names = ("onsets", "durations", "notes")
            rows = np.stack([getattr(heard, name) for name in names], 1)
            all_rows = np.stack([getattr(original.notes, name) for name in names], 1)
            found = [
                first
                for first in range(len(all_rows) - len(rows) + 1)
                if (all_rows[first : first + len(rows)] - [all_rows[first, 0] - rows[0, 0], 0, 0] == rows).all()
            ]
            assert found
            ends = ids[-1] == SEPARATOR
            assert not ends or found[-1] + len(rows) == len(all_rows)
            closed += bool(ends)
            whole += len(rows) == len(all_rows)
            prompt = load_tokenizer(data.tokenizer).decode(segment["tokens"][segment["slot"] < 0][:-1])
            assert prompt in ("", *(f"{PROMPT_PREFIX}{caption} " for caption in original.captions))
    assert closed > whole > 100


def test_augmented_rows_hold_the_notes_of_their_pieces(data: DataConfig) -> None:
    """Take the rests out, the controls back to their places, undo the shift: what is left are the piece's own notes."""
    readers = [open_split(source.path, "train") for source in data.music]
    kinds = Counter()
    shares = AnticipationConfig(spans=0.2, random=0.3, instruments=0.3)
    for batch in read(data, 30, text_rows=0, anticipation=shares, transpose=4, alter_captioned=True):
        for _, segment in segments(batch):
            folder, number = split_record_id(int(segment["record_ids"][0]))
            original = unpack_piece(readers[folder][number]).notes
            ids = segment["tokens"][segment["slot"] >= 0] - TEXT_VOCAB
            assert grammar_check.check(ids) is None
            table = decode_notes(ids)
            heard = list(zip(table.onsets.tolist(), table.durations.tolist(), table.notes.tolist(), strict=True))
            is_event = ids[2::3] < REST
            last = int(ids[0::3][is_event][-1])
            assert find_notes(original, heard, last)
            kinds[bool((ids[2::3] >= CONTROL_OFFSET)[ids[2::3] != SEPARATOR].any())] += 1
    assert min(kinds.values()) > 50


def find_notes(table: NoteTable, heard: list[tuple[int, int, int]], last: int) -> bool:
    """Whether these notes are a stretch of the table, begun anywhere and shifted by up to 4 semitones.

    Up to ``last``, the last event's onset, nothing may be missing between them; controls behind it are only those that
    were due, but each must be a note of the table.
    """
    for shift in range(-4, 5):
        moved = table.notes + shift * (table.notes < 128 * 128)
        rows = list(zip(table.onsets.tolist(), table.durations.tolist(), moved.tolist(), strict=True))
        for onset in sorted({onset for onset, _, note in rows if note == heard[0][2]}):
            origin = onset - heard[0][0]
            there = Counter((onset - origin, duration, note) for onset, duration, note in rows)
            found = Counter(heard)
            within = Counter({row: n for row, n in there.items() if heard[0][0] < row[0] < last})
            if found <= there and within == Counter(
                {row: n for row, n in found.items() if heard[0][0] < row[0] < last}
            ):
                return True
    return False


def test_rows_hold_the_augmentations_in_the_papers_proportions(data: DataConfig, tmp_path: Path) -> None:
    """Told apart by what stands in the rows: a tenth plain, a tenth spans, four tenths each notes and instruments."""
    notes = 20
    with ShardWriter(tmp_path, "train") as writer:
        for number in range(64):
            rng = np.random.default_rng(number)
            ids = rng.permutation([0, 33] * (notes // 2)) * 128 + 60
            onsets = np.arange(0, 40 * notes, 40, dtype=np.int32)  # with all its rests too short to be cut in a row
            table = NoteTable(onsets, np.full(notes, 30, np.int32), ids.astype(np.int32), np.full(notes, 80, np.uint8))
            writer.write(pack_piece(Piece(table, (), "test", str(number), "x.mid")), notes)
    manifest = read_manifest(data.music[1].path)
    write_manifest(tmp_path, dataclasses.replace(manifest, splits={"train": writer.split}))
    # Spans of a second and, on average, one begun in each, so that next to no piece is without.
    shares = AnticipationConfig(spans=0.1, random=0.4, instruments=0.4, span_rate=1.0, span_seconds=1.0)
    found: Counter[str] = Counter()
    for batch in read(data, 200, music=(Source(str(tmp_path)),), text_rows=0, anticipation=shares, transpose=0):
        for _, segment in segments(batch):
            ids = segment["tokens"][segment["slot"] >= 0] - TEXT_VOCAB
            assert len(decode_notes(ids)) == notes
            found[augmentation(ids)] += 1
    windows = found.total()
    assert windows > 4_000
    # Of random choices at rates .1 to .9, 1.49 % are empty and as many are of all notes, which leaves the piece plain.
    expected = {
        "plain": 0.1 + 0.4 * 0.0298 + 0.1 * np.exp(-7.6),
        "spans": 0.1,
        "random": 0.4 * 0.9702,
        "instruments": 0.4,
    }
    for kind, share in expected.items():
        deviation = (share * (1 - share) / windows) ** 0.5
        assert abs(found[kind] / windows - share) < 4 * deviation, (kind, found)


def augmentation(ids: np.ndarray) -> str:
    """Which of the paper's kinds the controls of a window of evenly spaced notes are."""
    triples = ids.reshape(-1, 3)
    controls = triples[(triples[:, 2] >= CONTROL_OFFSET) & (triples[:, 2] != SEPARATOR)] - CONTROL_OFFSET
    events = triples[triples[:, 2] < REST]
    if not len(controls):
        return "plain"
    programs = [set(((part[:, 2] - NOTE_OFFSET) // 128).tolist()) for part in (events, controls)]
    if not programs[0] & programs[1]:
        return "instruments"
    told = sorted([(int(onset), False) for onset in events[:, 0]] + [(int(onset), True) for onset in controls[:, 0]])
    runs = [(control, len(list(run))) for control, run in itertools.groupby(control for _, control in told)]
    # A span of 100 ticks holds three notes that are 40 apart; the piece may end within the last.
    whole = all(length % 3 == 0 for control, length in runs[:-1] if control)
    return "spans" if whole else "random"


def test_text_is_read_from_end_to_end(data: DataConfig) -> None:
    tokenizer = load_tokenizer(data.tokenizer)
    reader = open_split(data.text[0].path, "train")
    read_so_far: dict[int, list[int]] = defaultdict(list)
    complete = Counter()
    for batch in read(data, 12, music_rows=0, text_rows=8):
        for _, segment in segments(batch):
            _, record = split_record_id(int(segment["record_ids"][0]))
            read_so_far[record] += segment["tokens"][1:].tolist()
            if segment["tokens"][-1] == tokenizer.eos_id:
                assert read_so_far.pop(record) == [*unpack_text(reader[record]).ids, tokenizer.eos_id]
                complete[record] += 1
    assert set(complete) == set(range(len(reader)))
    for batch in read(data, 12, music_rows=0, text_rows=8):
        assert (batch["segment_ids"] > 0).mean() > 0.98


def test_no_stream_starves(data: DataConfig, tmp_path: Path) -> None:
    """Where controls leave gaps that rests fill, and short pieces make for many cuts: every row is full to the end."""
    rng = np.random.default_rng(3)
    with ShardWriter(tmp_path, "train") as writer:
        for number in range(32):
            notes = int(rng.integers(150, 900) if number % 2 else rng.integers(30, 150))
            ids = rng.choice([0, 33, 48, 128], notes) * 128 + rng.integers(30, 90, notes)
            onsets = np.arange(0, 60 * notes, 60, dtype=np.int32)
            velocities = np.full(notes, 80, np.uint8)
            table = NoteTable(onsets, np.full(notes, 20, np.int32), ids.astype(np.int32), velocities)
            writer.write(pack_piece(Piece(table, (), "test", str(number), "x.mid")), notes)
    manifest = read_manifest(data.music[1].path)
    write_manifest(tmp_path, dataclasses.replace(manifest, splits={"train": writer.split}))
    every = AnticipationConfig(random=1.0)
    music = read(data, 150, music=(Source(str(tmp_path)),), text_rows=0, music_rows=8, anticipation=every)
    filled = np.concatenate([(batch["segment_ids"] > 0).mean(1) for batch in music])
    assert filled.min() > 0.85  # in 512 tokens, the 16 triples that are not cut off are a tenth
    assert filled[-400:].mean() > 0.98


def test_rows_are_nearly_full(data: DataConfig) -> None:
    music = read(data, 40, text_rows=0, row_length=2_048, caption_dropout=0.0)
    assert np.mean([batch["segment_ids"] > 0 for batch in music]) >= 0.98


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_the_same_seed_gives_the_same_batches(data: DataConfig, prefetch: int) -> None:
    assert_equal(read(data, 6), read(data, 6, prefetch=prefetch))
    other = read(data, 1, seed=2)[0]
    assert (other["tokens"] != read(data, 1)[0]["tokens"]).any()


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_any_number_of_workers_makes_the_same_batches_and_states(data: DataConfig, workers: int) -> None:
    with batches(data) as thread, batches(data, workers=workers) as processes:
        assert processes.get_state() == thread.get_state()
        for _ in range(12):
            assert_equal([next(processes)], [next(thread)])
            assert processes.get_state() == thread.get_state()
        assert processes.long_captions == 0


def test_workers_make_the_same_where_a_batch_has_rows_of_few_streams(data: DataConfig) -> None:
    """One music row and eight text rows a batch: some workers sit some batches out, others fill several rows."""
    shape = {"music_rows": 1, "text_rows": 16}
    assert_equal(read(data, 20, workers=3, **shape), read(data, 20, **shape))


@pytest.mark.parametrize(("hosts", "workers"), [(2, 0), (4, 0), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_hosts_together_read_what_one_reads(data: DataConfig, hosts: int, workers: int) -> None:
    alone = read(data, 5)
    parts = [read(data, 5, host=host, hosts=hosts, workers=workers) for host in range(hosts)]
    together = []
    for batch in zip(*parts, strict=True):
        whole = {}
        for field in FIELDS:
            # Row r of each kind is on host r mod hosts.
            rows = np.stack([part[field] for part in batch], 1)
            whole[field] = rows.reshape(-1, rows.shape[-1])
        together.append(whole)
    assert_equal(together, alone)


def test_a_run_resumes_exactly_at_any_step(data: DataConfig) -> None:
    alone = read(data, 24)
    rng = np.random.default_rng(0)
    for step in [0, *rng.choice(np.arange(1, 20), 4, replace=False).tolist()]:
        with batches(data) as before:
            for _ in range(step):
                next(before)
            state = json.loads(json.dumps(before.get_state()))
            next(before)  # what is read afterwards leaves the state as it was
        assert set(state) == {"data", *(str(stream) for stream in range(STREAMS))}
        with batches(data) as after:
            next(after)  # whatever was read before
            after.set_state(state)
            assert after.get_state() == state
            assert_equal(list(itertools.islice(after, 4)), alone[step : step + 4])


def test_what_is_made_ahead_is_known(data: DataConfig) -> None:
    with batches(data, prefetch=2) as iterator:
        assert not iterator.ready
        iterator.start_prefetch()
        deadline = time.monotonic() + 60
        while not iterator.ready and time.monotonic() < deadline:
            time.sleep(0.001)
        assert iterator.ready
        state = iterator.get_state()
        iterator.set_state(state)  # what was made is thrown away
        assert not iterator.ready
    with batches(data, prefetch=0) as iterator:
        iterator.start_prefetch()
        assert iterator.ready  # as soon as it is asked for


def test_the_state_is_small(data: DataConfig) -> None:
    with batches(data) as iterator:
        for _ in range(10):
            next(iterator)
        assert len(json.dumps(iterator.get_state())) < STREAMS * 1_000


@pytest.mark.parametrize("stops", [(1, 4, 1), (4, 2, 4), (2, 1, 4)])
@pytest.mark.parametrize("workers", [(0, 0, 0), pytest.param((2, 0, 1), marks=pytest.mark.slow)])
def test_a_run_resumes_on_another_number_of_hosts_and_back(
    data: DataConfig, stops: tuple[int, ...], workers: tuple[int, ...]
) -> None:
    """Three parts of a run, each on its number of hosts and of workers, read what one host reads in one go."""
    alone = read(data, 12)
    states: StreamStates | None = None
    for part, (hosts, processes) in enumerate(zip(stops, workers, strict=True)):
        left: StreamStates = {}
        for host in range(hosts):
            with batches(data, host=host, hosts=hosts, workers=processes) as iterator:
                if states is not None:
                    iterator.set_state(states)
                rows = [{name: batch[name][host::hosts] for name in batch} for batch in alone[4 * part :][:4]]
                assert_equal(list(itertools.islice(iterator, 4)), rows)
                left |= json.loads(json.dumps(iterator.get_state()))
                next(iterator)
        states = left


def test_a_run_resumes_with_another_number_of_workers(data: DataConfig) -> None:
    alone = read(data, 12)
    state = None
    for part, workers in enumerate([2, 0, 1]):
        with batches(data, workers=workers) as iterator:
            if workers == 1:
                next(iterator)  # workers that are under way give way to others
            if state is not None:
                iterator.set_state(state)
                assert iterator.get_state() == state
            assert_equal(list(itertools.islice(iterator, 4)), alone[4 * part :][:4])
            state = json.loads(json.dumps(iterator.get_state()))


def test_each_row_is_of_one_folder_in_the_shares_asked(data: DataConfig) -> None:
    rows = Counter()
    for batch in read(data, 50, text_rows=0, music_rows=8):
        folders = [{split_record_id(int(i))[0] for i in row if i >= 0} for row in batch["record_ids"]]
        assert {len(found) for found in folders} == {1}
        rows.update(found.pop() for found in folders)
    # 3 : 1 of 400 rows; the spread is even, not random, so it is off by a few rows at most.
    assert abs(rows[0] - 300) <= 3


def passes(shown: list[int]) -> list[list[int]]:
    """The first and the second showing of every record, each in its order."""
    counts: Counter[int] = Counter()
    orders: tuple[list[int], list[int]] = ([], [])
    for record in shown:
        if counts[record] < 2:
            orders[counts[record]].append(record)
        counts[record] += 1
    return list(orders)


def test_every_pass_shows_every_piece_in_another_order(data: DataConfig) -> None:
    shown: list[int] = []
    for batch in read(
        data, 60, music=data.music[:1], text_rows=0, music_rows=1, streams=1, anticipation=AnticipationConfig()
    ):
        for _, part in segments(batch):
            # A short piece ends once each time that it is read, though it may be cut before.
            if part["tokens"][-1] == TEXT_VOCAB + SEPARATOR:
                shown.append(split_record_id(int(part["record_ids"][0]))[1])
    counts = Counter(shown)
    assert len(counts) == 40
    assert min(counts.values()) >= 2
    # Of the pieces at hand, 16 at most, some may wait from one pass for the next.
    assert max(counts.values()) - min(counts.values()) <= 2
    # Cutting and waiting shift a piece by some places; another order has nothing to do with the one before.
    places = np.array([[row.index(record) for record in range(40)] for row in passes(shown)])
    assert abs(np.corrcoef(places)[0, 1]) < 0.6


def test_long_pieces_count_by_their_length(data: DataConfig) -> None:
    lengths = open_split(data.music[1].path, "train").lengths
    seen = np.zeros(len(lengths))
    plain = {"anticipation": AnticipationConfig(), "music": data.music[1:], "text_rows": 0, "row_length": 1_024}
    for batch in read(data, 120, music_rows=1, streams=1, **plain):
        for _, part in segments(batch):
            seen[split_record_id(int(part["record_ids"][0]))[1]] += np.count_nonzero(part["slot"] == 0)
    density = seen / lengths
    longest = int(np.argmax(lengths))
    assert 0.7 < density[longest] / density[lengths < 341].mean() < 1.4


def test_held_out_batches_are_the_same_each_time_and_as_they_are(data: DataConfig) -> None:
    first = read(data, 12, split="validation")
    assert_equal(first, read(data, 12, split="validation"))
    changed = dataclasses.replace(data, anticipation=AnticipationConfig(), transpose=0, caption_dropout=0.5)
    assert_equal(first, read(changed, 12, split="validation"))
    # Three records of the smaller folder fill two streams: the largest count that divides the eight.
    assert {split_record_id(int(i)) for batch in first for i in np.unique(batch["record_ids"][4:]) if i >= 0} == {
        *((0, record) for record in range(5)),
        *((1, record) for record in range(3)),
    }
    halves = [read(data, 12, split="validation", host=host, hosts=2) for host in range(2)]
    for host, half in enumerate(halves):
        assert_equal(half, [{field: batch[field][host::2] for field in batch} for batch in first])


def test_a_record_is_named_by_its_id(data: DataConfig) -> None:
    with batches(data) as iterator:
        batch = next(iterator)
        for row, part in segments(batch):
            number = int(part["record_ids"][0])
            folder, record = split_record_id(number)
            path = (*data.music, *data.text)[folder].path
            ending = "txt" if row < 4 else "mid"
            assert iterator.describe(number) == f"{path}: train record {record} ({record:03d}.{ending})"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": 32}, r"text has 16 train records, too few for data\.streams = 32.*at most 16"),
        ({"streams": 0}, r"data\.streams is 0"),
        ({"music_rows": 3}, r"data\.music_rows is 3 and data\.streams is 8: one must be a multiple"),
        ({"music_rows": 0, "text_rows": 0}, r"data\.music_rows and data\.text_rows are both 0"),
        ({"text": ()}, r"data\.text_rows is 4 but data\.text names no folder"),
        ({"caption_dropout": 1.5}, r"data\.caption_dropout is 1\.5"),
        ({"anticipation": AnticipationConfig(spans=0.5, random=0.6)}, r"data\.anticipation.* is 1\.1"),
        (
            {"anticipation": AnticipationConfig(span_seconds=0.0)},
            r"data\.anticipation\.span_seconds is 0\.0: .* 0\.01 s",
        ),
        ({"row_length": 32}, r"data\.row_length is 32"),
        ({"tempo_stretch": 1.5}, r"data\.tempo_stretch is 1\.5"),
        ({"tokenizer": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_does_not_fit_is_named(data: DataConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        batches(data, **changes)


def test_folders_in_the_wrong_place_are_named(data: DataConfig) -> None:
    with pytest.raises(UserError, match="made by `prepare text`"):
        batches(data, music=data.text)
    with pytest.raises(UserError, match=r"weight -1\.0"):
        batches(data, music=(dataclasses.replace(data.music[0], weight=-1.0),))
    with pytest.raises(UserError, match=r"has 400 tokens and model\.text_vocab_size is 401"):
        Batches(data, split="train", text_vocab_size=401, seed=0)


def test_hosts_that_do_not_divide_are_named(data: DataConfig) -> None:
    with pytest.raises(UserError, match=r"data\.streams is 8: give a multiple of the number of hosts, which is 3"):
        batches(data, hosts=3)
    with pytest.raises(UserError, match=r"data\.text_rows is 4: give a multiple of the number of hosts, which is 8"):
        batches(data, hosts=8)
    with pytest.raises(UserError, match="3 validation records, too few for 4 hosts"):
        batches(data, split="validation", hosts=4, text_rows=0)


def test_a_state_of_another_run_is_named(data: DataConfig) -> None:
    with batches(data) as iterator:
        next(iterator)
        state = iterator.get_state()
        with pytest.raises(UserError, match="lacks stream 3 of 8"):
            iterator.set_state({stream: one for stream, one in state.items() if stream != "3"})
        with pytest.raises(UserError, match="not of one moment"):
            iterator.set_state(state | {"3": state["3"] | {"batches": 7}})
        with pytest.raises(UserError, match="does not say which data it is of"):
            iterator.set_state({stream: one for stream, one in state.items() if stream != "data"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "seed was 1, is now 2"),
        ({"streams": 4}, r"data\.streams was 8, is now 4"),
        ({"row_length": 256}, r"data\.row_length was 512, is now 256"),
        ({"music_rows": 8}, r"data\.music_rows was 4, is now 8"),
        ({"text_rows": 0}, r"data\.text_rows was 4, is now 0; .*data\.text\[0\] was \w{16}, is now absent"),
        ({"caption_dropout": 0.5}, r"data\.caption_dropout was 0\.2, is now 0\.5"),
        ({"transpose": 2}, r"data\.transpose was 3, is now 2"),
        ({"tempo_stretch": 0.1}, r"data\.tempo_stretch was 0\.0, is now 0\.1"),
        ({"alter_captioned": True}, r"data\.alter_captioned was False, is now True"),
        ({"window_start": "piece"}, r"data\.window_start was random, is now piece"),
        ({"compat_flag": True}, r"data\.compat_flag was False, is now True"),
        ({"prompt_weight": 0.5}, r"data\.prompt_weight was absent, is now 0\.5"),
        (
            {"anticipation": AnticipationConfig(spans=0.1, random=0.3, instruments=0.3, span_seconds=4.0)},
            r": data\.anticipation\.span_seconds was 5\.0, is now 4\.0: ",
        ),
    ],
)
def test_a_run_goes_on_with_the_settings_it_began_with(
    data: DataConfig, changes: dict[str, object], message: str
) -> None:
    with batches(data) as iterator:
        next(iterator)
        state = json.loads(json.dumps(iterator.get_state()))
    with batches(data, **changes) as other, pytest.raises(UserError, match=message):  # type: ignore[arg-type]
        other.set_state(state)
    # How far ahead batches are made, and by whom, changes none of them.
    with batches(data, prefetch=1, workers=2) as same:
        same.set_state(state)


def test_a_run_goes_on_with_the_shards_it_began_with(data: DataConfig, tmp_path: Path) -> None:
    """Wherever they lie; others are refused, though they may hold as many records of the same lengths."""
    pairs, midi = data.music
    with batches(data) as iterator:
        next(iterator)
        state = json.loads(json.dumps(iterator.get_state()))
    shutil.copytree(midi.path, tmp_path / "moved")
    with batches(data, music=(pairs, Source(str(tmp_path / "moved"), midi.weight))) as moved:
        moved.set_state(state)
    lengths = {split: open_split(midi.path, split).lengths.tolist() for split in ("train", "validation")}  # type: ignore[arg-type]
    write_music(tmp_path / "other", lengths, captioned=False, first=1_000)
    other = Source(str(tmp_path / "other"), midi.weight)
    changed = r": the shards of data\.music\[1\] was \w{16}, is now \w{16}: resume"
    with batches(data, music=(pairs, other)) as found, pytest.raises(UserError, match=changed):
        found.set_state(state)
    weighed = r": the weight of data\.music\[1\] was 1\.0, is now 2\.0: resume"
    heavy = dataclasses.replace(midi, weight=2.0)
    with batches(data, music=(pairs, heavy)) as found, pytest.raises(UserError, match=weighed):
        found.set_state(state)
    fewer = r"the shards of data\.music\[1\] was \w{16}, is now absent; the weight of data\.music\[1\] was 1"
    with batches(data, music=(pairs,)) as found, pytest.raises(UserError, match=fewer):
        found.set_state(state)


def test_a_run_goes_on_with_the_tokenizer_it_began_with(data: DataConfig, tmp_path: Path) -> None:
    with batches(data, text_rows=0) as iterator:
        state = iterator.get_state()
    train_sentencepiece(
        [f"other words, as it happens, {i} of them" for i in range(300)], tmp_path / "o.model", TEXT_VOCAB
    )
    with (
        batches(data, text_rows=0, tokenizer=str(tmp_path / "o.model")) as other,
        pytest.raises(UserError, match=r"tokenizer was \w{16}, is now \w{16}"),
    ):
        other.set_state(state)


def test_an_error_in_a_record_reaches_the_loop(data: DataConfig, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train") as writer:
        for number in range(STREAMS):
            writer.write(pack_piece(piece(number, 30, ()))[:-9], 30)
    manifest = read_manifest(data.music[0].path)
    write_manifest(tmp_path, dataclasses.replace(manifest, splits={"train": writer.split}))
    with batches(data, music=(Source(str(tmp_path)),)) as iterator, pytest.raises(UserError, match="it is damaged"):
        next(iterator)


def test_captions_too_long_for_a_row_are_counted_and_do_not_end_a_run(
    data: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ShardWriter(tmp_path, "train") as writer:
        for number in range(2 * STREAMS):
            caption = "piano " * 600 if number % 4 == 0 else "A song with piano."
            writer.write(pack_piece(piece(number, 30, (caption,))), 30)
    manifest = read_manifest(data.music[0].path)
    write_manifest(tmp_path, dataclasses.replace(manifest, splits={"train": writer.split}))
    with batches(data, music=(Source(str(tmp_path)),), caption_dropout=0.0) as iterator:
        shown = [part for _ in range(20) for row, part in segments(next(iterator)) if row >= 4]
        assert iterator.long_captions == 4
    bare = {split_record_id(int(part["record_ids"][0]))[1] for part in shown if part["slot"][2] >= 0}
    assert bare == {0, 4, 8, 12}
    assert len(caplog.records) == 1
