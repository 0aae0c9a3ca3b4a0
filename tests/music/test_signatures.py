"""Made-up failures are called what they are, and music of many kinds is not."""

from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.signatures import Signatures, longest_loop, signatures

PIANO, DRUMS = 0, 128
RNG_SEED = 3


def table(onsets: np.ndarray, notes: np.ndarray, durations: np.ndarray | int = 20) -> NoteTable:
    """Notes in any order, in ticks of 10 ms."""
    order = np.argsort(onsets, kind="stable")
    lengths = np.broadcast_to(durations, onsets.shape).astype(np.int32)[order]
    velocities = np.full(len(onsets), 72, np.uint8)
    return NoteTable(np.rint(onsets[order]).astype(np.int32), lengths, notes[order].astype(np.int32), velocities)


def tune(rng: np.random.Generator, count: int, gap: float = 25.0) -> NoteTable:
    """``count`` notes of a melody that never comes back, legato."""
    return table(gap * np.arange(count), rng.integers(48, 80, count), int(gap))


def together(*parts: NoteTable) -> NoteTable:
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("onsets", "notes", "durations")]
    return table(*columns)


def looped(bar: NoteTable, seconds: float, times: int, jitter: np.ndarray | int = 0) -> NoteTable:
    """A bar of so many seconds, ``times`` over."""
    played = np.repeat(np.arange(times), len(bar))
    onsets = np.tile(bar.onsets, times) + 100 * seconds * played + jitter
    return table(np.maximum(onsets, 0), np.tile(bar.notes, times), np.tile(bar.durations, times))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


@pytest.mark.parametrize("seconds", [1.0, 1.7142, 2.0, 2.1818, 3.3333, 7.5, 15.3])
def test_a_loop_of_any_tempo_is_one(rng: np.random.Generator, seconds: float) -> None:
    """Whether or not a bar is a whole number of ticks."""
    found = signatures(looped(tune(rng, 16, gap=100 * seconds / 16), seconds, 12))
    assert found.looping
    assert found.loop_share == pytest.approx(11 / 12, abs=0.05)
    assert found.loop_seconds == pytest.approx(seconds, abs=0.02)
    assert not found.flooded
    assert not found.empty


def test_a_loop_that_is_not_quite_exact_is_one(rng: np.random.Generator) -> None:
    """Onsets a tick off, and in some bars one note of sixteen wrong."""
    piece = looped(tune(rng, 16, gap=15), 2.4, 20, jitter=rng.integers(-1, 2, 320))
    for bar in (1, 2, 5, 6, 9, 11, 12, 16, 18):
        piece.notes[16 * bar + rng.integers(16)] += rng.integers(1, 12)
    assert signatures(piece).looping


def test_a_bar_of_twice_the_notes_is_another() -> None:
    """Each bar strikes the note of the bar before, but twice as often."""
    onsets = np.concatenate([np.full(2**bar, 200.0 * bar) for bar in range(9)])
    assert longest_loop(table(onsets, np.full(len(onsets), 60))).share == 0


def test_a_note_struck_on_and_on_is_a_loop() -> None:
    found = signatures(table(30.0 * np.arange(200), np.full(200, 60)))
    assert found.looping


def test_a_loop_shows_after_music(rng: np.random.Generator) -> None:
    """Three quarters of a piece, but not a third of it."""
    bar = tune(rng, 12)

    def piece(times: int, before: int) -> NoteTable:
        loop = looped(bar, 3.0, times)
        return together(tune(rng, before), table(loop.onsets + 25 * before, loop.notes))

    assert signatures(piece(times=24, before=96)).looping
    some = signatures(piece(times=8, before=192))
    assert not some.looping
    assert some.loop_share == pytest.approx(7 / 24, abs=0.05)


def test_a_melody_over_a_loop_is_music(rng: np.random.Generator) -> None:
    riff = looped(table(50.0 * np.arange(4), np.array([36, 43, 41, 43])), 2.0, 24)
    assert not signatures(together(riff, tune(rng, 192))).looping


def test_a_bar_heard_twice_or_thrice_is_no_loop(rng: np.random.Generator) -> None:
    for times in (2, 3):
        assert longest_loop(looped(tune(rng, 16), 4.0, times)).share <= 0.5


def test_an_ambling_tune_has_no_loop(rng: np.random.Generator) -> None:
    found = signatures(tune(rng, 300))
    assert found.loop_share < 0.1
    assert not found.looping


