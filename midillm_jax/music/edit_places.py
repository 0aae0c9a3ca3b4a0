"""Numbers and spans as people write them in a request: "bars 9 to 16", "from 0:30 on", "the last eight bars"."""

import dataclasses
import re
from collections.abc import Callable

from midillm_jax.music.clock import seconds_named
from midillm_jax.music.edit_span import EVERYWHERE, Bars, Edge, Seconds, Share, Span

_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_BELOW_HUNDRED = rf"(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES)}))?|{'|'.join((*_TEENS, *_ONES))}"
NUMBER = rf"(?:\d+(?:\.\d+)?|(?:a|one) hundred(?: (?:and )?(?:{_BELOW_HUNDRED}))?|{_BELOW_HUNDRED})"
"""The pattern of a number in figures or words."""


def number_named(text: str) -> float:
    """The number of a text that ``NUMBER`` matches, or of "a", "an"."""
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    values = {"a": 1, "an": 1, "hundred": 100, "and": 0}
    values |= {word: number for number, word in enumerate((*_ONES, *_TEENS), 1)}
    values |= {word: number for number, word in zip(range(20, 100, 10), _TENS, strict=True)}
    total = 0
    for word in re.split(r"[ -]", text.lower()):
        total = total * 100 if word == "hundred" else total + values[word]
    return float(total)


_N = rf"(?:no\.? ?|number |#)?(?:{NUMBER})"
_BAR = r"(?:bars?|measures?|meas\.?)"
_TO = r"(?: ?- ?| ?\u2013 ?| to | thru | through | until | till | til | up to | to the end of )"
_UNIT = r"(?:s|secs?|seconds?)"
_TIME = rf"(?:\d+:[0-5]\d(?:\.\d+)?|(?:{NUMBER}) ?(?:{_UNIT}|mins?|minutes?)|(?:a|one) minute)"
_ON = (
    r"(?:,? (?:on(?:wards?)?(?! \w* ?(?:a|an|the)\b)|onwards?|forwards?|and on|to the (?:very )?end"
    r"|(?:un)?till? the (?:very )?end))"
)
_LEAD = r"(?:(?:in|on|at|for|during|over|within|of|to|throughout|across|inside|into) )?(?:(?:just|only) )?(?:the )?"
_FROM_THE = rf"(?:from (?=the ))?{_LEAD}"
_PIECE = r"(?:song|piece|track|thing|tune|file|music|composition|score|arrangement|midi)"
# A figure that is followed by one of these is no bar.
_NOT_OTHER = (
    r"(?! ?(?:bpm|%|percent|per|beats?|st\b|semi|half|whole|oct|steps?|notes?|bars?|measures?|s\b|sec|min|[:/\d]|\.\d"
    r"|times|of|in (?:bars?|measures?)))"
)
_FROM = r"(?:from|starting (?:at|from|in|with|on)|beginning (?:at|from|in|with|on)|since|as of)(?: the)? "


def _bars(first: str, last: str) -> tuple[Span, ...]:
    bars = Bars(_count(first), _count(last))
    return (bars,) if _count(first) <= _count(last) else ()


def _count(text: str) -> int:
    return int(number_named(re.sub(r"^(?:no\.? ?|number |#)", "", text)))


def _seconds(text: str) -> float:
    if ":" in text:
        return seconds_named(text) or 0.0
    match = re.fullmatch(rf"(.+?) ?({_UNIT}|mins?|minutes?)", text)
    assert match is not None
    return number_named(match[1]) * (60 if match[2].startswith("m") else 1)


def _listed_bars(match: re.Match[str]) -> tuple[Span, ...]:
    """ "bars 1-4, 9-12 and 17"; of "bars 3 and 4" one span."""
    found: list[Bars] = []
    for part in re.split(r"(?:, and |,| and | & )", match["list"]):
        numbers = [_count(number) for number in re.findall(_N, part)]
        if numbers[0] > numbers[-1]:
            return ()
        found.append(Bars(numbers[0], numbers[-1]))
    joined: list[Bars] = []
    for bars in found:
        before = joined[-1] if joined else None
        if before is not None and before.last is not None and bars.first == before.last + 1:
            joined[-1] = dataclasses.replace(before, last=bars.last)
        else:
            joined.append(bars)
    return tuple(joined)


_ORDER = {"first": 1, "1st": 1, "opening": 1, "second": 2, "2nd": 2, "middle": 2, "third": 3, "3rd": 3}


def _share(match: re.Match[str]) -> tuple[Span, ...]:
    of = {"half": 2, "third": 3, "quarter": 4}[match["share"]]
    number = of if match["order"] in ("last", "final", "other", "fourth", "4th", "closing") else _ORDER[match["order"]]
    if number > of or (match["order"] == "middle" and of != 3):
        return ()
    return (Share(number, of),)


def _edge(match: re.Match[str]) -> tuple[Span, ...]:
    count, last = match["count"], match["side"] in ("last", "final", "closing", "ending")
    if match["unit"].startswith(("bar", "meas")):
        return (Edge(number_named(count or "one"), "bars", last),)
    return (Edge(number_named(count or "one") * (60 if match["unit"].startswith("min") else 1), "seconds", last),)


def _before(match: re.Match[str]) -> tuple[Span, ...]:
    bar = _count(match["n"])
    return (Bars(None, bar - 1),) if bar > 1 else ()


