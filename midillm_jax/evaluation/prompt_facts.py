"""The facts that a free prompt asks for: instruments, drums, tempo, key, meter and length, read by rule.

What is not said in a way that the rules know is not asked for. ``benchmarks/prompt_facts.py`` holds the rules against
captions whose facts are known.
"""

import math
import re

from midillm_jax.data.tonality import Key
from midillm_jax.evaluation.asked import Asked, pitch_class
from midillm_jax.evaluation.prompt_players import asked_instruments, asks_for_drums

_NAMES = re.compile(r"""(?i)\bthe (?:title|composer) is .*?[.!?](?=\s|$)|["\u201c][^"\u201d]*["\u201d]""")
"""A title's words are not about the music."""
_ITALIAN: dict[str, tuple[float, float]] = {
    "grave": (0, 40),
    "largo": (40, 60),
    "larghetto": (60, 66),
    "adagio": (60, 76),
    "andante": (70, 90),
    "andantino": (80, 108),
    "moderato": (90, 115),
    "allegretto": (100, 128),
    "allegro": (110, 140),
    "vivace": (140, 168),
    "presto": (160, 210),
    "prestissimo": (208, math.inf),
}
"""Quarter notes a minute; where MidiCaps' pipeline.py and music/terms.py draw the line differently, both are meant."""
_PLAIN: dict[str, tuple[float, float]] = {
    "very slow": (0, 60),
    "extremely slow": (0, 60),
    "moderately slow": (76, 90),
    "slow": (0, 80),
    "moderate": (80, 120),
    "medium": (80, 120),
    "moderately fast": (100, 140),
    "fast": (115, 168),
    "rapid": (115, 210),
    "brisk": (110, 168),
    "quick": (115, 168),
    "very fast": (160, math.inf),
    "extremely fast": (160, math.inf),
}
_ANYWHERE = ("slow", "fast")
"""The plain words, with "very" and the like before them, that tell a tempo without the word "tempo"."""
_BPM = re.compile(r"(\d{2,3}(?:\.\d+)?)[\s-]*(?:bpm\b|(?:beats|quarters|quarter notes) (?:per|a) min)")
_TEMPO_NUMBER = re.compile(
    r"\btempo(?: is| of| at|:|\s?=)?(?: (?:set (?:at|to)|about|around|roughly))? (\d{2,3})\b(?! ?/)"
)
_ITALIAN_WORD = re.compile(rf"\b({'|'.join(sorted(_ITALIAN, key=len, reverse=True))})\b")
_SPEEDS = "|".join(sorted(_PLAIN, key=len, reverse=True))
_PLAIN_TEMPO = re.compile(
    rf"\b({_SPEEDS})(?:[- ](?:and \w+ )?|, \w+ )(?:tempo|paced?|speed)\b|\btempo (?:is|stays|remains) ({_SPEEDS})\b"
)
_PLAIN_WORD = re.compile(rf"\b({'|'.join(w for w in _SPEEDS.split('|') if w.endswith(_ANYWHERE))})(?!-)\b")
_UP_TEMPO = re.compile(r"\bup-?tempo\b")
_MID_TEMPO = re.compile(r"\bmid-?tempo\b")

_ACCIDENTALS = {"": "", "#": "#", "b": "b", "♯": "#", "♭": "b", "sharp": "#", "flat": "b"}
_KEY = re.compile(
    r"(?<![\w/#])(?:(?P<capital>[A-G])|(?<=in )(?P<small>[b-g])|(?<=key of )(?P<any>[a-g]))"
    r"(?:[ -]?(?P<accidental>[#♯♭b]|[Ss]harp|[Ff]lat))?[ -](?P<mode>[Mm]ajor|[Mm]inor|maj|min)\b"
    r"(?![ -](?:seventh|7|third|sixth|triad|chord|pentatonic))"
)
_KEY_OF = re.compile(r"\bkey (?:of|is) ([A-G])([#♯♭b]?)(m?)(?![\w#♯♭]| ?(?:flat|sharp|major|minor))")
_ARTICLE = re.compile(r"A m\w+ (?:key|mood|mode|scale)\b|A (?:major|minor) (?:hit|work|piece|part|role)")

_METER = re.compile(r"(?<![\d/])(\d{1,2})/(2|4|8|16)(?![\d/])")
_NUMBERS = {
    **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "sixty": 60, "ninety": 90},
}
_SPOKEN_METER = re.compile(
    r"\b(two|three|four|five|six|seven|nine|twelve)[- ](two|four|eight) (?:time|meter|metre|beat)\b"
)
_NAMED_METERS = {"waltz": (3, 4), "common time": (4, 4), "cut time": (2, 2), "alla breve": (2, 2)}

