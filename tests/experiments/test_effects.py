"""Intervals and detectable effects against values worked out by hand, and by simulation."""

import math

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.experiments import effects


def test_a_paired_difference_is_students() -> None:
    effect = effects.paired({0: 11.0, 1: 22.0, 2: 33.0, 7: 99.0}, {0: 10.0, 1: 20.0, 2: 30.0})
    assert effect is not None
    assert effect.seeds == 3
    half = 4.303 / math.sqrt(3)
    assert effect.difference.value == pytest.approx(2.0)
    assert effect.difference.low == pytest.approx(2 - half)
    assert effect.difference.high == pytest.approx(2 + half)
    assert effect.detectable == pytest.approx((4.303 + 1.061) / math.sqrt(3))
    assert not effect.resolved


def test_what_all_seeds_share_is_resolved_by_pairing() -> None:
    effect = effects.paired({0: 1.1, 1: 50.11, 2: 900.1}, {0: 1.0, 1: 50.0, 2: 900.0})
    assert effect is not None
    assert effect.resolved


def test_one_seed_tells_no_spread() -> None:
    assert effects.paired({0: 1.0}, {0: 2.0, 1: 3.0}) is None
    assert effects.mean([1.0]) is None


def test_too_many_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="at most 16"):
        effects.mean([float(n) for n in range(17)])


@pytest.mark.parametrize("seeds", [2, 3, 5, 16])
def test_the_interval_holds_the_truth_19_times_in_20(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(2000):
        found = effects.mean(rng.normal(3.0, 2.0, seeds).tolist())
        assert found is not None
        held += found.low <= 3.0 <= found.high
    assert 0.93 < held / 2000 < 0.97