def test_piled_up_notes_are_a_flood(rng: np.random.Generator) -> None:
    notes = rng.integers(0, 128 * 100, 400)
    heap = signatures(table(50.0 * (np.arange(400) // 50), notes))
    assert heap.most_together == 50
    assert heap.flooded
    rush = signatures(table(np.arange(400) / 1.25, notes))
    assert rush.most_together < 3
    assert rush.notes_a_second == pytest.approx(125, rel=0.02)
    assert rush.flooded


def test_a_great_chord_is_no_flood(rng: np.random.Generator) -> None:
    """A tutti of forty notes twice a second for a while, as in a symphony."""
    notes = 128 * np.tile(np.arange(40), 60) + np.repeat(rng.integers(40, 60, 60), 40)
    found = signatures(table(50.0 * (np.arange(2400) // 40), notes))
    assert (found.most_together, found.flooded) == (40, False)


@pytest.mark.parametrize(
    ("onsets", "duration"),
    [
        (25.0 * np.arange(15), 900),  # fifteen notes
        (20.0 * np.arange(24), 10),  # 4.7 s
        (np.concatenate([25.0 * np.arange(60), 2350 + 25.0 * np.arange(60)]), 25),  # 8.5 s of nothing in the middle
        (np.concatenate([25.0 * np.arange(60), 2100 + 25.0 * np.arange(60)]), 25),  # 6 s
        (100.0 * np.arange(40), 40),  # silent for 60 %
        (100.0 * np.arange(40), 55),  # for 45 %
    ],
)
def test_next_to_nothing_is_empty(rng: np.random.Generator, onsets: np.ndarray, duration: int) -> None:
    assert signatures(table(onsets, rng.integers(40, 80, len(onsets)), duration)).empty


def test_what_is_found_is_measured_from_the_first_note(rng: np.random.Generator) -> None:
    """A piece that begins late is no emptier than one that begins at once."""
    piece = tune(rng, 64)
    late = table(piece.onsets + 5_000.0, piece.notes, 25)
    assert signatures(late) == signatures(piece)
    assert signatures(piece).seconds == pytest.approx(16.0)
    assert signatures(piece).silent_share == 0
    gapped = table(np.concatenate([piece.onsets, piece.onsets + 1_900.0]), np.tile(piece.notes, 2), 25)
    found = signatures(gapped)
    assert found.longest_silence == pytest.approx(3.0)
    assert found.silent_share == pytest.approx(3 / 35)
    assert not found.empty


def test_a_long_note_covers_the_gap_behind_it(rng: np.random.Generator) -> None:
    onsets = np.concatenate([[0.0], 25.0 * np.arange(30), 1_000 + 25.0 * np.arange(30)])
    durations = np.concatenate([[999], np.full(60, 25)])
    found = signatures(table(onsets, rng.integers(40, 80, 61), durations))
    assert found.longest_silence == pytest.approx(0.01)


def test_no_notes() -> None:
    nothing = signatures(table(np.zeros(0), np.zeros(0)))
    assert nothing == Signatures(0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0)
    assert nothing.empty
    assert not nothing.looping
    assert not nothing.flooded


def test_one_note() -> None:
    found = signatures(table(np.array([40.0]), np.array([60]), 50))
    assert (found.notes, found.seconds, found.most_together) == (1, 0.5, 1)
    assert found.empty
    assert not found.looping


def test_the_bands_songs_are_neither_floods_nor_empty(tmp_path: Path) -> None:
    write_band(tmp_path / "band", 20, seed=5, documents=0)
    found = [signatures(read_midi(path.read_bytes())) for path in sorted(tmp_path.rglob("*.mid"))]
    assert len(found) == 20
    assert not any(each.flooded or each.empty for each in found)


def test_in_a_stretch_silence_counts_from_edge_to_edge(rng: np.random.Generator) -> None:
    piece = tune(rng, 40)  # 10 s
    assert not signatures(piece, (0, 1000)).holey
    late, early = signatures(piece, (-600, 1000)), signatures(piece, (0, 1600))
    assert late.holey
    assert early.holey
    assert late.longest_silence == early.longest_silence == 6.0
    assert late.silent_share == pytest.approx(6 / 16)
    nothing = signatures(table(np.zeros(0), np.zeros(0)), (0, 200))
    assert (nothing.holey, nothing.longest_silence) == (True, 2.0)
