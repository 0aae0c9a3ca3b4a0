"""Percentile bootstrap: how far a score may lie from what other pieces of the same kind would give.

Items (pieces, prompts) are drawn anew with replacement and the score taken again each time (Efron and Tibshirani,
"An Introduction to the Bootstrap", chapter 13). Scores that are compared are taken on the same draws, so the interval
of their difference is a paired one.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

RESAMPLES = 4_000
LEAST_ITEMS = 8
"""With fewer, the percentiles of resamples say nothing and no comparison counts as won."""
_WEIGHTS_AT_ONCE = 4_000_000
_NORMAL_95 = 1.959964
"""Standard deviations that hold 95 % of a normal distribution."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A score and the bounds that hold 95 % of its resamples."""

    value: float
    low: float
    high: float

    def __neg__(self) -> "Interval":
        return Interval(-self.value, -self.high, -self.low)

    def numbers(self) -> str:
        """To two places: ``1.53 [1.33, 1.76]``; nothing rounds to -0."""
        value, low, high = (f"{round(part, 2) + 0.0:.2f}" for part in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def percent(self, unit: str = " %") -> str:
        """Of a share, in whole percent: ``87 % [77, 95]``."""
        value, low, high = (round(100 * part) for part in (self.value, self.low, self.high))
        return f"{value}{unit} [{low}, {high}]"


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], items: int, seed: int) -> list[Interval]:
    """Intervals of one or more scores of the same items.

    Args:
        statistic: weights float64 [R, items] (how often each item is drawn) -> scores float64 [R, k].
        items: at least 1.
        seed: of the draws.

    Returns:
        an interval for each of the k scores; the value is that of every item drawn once.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, _WEIGHTS_AT_ONCE // items))
    drawn = []
    for start in range(0, RESAMPLES, rows):
        count = min(rows, RESAMPLES - start)
        weights = rng.multinomial(items, np.full(items, 1 / items), size=count)
        drawn.append(statistic(weights.astype(np.float64)))
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)
    values = statistic(np.ones((1, items)))[0]
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def wilson(hits: int, trials: int) -> Interval:
    """A share of independent trials and its 95 % score interval (E. B. Wilson, JASA 22, 1927); holds for few trials.

    Args:
        hits: 0 to ``trials``.
        trials: at least 1.
    """
    share, weight = hits / trials, _NORMAL_95**2 / trials
    middle = (share + weight / 2) / (1 + weight)
    half = _NORMAL_95 * math.sqrt((share * (1 - share) + weight / 4) / trials) / (1 + weight)
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0))


def is_better(difference: Interval, items: int) -> bool:
    """Whether a difference (larger is better) is above 0 by more than chance."""
    return items >= LEAST_ITEMS and difference.low > 0
