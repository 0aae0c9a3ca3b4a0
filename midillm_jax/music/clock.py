"""The clock of a score: which second and which bar a tick falls on, and back; places as people write them.

Bars. A time signature begins a bar wherever it stands, even where the one before is not full; one that repeats what is
in force changes nothing. Without any, bars are of 4/4. Bar 1 is the first full bar: where the first time signature
stands for one bar at most and the next one's bar is longer, as notation programs write a pickup, that is bar 0. A
pickup that the file does not tell from a full bar is counted as one, as sequencers do; so are the two halves of a bar
that a notation program splits at a repeat.
"""

import bisect
import dataclasses
import itertools
import math
import re

from midillm_jax.errors import UserError
from midillm_jax.music.midi import DEFAULT_TEMPO
from midillm_jax.music.score import SET_TEMPO, TIME_SIGNATURE, Score, meta_data

_DEFAULT_METER = (4, 4)
_MAX_BAR_LINES = 2_000
"""More lines would be a grey area."""


@dataclasses.dataclass(frozen=True)
class TempoMap:
    """Seconds and ticks. The arithmetic is in whole numbers: microseconds times ticks per beat."""

    ticks_per_beat: int
    ticks: tuple[int, ...]
    """Where a tempo begins; the first is 0."""
    tempos: tuple[int, ...]
    """Microseconds of a beat (a quarter note) from there on."""
    elapsed: tuple[int, ...]
    """Microseconds until there, times ticks_per_beat."""

    def seconds(self, tick: int) -> float:
        """When a tick of at least 0 falls."""
        row = bisect.bisect_right(self.ticks, tick) - 1
        return (self.elapsed[row] + (tick - self.ticks[row]) * self.tempos[row]) / (1e6 * self.ticks_per_beat)

    def tick(self, seconds: float) -> int:
        """The tick nearest to a time of at least 0; where time stands still (tempo 0), the last one."""
        elapsed = seconds * 1e6 * self.ticks_per_beat
        row = bisect.bisect_right(self.elapsed, elapsed) - 1
        beyond = round((elapsed - self.elapsed[row]) / self.tempos[row]) if self.tempos[row] else 0
        return self.ticks[row] + beyond


def tempo_map(score: Score) -> TempoMap:
    """The tempos of all tracks; each holds for all of them, and of several at a tick the last one counts."""
    tempos = {0: DEFAULT_TEMPO} | {
        tick: int.from_bytes(data[:3], "big") for tick, data in _metas(score, SET_TEMPO) if len(data) >= 3
    }
    ticks = tuple(tempos)
    elapsed = [0]
    for before, after in itertools.pairwise(ticks):
        elapsed.append(elapsed[-1] + (after - before) * tempos[before])
    return TempoMap(score.ticks_per_beat, ticks, tuple(tempos.values()), tuple(elapsed))


def _metas(score: Score, kind: int) -> list[tuple[int, bytes]]:
    """Tick and data of the meta events of a kind, in the order of ticks, then of tracks."""
    found = [
        (event.tick, data)
        for track in score.tracks
        for event in track
        if (data := meta_data(event.message, kind)) is not None
    ]
    return sorted(found, key=lambda each: each[0])


@dataclasses.dataclass(frozen=True)
class BarMap:
    """Bars and ticks. A row is a stretch of bars of one length."""

    ticks: tuple[int, ...]
    """Where a row's first bar begins; the first is 0."""
    numbers: tuple[int, ...]
    """That bar's number; the first is 0 where there is a pickup, else 1."""
    lengths: tuple[float, ...]
    """Ticks of a bar; whole but for meters finer than a tick."""
    meters: tuple[tuple[int, int], ...]
    """Numerator, denominator."""

    def start(self, bar: int) -> int:
        """The first tick of a bar, which may lie beyond the end of the music.

        Raises:
            ValueError: the number is below the first bar's.
        """
        if bar < self.numbers[0]:
            raise ValueError(f"bar {bar} is before the first, {self.numbers[0]}")
        row = bisect.bisect_right(self.numbers, bar) - 1
        return self.ticks[row] + round((bar - self.numbers[row]) * self.lengths[row])

    def bar(self, tick: int) -> int:
        """The bar that a tick of at least 0 lies in."""
        row = bisect.bisect_right(self.ticks, tick) - 1
        bar = self.numbers[row] + int((tick - self.ticks[row]) / self.lengths[row])
        return bar + 1 if self.start(bar + 1) <= tick else bar  # where bars are not whole ticks


