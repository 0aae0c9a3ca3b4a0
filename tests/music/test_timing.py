"""Beats and bars that are heard where a file says nothing of them."""

import numpy as np
import pytest

from midillm_jax.music.midi import NoteTable, read_midi, write_midi
from midillm_jax.music.timing import Pulse, find_pulse, played
from tests.music.grooves import groove


@pytest.mark.parametrize("beat", [50.0, 46.15, 66.7])
@pytest.mark.parametrize(("beats", "meter"), [(4, (4, 4)), (3, (3, 4))])
def test_beat_and_bar_are_found_wherever_the_piece_begins(beat: float, beats: int, meter: tuple[int, int]) -> None:
    for start in (0.0, 17.0, 2.3 * beat):
        pulse = find_pulse(groove(beat, beats, start=start, jitter=1.0))
        assert pulse is not None
        assert pulse.beat == pytest.approx(beat, rel=0.01)
        assert pulse.meter == meter
        away = (pulse.first - start) % (beat * beats)
        assert min(away, beat * beats - away) < 4


def test_onsets_that_keep_to_no_beat_get_none() -> None:
    rng = np.random.default_rng(0)
    onsets = np.sort(rng.integers(0, 6000, 300)).astype(np.int32)
    table = NoteTable(onsets, np.full(300, 20, np.int32), np.full(300, 60, np.int32), np.full(300, 72, np.uint8))
    assert find_pulse(table) is None
    given = played(table)
    np.testing.assert_array_equal(given.onsets, table.onsets)
    assert len(given.meters) == 0
    assert len(set(given.velocities.tolist())) > 3


def test_a_file_opens_with_its_bars_on_bar_lines() -> None:
    table = groove(48.0, 4, start=48.0)
    given = played(table)
    assert given.tempos.tolist() == [[0, 480_000]]
    assert given.meters.tolist() == [[0, 4, 4]]
    moved = given.onsets - table.onsets
    assert len(set(moved.tolist())) == 1, "notes keep their places to one another"
    kicks = given.onsets[given.notes == 128 * 128 + 36]
    assert (np.abs((kicks + 96) % 192 - 96) <= 1).all()
    again = read_midi(write_midi(given))
    np.testing.assert_allclose(again.onsets, given.onsets, atol=1)
    np.testing.assert_array_equal(again.tempos, given.tempos)


def test_a_pickup_stands_before_the_first_bar_line() -> None:
    table = groove(50.0, 4, start=150.0)
    pickup = NoteTable(
        np.concatenate([np.array([100], np.int32), table.onsets]),
        np.concatenate([np.array([40], np.int32), table.durations]),
        np.concatenate([np.array([67], np.int32), table.notes]),
        np.concatenate([np.array([72], np.uint8), table.velocities]),
    )
    given = played(pickup)
    assert given.onsets[0] == pytest.approx(150, abs=2), "three beats of rest, then the pickup on the fourth"
    kicks = given.onsets[given.notes == 128 * 128 + 36]
    assert (np.abs((kicks + 100) % 200 - 100) <= 2).all()


def test_bar_lines_are_stressed() -> None:
    given = played(groove(50.0, 4))
    chords, bass = given.velocities[given.notes == 64], given.velocities[given.notes == 128 * 33 + 40]
    assert bass.mean() > chords.mean()


def test_compound_meters_count_quarters() -> None:
    assert Pulse(75.0, 0.0, 2, (6, 8)).microseconds == 500_000
    assert Pulse(50.0, 0.0, 4, (4, 4)).microseconds == 500_000


def test_no_notes() -> None:
    nothing = np.zeros(0, np.int32)
    assert len(played(NoteTable(nothing, nothing, nothing, nothing.astype(np.uint8)))) == 0
