"""What the rules of dynamics make louder, and what softer."""

import numpy as np

from midillm_jax.music import dynamics

N = 400


def struck(pitches: list[int], program: int = 0, apart: int = 50, weights: list[int] | None = None) -> np.ndarray:
    """Means of velocities [len(pitches)] of a bar that is played over and over, one note every ``apart`` ticks."""
    count = len(pitches)
    onsets = apart * np.arange(N * count)
    notes = 128 * program + np.tile(pitches, N)
    weighted = None if weights is None else np.tile(weights, N)
    found = dynamics.velocities(onsets, notes, np.full(N * count, 80), weighted)
    return found.reshape(N, count).mean(0)


def test_bar_lines_are_louder_than_beats_and_beats_than_what_lies_between() -> None:
    line, off, beat = struck([60, 60, 60], weights=[2, 0, 1])
    assert line > beat + 2 > off + 4


def test_the_highest_voice_of_a_chord_sings_and_the_middle_steps_back() -> None:
    onsets = np.repeat(100 * np.arange(N), 3)
    found = dynamics.velocities(onsets, np.tile([48, 64, 72], N), np.full(3 * N, 80)).reshape(N, 3).mean(0)
    assert found[2] > found[0] > found[1]


def test_voices_of_different_instruments_do_not_hide_one_another() -> None:
    onsets = np.repeat(100 * np.arange(N), 2)
    notes = np.tile([128 * 73 + 84, 48], N)
    found = dynamics.velocities(onsets, notes, np.full(2 * N, 80)).reshape(N, 2).mean(0)
    assert abs(found[0] - found[1]) < 1


def test_kick_and_snare_carry_and_hats_fill() -> None:
    kick, hat, snare, hat_again = struck([36, 42, 38, 42], program=128)
    assert min(kick, snare) > max(hat, hat_again) + 8


def test_fast_passages_are_lighter() -> None:
    assert struck([60], apart=5)[0] < struck([60], apart=50)[0] - 5


def test_levels_are_kept_to_and_bounded() -> None:
    onsets, notes = np.arange(0, 10_000, 50), np.full(200, 60)
    for level in (1, 40, 100, 127):
        found = dynamics.velocities(onsets, notes, np.full(200, level))
        assert found.dtype == np.uint8
        assert found.min() >= dynamics.LOWEST
        assert found.max() <= dynamics.HIGHEST
        if dynamics.LOWEST + 10 < level < dynamics.HIGHEST - 10:
            assert abs(found.mean() - level) < 1
            assert found.std() > 0.5, "no player strikes all alike"


def test_the_seed_decides() -> None:
    onsets, notes, levels = np.arange(0, 1000, 50), np.full(20, 60), np.full(20, 80)
    first = dynamics.velocities(onsets, notes, levels, seed=1)
    np.testing.assert_array_equal(first, dynamics.velocities(onsets, notes, levels, seed=1))
    assert (first != dynamics.velocities(onsets, notes, levels, seed=2)).any()


def test_no_notes() -> None:
    nothing = np.zeros(0, np.int32)
    assert len(dynamics.velocities(nothing, nothing, nothing)) == 0