def bar_map(score: Score) -> BarMap:
    """The bars of a score, by the time signatures of all its tracks; see the module on pickups."""
    meters = {0: _DEFAULT_METER}
    for tick, data in _metas(score, TIME_SIGNATURE):
        if len(data) >= 2 and data[0]:
            meters[tick] = (data[0], 1 << data[1])
    changes = list(meters.items())
    changes = changes[:1] + [after for before, after in itertools.pairwise(changes) if before[1] != after[1]]
    ticks = tuple(tick for tick, _ in changes)
    lengths = tuple(max(4 * score.ticks_per_beat * number / unit, 1.0) for _, (number, unit) in changes)
    has_pickup = len(ticks) > 1 and ticks[1] <= lengths[0] and ticks[1] < lengths[1]
    numbers = [0 if has_pickup else 1]
    for row in range(1, len(ticks)):
        bars = math.ceil((ticks[row] - ticks[row - 1]) / lengths[row - 1])  # the last may be cut short
        numbers.append(numbers[-1] + bars)
    return BarMap(ticks, tuple(numbers), lengths, tuple(meter for _, meter in changes))


_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?s(?:ec(?:onds?)?)?")
_MINUTES = re.compile(r"(\d+):([0-5]\d(?:\.\d*)?)")
_BAR = re.compile(r"bar ?(\d+)")
_BARS = re.compile(r"(?:bars? ?)?(\d+)(?: ?[-\u2013] ?(\d+))?")


def seconds_named(text: str) -> float | None:
    """The seconds of ``30s`` or ``0:30`` (minutes and seconds); None if the text is neither."""
    words = text.strip().lower()
    if match := _SECONDS.fullmatch(words):
        return float(match[1])
    match = _MINUTES.fullmatch(words)
    return 60 * int(match[1]) + float(match[2]) if match else None


def place(score: Score, text: str) -> int:
    """The tick of ``30s``, ``0:30`` (minutes and seconds) or ``bar 17`` (where it begins).

    Places reach to the end of the last bar, where a continuation begins.

    Raises:
        UserError: the text is none of these, or the place is not in the score.
    """
    if match := _BAR.fullmatch(text.strip().lower()):
        return _bar_start(score, int(match[1]), text)
    seconds = seconds_named(text)
    if seconds is None:
        raise UserError(f"{score.name}: {text!r} is no place; write seconds (30s), minutes (0:30) or a bar (bar 17)")
    tick = tempo_map(score).tick(seconds)
    if tick > music_end(score):
        raise _beyond(score, text)
    return tick


def span(score: Score, begin: str, end: str) -> tuple[int, int]:
    """The first tick of a span between two places, and the first behind it.

    Raises:
        UserError: a place is not in the score, or the second is not behind the first.
    """
    ticks = place(score, begin), place(score, end)
    if ticks[0] >= ticks[1]:
        raise UserError(f"{score.name}: between {begin!r} and {end!r} is nothing; name the earlier place first")
    return ticks


def bars(score: Score, text: str) -> tuple[int, int]:
    """The first tick of bars such as ``9-16`` (both included) or ``9``, and the first behind them.

    Raises:
        UserError: the text names no bars, or bars that are not in the score.
    """
    match = _BARS.fullmatch(text.strip().lower())
    if match is None:
        raise UserError(f"{score.name}: {text!r} names no bars; write the first and the last one (9-16), or one (9)")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise UserError(f"{score.name}: bars {text!r} end before they begin; write the first one first")
    begin, end = _bar_start(score, first, text), bar_map(score).start(last + 1)
    if end > music_end(score):
        raise _beyond(score, text)
    return begin, end


def music_end(score: Score) -> int:
    """The end of the bar in which the last event stands; an event at a bar's very beginning ends the one before."""
    bar = bar_map(score)
    return bar.start(bar.bar(max(score.end_tick() - 1, 0)) + 1)


def bar_lines(score: Score) -> list[tuple[int, float]]:
    """Number and second of every bar's beginning, and of the end of the last one; none where there are too many."""
    bars, tempos, end = bar_map(score), tempo_map(score), music_end(score)
    first, last = bars.bar(0), bars.bar(max(end - 1, 0))
    if last - first >= _MAX_BAR_LINES:
        return []
    return [(bar, round(tempos.seconds(bars.start(bar)), 3)) for bar in range(first, last + 2)]


def _bar_start(score: Score, number: int, text: str) -> int:
    bar = bar_map(score)
    if number < bar.numbers[0]:
        raise UserError(
            f"{score.name}: {text!r} names bar {number}, but the first is bar {bar.numbers[0]}; count from it"
        )
    start = bar.start(number)
    if start > music_end(score):
        raise _beyond(score, text)
    return start


def _beyond(score: Score, text: str) -> UserError:
    bar = bar_map(score)
    last, seconds = bar.bar(max(score.end_tick() - 1, 0)), tempo_map(score).seconds(music_end(score))
    return UserError(
        f"{score.name}: {text!r} is beyond its end; it has bars {bar.numbers[0]} to {last}, which take "
        f"{seconds:.1f} seconds: name a place within"
    )
