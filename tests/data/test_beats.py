"""Beats and bars from tempos and meters, and notes that do not keep them."""

import numpy as np
import pytest

from midillm_jax.data.beats import beat_grid, keeps_time
from midillm_jax.music.midi import NoteTable


def table(
    onsets: list[int] | np.ndarray,
    tempos: tuple[tuple[int, int], ...] = ((0, 500_000),),
    meters: tuple[tuple[int, int, int], ...] = (),
    duration: int = 10,
) -> NoteTable:
    count = len(onsets)
    return NoteTable(
        np.array(onsets, np.int32),
        np.full(count, duration, np.int32),
        np.full(count, 60, np.int32),
        np.full(count, 80, np.uint8),
        np.array(tempos, np.int64),
        np.array(meters, np.int32).reshape(-1, 3),
    )


def bars(piece: NoteTable) -> list[list[float]]:
    """The beats' beginnings, bar by bar."""
    grid = beat_grid(piece)
    assert grid is not None
    assert len(grid.edges) == len(grid.bars) + 1
    assert (np.diff(grid.edges) >= 0).all()
    return [grid.edges[:-1][grid.bars == bar].round(3).tolist() for bar in range(grid.bars[-1] + 1)]


def test_four_beats_where_the_file_says_nothing() -> None:
    assert bars(table([0, 350])) == [[0, 50, 100, 150], [200, 250, 300, 350]]


def test_beats_follow_a_tempo_that_changes_within_a_bar() -> None:
    piece = table([0, 590], tempos=((0, 500_000), (100, 1_000_000)), meters=((0, 4, 4),))
    assert bars(piece) == [[0, 50, 100, 200], [300, 400, 500]]


def test_an_upbeat_in_a_meter_of_its_own_starts_the_bars_behind_it() -> None:
    piece = table([0, 340], meters=((0, 1, 4), (50, 3, 4)))
    assert bars(piece) == [[0], [50, 100, 150], [200, 250, 300]]


def test_compound_meters_have_beats_of_three() -> None:
    assert bars(table([0, 290], meters=((0, 6, 8),))) == [[0, 75], [150, 225]]
    assert bars(table([0, 200], meters=((0, 9, 8),))) == [[0, 75, 150]]
    assert bars(table([0, 140], meters=((0, 3, 8),))) == [[0, 25, 50], [75, 100, 125]]
    assert bars(table([0, 300], meters=((0, 2, 2),))) == [[0, 100], [200, 300]]


def test_a_bar_that_a_new_meter_cuts_short_ends_there() -> None:
    piece = table([0, 380], meters=((0, 4, 4), (300, 2, 4)))
    assert bars(piece) == [[0, 50, 100, 150], [200, 250], [300, 350]]


def test_a_meter_that_begins_late_leaves_four_beats_before_it() -> None:
    assert bars(table([0, 330], meters=((200, 3, 4),))) == [[0, 50, 100, 150], [200, 250, 300]]


def test_rounded_times_do_not_add_slivers_of_beats() -> None:
    # 174 BPM: a bar of four lasts 137.93 ticks; its end was rounded to 138.
    piece = table([0, 270], tempos=((0, 344_828),), meters=((0, 4, 4), (138, 3, 4)))
    assert [len(bar) for bar in bars(piece)] == [4, 3, 2]


@pytest.mark.parametrize("tempo", [0, 1])
def test_absurd_tempos_do_no_harm(tempo: int) -> None:
    assert beat_grid(table([0, 1_000_000], tempos=((0, tempo),))) is None
    grid = beat_grid(table([0, 300], tempos=((0, 500_000), (200, tempo))))
    assert grid is not None
    assert np.isfinite(grid.edges).all()


def test_notes_on_the_parts_of_a_beat_keep_time() -> None:
    for division in (1, 2, 3, 4, 6):
        beats = np.arange(64) / division
        assert keeps_time(table(np.rint(beats * 41.4).astype(int), tempos=((0, 414_000),)))


def test_notes_to_a_click_keep_time_though_nobody_plays_exactly() -> None:
    rng = np.random.default_rng(1)
    onsets = np.sort(np.arange(200) * 25 + rng.normal(0, 3, 200)).clip(0).astype(int)
    assert keeps_time(table(onsets))


def test_notes_played_freely_do_not() -> None:
    rng = np.random.default_rng(2)
    onsets = np.cumsum(rng.integers(8, 60, 400))
    assert not keeps_time(table(onsets))
    assert keeps_time(table(onsets[:10])), "ten notes tell nothing"


def test_notes_in_another_tempo_do_not() -> None:
    """Eighths at 97 BPM in a file that says 120."""
    onsets = np.rint(np.arange(600) * 30.93).astype(int)
    assert not keeps_time(table(onsets))
