"""The Frechet distance, beside closed forms and the formula with covariances written out."""

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.evaluation.frechet import LEAST_ROWS, distance, extrapolate, score


def rows_of(covariance: np.ndarray, mean: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows whose sample mean and covariance are exactly these: white noise, whitened, and coloured."""
    noise = np.random.default_rng(seed).normal(size=(count, len(mean)))
    noise -= noise.mean(0)
    white = noise @ np.linalg.inv(np.linalg.cholesky(np.cov(noise.T)).T)
    return white @ np.linalg.cholesky(covariance).T + mean


def by_eigenvalues(one: np.ndarray, other: np.ndarray) -> float:
    """The formula as it is written: the trace of a root is the sum of the roots of the product's eigenvalues."""
    first, second = np.cov(one.T), np.cov(other.T)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0)).sum()
    shift = one.mean(0) - other.mean(0)
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * roots)


def test_of_diagonal_gaussians() -> None:
    """Each direction by itself: the difference of the means, squared, and of the standard deviations, squared."""
    first, second = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 1.5])
    shift = np.array([0.3, 0.0, -2.0])
    one = rows_of(np.diag(first**2), np.zeros(3), 50, 0)
    other = rows_of(np.diag(second**2), shift, 80, 1)
    assert distance(one, other) == pytest.approx(np.sum(shift**2) + np.sum((first - second) ** 2), rel=1e-10)


def test_of_gaussians_that_do_not_commute() -> None:
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    one = rows_of(np.diag([1.0, 4.0, 9.0, 0.25]), np.zeros(4), 40, 0)
    other = rows_of(turn @ np.diag([2.0, 1.0, 5.0, 3.0]) @ turn.T, np.ones(4), 30, 1)
    assert distance(one, other) == pytest.approx(by_eigenvalues(one, other), rel=1e-10)
    assert distance(one, other) == pytest.approx(distance(other, one), rel=1e-12)


@pytest.mark.parametrize("count", [5, 200])
def test_identical_sets_and_shifted_ones(count: int) -> None:
    rows = np.random.default_rng(3).normal(size=(count, 12))
    assert distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-10)
    assert distance(rows, rows + 0.5) == pytest.approx(12 * 0.25, rel=1e-10)


@pytest.mark.parametrize(("few", "many"), [(5, 7), (5, 100), (40, 9)])
def test_sets_with_fewer_rows_than_numbers(few: int, many: int) -> None:
    """Singular covariances, whose eigenvalues are known to about the root of a float64's last place only."""
    rng = np.random.default_rng(4)
    one, other = rng.normal(size=(few, 20)), rng.normal(size=(many, 20)) * np.linspace(0.1, 3, 20)
    assert distance(one, other) == pytest.approx(by_eigenvalues(one, other), abs=1e-5)


def test_sets_in_subspaces_at_right_angles() -> None:
    """The covariances' product is nothing, so what is left is all the variance there is."""
    rng = np.random.default_rng(5)
    one, other = np.zeros((30, 10)), np.zeros((30, 10))
    one[:, :4], other[:, 4:] = rng.normal(size=(30, 4)), rng.normal(size=(30, 6))
    one -= one.mean(0)
    other -= other.mean(0)
    assert distance(one, other) == pytest.approx(one.var(0, ddof=1).sum() + other.var(0, ddof=1).sum(), rel=1e-10)


def test_two_large_sets_of_one_kind_are_near_nothing_apart() -> None:
    rng = np.random.default_rng(6)
    assert distance(rng.normal(size=(4_000, 8)), rng.normal(size=(4_000, 8))) < 0.02


def test_corrections_take_away_what_small_sets_add() -> None:
    """Two sets of one kind, whose truth is 0: the extrapolation leaves the reference's share, the jackknife nothing."""
    rng = np.random.default_rng(7)
    found = [score(rng.normal(size=(400, 6)), rng.normal(size=(80, 6)), seed) for seed in range(20)]
    plain = np.mean([each.distance for each in found])
    assert plain > 0.2
    assert 0 < np.mean([each.infinity.value for each in found]) < plain / 2
    assert abs(np.mean([each.corrected.value for each in found])) < plain / 5


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Truth 1, a shift in one of six directions; nominal 95 %, over 40 samples."""
    rng = np.random.default_rng(7)
    held = 0
    for seed in range(40):
        interval = score(rng.normal(size=(400, 6)), rng.normal(size=(80, 6)) + np.eye(6)[0], seed).corrected
        held += interval.low <= 1 <= interval.high
    assert held >= 35


def test_the_extrapolation_s_line_falls_with_more_rows() -> None:
    rng = np.random.default_rng(8)
    found = extrapolate(rng.normal(size=(500, 10)), rng.normal(size=(120, 10)), rng)
    assert found.slope > 0
    assert 0.7 < found.r2 <= 1


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(9)
    one, other = rng.normal(size=(50, 3)), rng.normal(size=(60, 3))
    assert score(one, other, 1) == score(one, other, 1) != score(one, other, 2)
    assert score(one, other, 1).distance == distance(one, other)


def test_what_is_no_set_is_refused() -> None:
    good = np.random.default_rng(0).normal(size=(LEAST_ROWS, 4))
    with pytest.raises(UserError, match="of 4 numbers, the other of 3"):
        distance(good, good[:, :3])
    with pytest.raises(UserError, match="at least 2 rows"):
        distance(good, good[:1])
    with pytest.raises(UserError, match="not all of them finite"):
        distance(good, np.where(good > 1, np.nan, good))
    with pytest.raises(UserError, match=f"at least {LEAST_ROWS} rows"):
        score(good, good[:-1], 0)
