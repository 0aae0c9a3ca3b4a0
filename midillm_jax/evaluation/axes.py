"""Round numbers for the axes of curves."""

import dataclasses
import math

_MARGIN = 1.1


@dataclasses.dataclass(frozen=True)
class Axis:
    """A range of values and where its lines are drawn."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the two ends, 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(low: float, high: float, parts: int) -> Axis:
    """Round ends around a range, and about ``parts`` stretches between them."""
    step = nice((high - low or abs(high) or 1.0) / parts)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return Axis(first * step, last * step, tuple(number * step for number in range(first, last + 1)))


def logarithmic(low: float, high: float, most: int) -> Axis:
    """A little more than a range of numbers above 0, with lines at 1, 2, 5, 10 ..., or sparser to have ``most``."""
    low, high = low / _MARGIN, high * _MARGIN
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        steps = (factor * 10.0**power for power in powers for factor in factors)
        ticks = tuple(step for step in steps if low <= step <= high)
        if len(ticks) <= most:
            break
    return Axis(low, high, ticks[:: -(-len(ticks) // most)], logarithmic=True)


def nice(size: float) -> float:
    """The next of ... 0.1, 0.2, 0.5, 1, 2, 5, 10 ... from a size up."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size * (1 - 1e-9))