# The longest that fits counts. A value of () is a place that cannot be.
_RULES: tuple[tuple[str, Callable[[re.Match[str]], tuple[Span, ...]]], ...] = (
    (
        rf"{_LEAD}(?:from )?(?:the )?{_BAR} (?P<first>{_N}){_TO}(?:the )?(?:{_BAR} )?(?P<last>{_N})(?: inclusive)?"
        rf"{_NOT_OTHER}",
        lambda m: _bars(m["first"], m["last"]),
    ),
    (rf"between (?:{_BAR} )?(?P<first>{_N}) and (?:{_BAR} )(?P<last>{_N})", lambda m: _bars(m["first"], m["last"])),
    (rf"between {_BAR} (?P<first>{_N}) and (?:{_BAR} )?(?P<last>{_N})", lambda m: _bars(m["first"], m["last"])),
    (
        rf"(?!(?:in)?to bar ){_LEAD}{_BAR} (?P<list>{_N}(?:{_TO}{_N})?"
        rf"(?:(?:, and |, ?| and | & )(?:{_BAR} )?{_N}(?:{_TO}{_N})?{_NOT_OTHER})*)",
        _listed_bars,
    ),
    (rf"{_LEAD}(?P<n>\d+)(?:st|nd|rd|th) {_BAR}", lambda m: _bars(m["n"], m["n"])),
    (
        rf"(?:{_FROM}|in |on |at )?(?:the )?{_BAR} (?P<n>{_N}){_ON}(?: of the {_PIECE})?",
        lambda m: (Bars(_count(m["n"]), None),),
    ),
    (rf"{_FROM}{_BAR} (?P<n>{_N})(?:{_ON})?", lambda m: (Bars(_count(m["n"]), None),)),
    (rf"after (?:the end of )?{_BAR} (?P<n>{_N})(?:{_ON})?", lambda m: (Bars(_count(m["n"]) + 1, None),)),
    (
        r"(?:from the (?:start|beginning|top) )?(?:(?:un)?till?|up to|through|thru|up until|to the end of|to) "
        rf"(?:and including )?(?:the )?{_BAR} (?P<n>{_N})",
        lambda m: (Bars(None, _count(m["n"])),) if not m[0].startswith("to bar") else (),
    ),
    (rf"before {_BAR} (?P<n>{_N})", _before),
    (
        rf"{_FROM_THE}(?P<side>first|last|final|opening|closing|ending) (?:(?P<count>{NUMBER}) )?"
        rf"(?P<unit>bars?|measures?)(?: of the {_PIECE})?",
        _edge,
    ),
    (
        rf"{_FROM_THE}(?P<side>first|last|final|opening|closing) (?:(?P<count>{NUMBER}) ?)?"
        rf"(?P<unit>{_UNIT}|mins?|minutes?)",
        _edge,
    ),
    (
        rf"{_FROM_THE}(?P<order>first|1st|opening|second|2nd|middle|third|3rd|fourth|4th|last|final|other|closing) "
        rf"(?P<share>half|third|quarter)(?: of (?:the |it|this )?(?:whole )?{_PIECE}?)?",
        _share,
    ),
    (
        rf"{_LEAD}(?:from )?(?P<first>{_TIME}|\d+){_TO}(?P<last>{_TIME})",
        lambda m: (Seconds(_bare_seconds(m["first"], m["last"]), _seconds(m["last"])),),
    ),
    (
        rf"{_LEAD}(?:from )?seconds? (?P<first>\d+){_TO}(?:second )?(?P<last>\d+)",
        lambda m: (Seconds(float(m["first"]), float(m["last"])),),
    ),
    (
        rf"between (?P<first>{_TIME}|\d+) and (?P<last>{_TIME})",
        lambda m: (Seconds(_bare_seconds(m["first"], m["last"]), _seconds(m["last"])),),
    ),
    (rf"(?:{_FROM}|after )(?P<n>{_TIME})(?:{_ON})?", lambda m: (Seconds(_seconds(m["n"]), None),)),
    (rf"(?:until|till|til|up to|before|up until) (?P<n>{_TIME})", lambda m: (Seconds(None, _seconds(m["n"])),)),
    (
        rf"{_LEAD}(?:(?:whole|entire|full|complete) {_PIECE}|all of (?:the |this )?{_PIECE})"
        rf"|throughout(?: the {_PIECE})?|everywhere|from (?:start|beginning) to (?:finish|end)"
        rf"|the whole time|all the way through"
        rf"|(?:(?:in|of|throughout|for) )?(?:the|this|my) {_PIECE}(?! ?\d)|song|piece"
        rf"|{_LEAD}(?:all (?:the )?bars|(?:every|each) (?:single )?bar)",
        lambda m: (EVERYWHERE,),
    ),
)
_LED = re.compile(r"(?:in|during|over|within|throughout|for|from|after|until|till|up to|before|starting)\b")
_COMPILED = tuple((re.compile(rf"(?:{pattern})(?!\w)"), value) for pattern, value in _RULES)


def _bare_seconds(first: str, last: str) -> float:
    """Of "10 to 20 seconds" the first, which has no unit of its own."""
    if not first.isdigit():
        return _seconds(first)
    return float(first) * (60 if re.search(r"min", last) else 1)


def places_at(text: str, at: int) -> tuple[int, tuple[Span, ...], bool] | None:
    """The longest place that a text in small letters names from ``at`` on.

    Returns:
        Where it ends; its spans, none where there can be no such place; whether a little word leads to it ("in bar 9").
        None if no place begins there.
    """
    best: tuple[int, tuple[Span, ...], bool] | None = None
    for pattern, value in _COMPILED:
        if (match := pattern.match(text, at)) and (best is None or match.end() > best[0]):
            best = match.end(), value(match), _LED.match(match[0]) is not None
    return best