_COUNT = rf"(\d+(?:\.\d+)?|an?|half a|{'|'.join(_NUMBERS)})"
_SPAN = re.compile(rf"\b{_COUNT}[- ](seconds?|secs?|s|minutes?|mins?)\b(?! into)")
_AND_SECONDS = re.compile(rf"\b{_COUNT} minutes? (?:and )?{_COUNT} seconds?\b")
_PIECE = r"(?:fragment|piece|song|composition|track|tune|work|instrumental|number|clip|excerpt)"
_LENGTHS: tuple[tuple[str, tuple[float, float]], ...] = (
    (r"very short(?: [\w-]+,?){0,4}? fragment", (0, 30)),
    (r"short(?: [\w-]+,?){0,4}? fragment", (0, 45)),
    (rf"(?:short|brief)(?: [\w-]+,?){{0,4}}? {_PIECE}", (0, 120)),
    (rf"{_PIECE} is (?:quite |rather |very )?(?:short|brief)", (0, 120)),
    (rf"(?:long|lengthy)(?: [\w-]+,?){{0,4}}? {_PIECE}", (300, math.inf)),
    (rf"{_PIECE} is (?:quite |rather |very )?long", (300, math.inf)),
)
"""Seconds: where MidiCaps and music/terms.py draw the line differently, both are meant."""
_LENGTH_WORDS = tuple((re.compile(rf"\b{pattern}\b"), span) for pattern, span in _LENGTHS)


def read_prompt(prompt: str) -> Asked:
    """What a prompt asks for; names of pieces and people are passed over."""
    prompt = _NAMES.sub(" ", prompt)
    return Asked(
        instruments=asked_instruments(prompt),
        drums=asks_for_drums(prompt),
        tempo=asked_tempo(prompt),
        key=asked_key(prompt),
        meter=asked_meter(prompt),
        seconds=asked_seconds(prompt),
    )


def asked_tempo(prompt: str) -> tuple[float, float] | None:
    """Quarter notes a minute, from and to: a number before an Italian word, that before plain words."""
    text = prompt.lower()
    if number := _BPM.search(text) or _TEMPO_NUMBER.search(text):
        return float(number[1]), float(number[1])
    if word := _ITALIAN_WORD.search(text):
        return _band(_ITALIAN[word[1]])
    if word := _PLAIN_TEMPO.search(text):
        return _band(_PLAIN[word[1] or word[2]])
    if _UP_TEMPO.search(text):
        return _band(_PLAIN["fast"])
    if _MID_TEMPO.search(text):
        return _band(_PLAIN["moderate"])
    word = _PLAIN_WORD.search(text)
    return None if word is None else _band(_PLAIN[word[1]])


def _band(limits: tuple[float, float]) -> tuple[float, float]:
    """The whole numbers of beats above the lower limit, to the upper one."""
    return limits[0] + 1, limits[1]


def asked_key(prompt: str) -> Key | None:
    """The first key named. Letters of chords are none, nor is "a minor key"."""
    text = _ARTICLE.sub(" ", prompt)
    if match := _KEY.search(text):
        letter = (match["capital"] or match["small"] or match["any"]).upper()
        accidental = _ACCIDENTALS[(match["accidental"] or "").lower()]
        return Key(pitch_class(letter + accidental), "major" if match["mode"].lower().startswith("maj") else "minor")
    if match := _KEY_OF.search(text):
        return Key(pitch_class(match[1] + _ACCIDENTALS[match[2]]), "minor" if match[3] else "major")
    return None


def asked_meter(prompt: str) -> tuple[int, int] | None:
    """The first time signature, in figures or words; a waltz is in 3/4 unless it says otherwise."""
    text = prompt.lower()
    if match := _METER.search(text):
        return int(match[1]), int(match[2])
    if match := _SPOKEN_METER.search(text):
        return _NUMBERS[match[1]], _NUMBERS[match[2]]
    return next((meter for name, meter in _NAMED_METERS.items() if re.search(rf"\b{name}\b", text)), None)


def asked_seconds(prompt: str) -> tuple[float, float] | None:
    """Length in seconds, from and to; whole minutes are taken as rounded to them."""
    text = prompt.lower()
    if match := _AND_SECONDS.search(text):
        seconds = 60 * _count(match[1]) + _count(match[2])
        return seconds, seconds
    if match := _SPAN.search(text):
        count = _count(match[1])
        if match[2].startswith("s"):
            return count, count
        return (60 * count - 30, 60 * count + 30) if count >= 1 else (60 * count, 60 * count)
    return next((span for pattern, span in _LENGTH_WORDS if pattern.search(text)), None)


def _count(word: str) -> float:
    if word in ("a", "an"):
        return 1.0
    return 0.5 if word == "half a" else float(_NUMBERS.get(word, 0) or word)
