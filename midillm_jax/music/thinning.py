"""Which notes to leave out so that music gets sparser and stays itself: weak places first, short notes first."""

import bisect
import random
from collections.abc import Iterable, Sequence

from midillm_jax.music.clock import BarMap
from midillm_jax.music.parts import Part, ScoreNote

_TOLERANCE = 1 / 12
"""Beats that an onset may be off its place and still be there, as people play."""


def superfluous(
    notes: Iterable[ScoreNote], percent: float, bars: BarMap, ticks_per_beat: int, seed: int = 0
) -> list[ScoreNote]:
    """The notes to take out so that this share of each part's notes is left.

    What a part plays first in a bar always stays, so that more may be left than was asked for. Of the rest, those go
    first that are furthest from the bar's strong places (its line, its middle, beats, halves of beats, quarters of
    them), of these the shortest, of equals any, by the seed; a chord's notes count as one place.
    """
    by_part: dict[Part, list[ScoreNote]] = {}
    for note in notes:
        by_part.setdefault(note.part, []).append(note)
    rng = random.Random(seed)
    gone: list[ScoreNote] = []
    for own in by_part.values():
        first: dict[int, int] = {}  # bar -> when the part begins in it
        for note in own:
            bar = bars.bar(note.onset)
            first[bar] = min(first.get(bar, note.onset), note.onset)
        lot = {onset: rng.random() for onset in sorted({note.onset for note in own})}
        waiting = [note for note in own if note.onset != first[bars.bar(note.onset)]]
        waiting.sort(key=lambda note: (-weakness(note.onset, bars, ticks_per_beat), _length(note), lot[note.onset]))
        gone += waiting[: len(own) - round(len(own) * percent / 100)]
    return gone


def _length(note: ScoreNote) -> float:
    return float("inf") if note.end is None else note.end - note.onset


def weakness(tick: int, bars: BarMap, ticks_per_beat: int) -> int:
    """0 on a bar line, 1 in the middle of a bar, 2 on another beat, 3 and 4 on halves and quarters of beats, else 5.

    The beat of 6/8, 9/8 and 12/8 is three eighths, and its halves and quarters are the eighths and sixteenths.
    """
    bar = bars.bar(tick)
    numerator, denominator = bars.meters[bisect.bisect_right(bars.ticks, tick) - 1]
    in_threes = numerator > 3 and numerator % 3 == 0 and denominator >= 8
    beat = 4 * ticks_per_beat / denominator * (3 if in_threes else 1)
    line, next_line = bars.start(bar), bars.start(bar + 1)
    beats = (next_line - line) / beat
    at = (tick - line) / beat
    steps: Sequence[float] = (beats, beats / 2, 1, 1 / 3 if in_threes else 1 / 2, 1 / 6 if in_threes else 1 / 4)
    for level, step in enumerate(steps):
        if level == 1 and round(beats) % 2:
            continue
        if abs(at / step - round(at / step)) * step <= min(_TOLERANCE, step / 3):
            return level
    return len(steps)
