"""The grid that the onsets of a score keep to, and moving onsets onto it."""

import dataclasses
from collections.abc import Iterable

from midillm_jax.errors import UserError
from midillm_jax.music.clock import BarMap

_CANDIDATES = ((1,), (2,), (3,), (4,), (2, 3), (4, 3), (6,), (4, 6), (8,), (8, 6), (12,), (8, 12))
"""From coarse to fine; the first that the onsets keep to is theirs."""
_TOLERANCE = 1 / 48
"""Beats that an onset may be off a grid that it keeps to: 10 ms at 120 beats a minute."""
_LEAST_AGREEMENT = 0.8
"""Share of onsets on the grid, corrected for chance (0 is what random onsets reach, 1 is all)."""
_NAMES = {"1/4": 1, "1/8": 2, "1/16": 4, "1/32": 8, "1/8t": 3, "1/16t": 6, "1/32t": 12}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Points that divide every beat (quarter note) of a bar, counted from its bar line."""

    divisions: tuple[int, ...]
    """Equal parts of a beat; (4, 3) are sixteenths and triplets of eighths."""

    def nearest(self, tick: int, bars: BarMap, ticks_per_beat: int) -> int:
        """The point nearest to a tick, of two equally near the earlier one. Bar lines are points too."""
        bar = bars.bar(tick)
        line, next_line = bars.start(bar), bars.start(bar + 1)
        points = {line, next_line}
        for parts in self.divisions:
            below = (tick - line) * parts // ticks_per_beat
            points |= {line + round(step * ticks_per_beat / parts) for step in (below, below + 1)}
        return min((point for point in points if point <= next_line), key=lambda point: (abs(point - tick), point))


def grid_named(text: str) -> Grid:
    """The grid of note lengths such as ``1/16`` or ``1/16+1/8t`` (sixteenths, and triplets of eighths).

    Raises:
        UserError: the text is none.
    """
    names = [name.strip() for name in text.lower().split("+")]
    if not all(name in _NAMES for name in names):
        raise UserError(f"{text!r} is no grid; join some of {', '.join(_NAMES)} by +, such as 1/16+1/8t")
    return Grid(tuple(_NAMES[name] for name in names))


def estimated_grid(onsets: Iterable[int], bars: BarMap, ticks_per_beat: int) -> Grid | None:
    """The coarsest grid that these onsets (ticks) keep to; None if they keep to none, as in a live recording.

    Onsets at one tick count once. A grid is kept to if four fifths of them are within a 48th of a beat of its points,
    after correction for the share that would be there by chance.
    """
    ticks = sorted(set(onsets))
    if not ticks:
        return None
    tolerance = ticks_per_beat * _TOLERANCE
    for divisions in _CANDIDATES:
        grid = Grid(divisions)
        hits = sum(abs(grid.nearest(tick, bars, ticks_per_beat) - tick) <= tolerance for tick in ticks)
        points = len({part / parts for parts in divisions for part in range(parts)})
        by_chance = min(points * (2 * int(tolerance) + 1) / ticks_per_beat, 1)
        if by_chance < 1 and (hits / len(ticks) - by_chance) / (1 - by_chance) >= _LEAST_AGREEMENT:
            return grid
    return None
