"""Where an edit is done, as people say it: bars, seconds, the last 8 bars, the first half."""

import dataclasses
import re
from typing import Literal

from midillm_jax.errors import UserError
from midillm_jax.music.clock import bar_map, bars, music_end, place, seconds_named, tempo_map
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import Score


@dataclasses.dataclass(frozen=True)
class Bars:
    """Bars by their numbers, both included."""

    first: int | None = None
    """None: from the beginning of the file."""
    last: int | None = None
    """None: to its end."""

    def __str__(self) -> str:
        if self.first is None:
            return "all" if self.last is None else f"through bar {self.last}"
        if self.last is None:
            return f"from bar {self.first}"
        return f"bar {self.first}" if self.first == self.last else f"bars {self.first}-{self.last}"

    def ticks(self, score: Score) -> tuple[int, int]:
        """The first tick, and the first behind; see ``ticks``."""
        begin = 0 if self.first is None else bars(score, str(self.first))[0]
        end = _file_end(score) if self.last is None else bars(score, f"{self.first or self.last}-{self.last}")[1]
        return begin, end


@dataclasses.dataclass(frozen=True)
class Seconds:
    """From a time to another."""

    begin: float | None
    """None: from the beginning of the file."""
    end: float | None
    """None: to its end."""

    def __str__(self) -> str:
        if self.begin is None:
            return f"until {self.end:g}s"
        return f"from {self.begin:g}s" if self.end is None else f"{self.begin:g}s-{self.end:g}s"

    def ticks(self, score: Score) -> tuple[int, int]:
        """The first tick, and the first behind; see ``ticks``."""
        begin = 0 if self.begin is None else place(score, f"{self.begin:g}s")
        return begin, _file_end(score) if self.end is None else place(score, f"{self.end:g}s")


@dataclasses.dataclass(frozen=True)
class Edge:
    """So many bars or seconds at the beginning, or up to the end of the last note (bars: of its bar)."""

    count: float
    unit: Literal["bars", "seconds"]
    last: bool

    def __str__(self) -> str:
        side = "last" if self.last else "first"
        if self.unit == "seconds":
            return f"{side} {self.count:g}s"
        return f"{side} bar" if self.count == 1 else f"{side} {self.count:g} bars"

    def ticks(self, score: Score) -> tuple[int, int]:
        """The first tick, and the first behind; see ``ticks``. The first bars have the pickup with them."""
        bar, end = bar_map(score), _sounding_end(score)
        if self.unit == "seconds":
            clock = tempo_map(score)
            if self.count > clock.seconds(end):
                raise UserError(f"{score.name}: {str(self)!r} is more than it has, {clock.seconds(end):.1f} seconds")
            if self.last:
                return clock.tick(clock.seconds(end) - self.count), _file_end(score)
            return 0, clock.tick(self.count)
        last = bar.bar(max(end - 1, 0))
        if self.count > last:
            raise UserError(f"{score.name}: {str(self)!r} is more than it has, {last}; name bars within")
        if self.last:
            return bar.start(last - int(self.count) + 1), _file_end(score)
        return 0, bar.start(int(self.count) + 1)


@dataclasses.dataclass(frozen=True)
class Share:
    """One of equal shares of the bars that sound: 1 of 2 is the first half."""

    number: int
    of: int

    def __str__(self) -> str:
        ordinal = "last" if self.number == self.of else _ORDINALS[self.number - 1]
        return f"{ordinal} {_SHARES[self.of]}"

    def ticks(self, score: Score) -> tuple[int, int]:
        """The first tick, and the first behind; see ``ticks``. Borders are rounded to bars."""
        bar = bar_map(score)
        last = bar.bar(max(_sounding_end(score) - 1, 0))
        if last < self.of:
            raise UserError(f"{score.name}: has {last} bars, too few for {str(self)!r}; name the bars")
        borders = [1 + round(last * number / self.of) for number in (self.number - 1, self.number)]
        begin = 0 if self.number == 1 else bar.start(borders[0])
        return begin, _file_end(score) if self.number == self.of else bar.start(borders[1])


Span = Bars | Seconds | Edge | Share
EVERYWHERE = Bars()
_SHARES = {2: "half", 3: "third", 4: "quarter"}
_ORDINALS = ("first", "second", "third")


def ticks(score: Score, span: Span) -> tuple[int, int]:
    """The first tick of a span of a score, and the first behind it; spans up to the end hold all that stands there.

    Raises:
        UserError: the span is not within the score, or is empty.
    """
    begin, end = span.ticks(score)
    if begin >= end:
        raise UserError(f"{score.name}: {str(span)!r} is empty; name the earlier place first")
    return begin, end


def _file_end(score: Score) -> int:
    return max(music_end(score), score.end_tick() + 1)


def _sounding_end(score: Score) -> int:
    """The end of the last note; of a score without notes, of its last bar."""
    ends = [note.onset + 1 if note.end is None else note.end for note in read_notes(score).notes]
    return max(ends, default=music_end(score))


_BARS = re.compile(r"bars? (\d+)(?: ?[-\u2013] ?(\d+))?")
_OPEN_BARS = re.compile(r"(from|through) bar (\d+)")
_EDGE = re.compile(r"(first|last)(?: (\d+(?:\.\d+)?))? ?(bars?|s|seconds?)")
_SHARE = re.compile(r"(first|second|third|last) (half|third|quarter)")


def read_span(text: str) -> Span:
    """The span of such words as spans are written in: ``bars 9-16``, ``from 30s``, ``last 8 bars``, ``first half``.

    Raises:
        UserError: the words name no span.
    """
    words = " ".join(text.lower().split())
    span = EVERYWHERE if words == "all" else _read_bars(words) or _read_seconds(words) or _read_share(words)
    if span is None:
        raise UserError(
            f"{text!r} is no place; write all, bars 9-16, bar 9, from bar 9, through bar 8, first 8 bars, last 8 bars, "
            "30s-45s, from 30s, until 30s, last 10s, first half, second third or last quarter"
        )
    return span


def _read_bars(words: str) -> Bars | None:
    if match := _BARS.fullmatch(words):
        return Bars(int(match[1]), int(match[2] or match[1]))
    match = _OPEN_BARS.fullmatch(words)
    if match is None:
        return None
    return Bars(int(match[2]), None) if match[1] == "from" else Bars(None, int(match[2]))


def _read_seconds(words: str) -> Seconds | None:
    before, dash, after = words.replace("\u2013", "-").partition("-")
    if dash:
        begin, end = seconds_named(before), seconds_named(after)
        return None if begin is None or end is None else Seconds(begin, end)
    side, _, time = words.partition(" ")
    seconds = seconds_named(time)
    if seconds is None or side not in ("from", "until"):
        return None
    return Seconds(seconds, None) if side == "from" else Seconds(None, seconds)


def _read_share(words: str) -> Edge | Share | None:
    if match := _EDGE.fullmatch(words):
        count, unit = float(match[2] or 1), match[3]
        if unit.startswith("bar") and (count != int(count) or count < 1):
            return None
        return Edge(count, "bars" if unit.startswith("bar") else "seconds", match[1] == "last")
    match = _SHARE.fullmatch(words)
    if match is None:
        return None
    of = next(count for count, name in _SHARES.items() if name == match[2])
    number = of if match[1] == "last" else _ORDINALS.index(match[1]) + 1
    return Share(number, of) if number <= of else None
