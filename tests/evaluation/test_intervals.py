"""The bootstrap, on samples whose truth is known."""

import numpy as np
import pytest

from midillm_jax.evaluation.intervals import LEAST_ITEMS, Interval, bootstrap, is_better, wilson


def mean_of(values: np.ndarray) -> Interval:
    return bootstrap(lambda weights: (weights @ values / len(values))[:, None], len(values), seed=0)[0]


def test_value_is_that_of_every_item_drawn_once() -> None:
    assert mean_of(np.array([1.0, 2.0, 6.0])).value == 3.0


def test_no_spread_no_width() -> None:
    found = mean_of(np.full(20, 2.5))
    assert (found.low, found.high) == (2.5, 2.5)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """A ratio of sums, as bits a note are, whose truth is 2; nominal 95 %, over 100 samples."""
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(100):
        notes = rng.integers(20, 120, size=40).astype(float)
        bits = notes * rng.normal(2.0, 0.5, size=40)
        interval = bootstrap(lambda w, b=bits, n=notes: (w @ b / (w @ n))[:, None], 40, seed)[0]
        held += interval.low <= 2.0 <= interval.high
    assert 0.88 <= held / 100 <= 0.99


def test_scores_are_compared_on_the_same_draws() -> None:
    """A score and the same score plus 1: had each its own draws, their bounds would not move together."""
    values = np.random.default_rng(0).normal(0, 10, size=30)
    one, other = bootstrap(lambda weights: weights @ np.stack([values, values + 1], axis=1) / 30, 30, seed=1)
    assert one.high - one.low > 3
    assert [other.value - one.value, other.low - one.low, other.high - one.high] == pytest.approx([1, 1, 1])


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=25)
    one, same, other = (
        bootstrap(lambda weights: (weights @ values / 25)[:, None], 25, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert one == same != other


def test_better_needs_an_interval_above_zero_and_enough_items() -> None:
    assert is_better(Interval(2.0, 0.1, 4.0), LEAST_ITEMS)
    assert not is_better(Interval(2.0, 0.0, 4.0), 100)
    assert not is_better(Interval(2.0, 1.0, 4.0), LEAST_ITEMS - 1)


def test_wilson_is_the_published_interval() -> None:
    """R. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
    table I, method 3."""
    for hits, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(hits, trials)
        assert (found.value, round(found.low, 4), round(found.high, 4)) == (hits / trials, low, high)
    assert wilson(20, 20).low == pytest.approx(1 - wilson(0, 20).high)
    assert wilson(20, 20).high == 1
