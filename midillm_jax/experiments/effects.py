"""How large an effect is, and how small a one could have been seen, from a few seeds.

Arms share their seeds, so an arm is held against the baseline seed by seed: Student's interval of the mean difference.
The smallest detectable effect is the one that such a test (two-sided, 5 %) would have found four times in five, were
the spread of the differences the true one: (t_.975 + t_.80) x spread / sqrt(seeds).
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from midillm_jax.errors import UserError
from midillm_jax.evaluation.intervals import Interval

_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T_80 = (1.376, 1.061, 0.978, 0.941, 0.920, 0.906, 0.896, 0.889, 0.883, 0.879, 0.876, 0.873, 0.870, 0.868, 0.866)
"""Quantiles of Student's t with 1 to 15 degrees of freedom."""
MOST_SEEDS = len(_T_975) + 1
NOT_RESOLVED = "not resolved at this size"


@dataclasses.dataclass(frozen=True)
class Effect:
    """A difference between two arms."""

    difference: Interval
    """Arm minus baseline; 95 %."""
    detectable: float
    """The smallest effect that would have been found four times in five."""
    seeds: int

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


def mean(values: Sequence[float]) -> Interval | None:
    """The mean and its 95 % interval; None of a single value.

    Raises:
        UserError: more values than the table of quantiles has.
    """
    if len(values) < 2:
        return None
    middle, half = statistics.fmean(values), _quantile(_T_975, len(values)) * _error(values)
    return Interval(middle, middle - half, middle + half)


def paired(arm: dict[int, float], baseline: dict[int, float]) -> Effect | None:
    """Arm minus baseline over the seeds that both have; None for fewer than two."""
    differences = [arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())]
    interval = mean(differences)
    if interval is None:
        return None
    factor = _quantile(_T_975, len(differences)) + _quantile(_T_80, len(differences))
    return Effect(interval, factor * _error(differences), len(differences))


def _quantile(table: Sequence[float], values: int) -> float:
    if values > MOST_SEEDS:
        raise UserError(f"{values} seeds; expected at most {MOST_SEEDS}")
    return table[values - 2]


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))
