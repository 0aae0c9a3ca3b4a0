"""The words of requests for edits, and what each of them says; ``edit_words.py`` makes plans of them.

Every stretch of a request becomes a token. What is in no table here becomes one of kind "unknown"; nothing is skipped.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from midillm_jax.music.edit_not_done import NOT_DONE
from midillm_jax.music.edit_places import NUMBER, number_named, places_at
from midillm_jax.music.instruments import CAPTION_WORDS, FAMILIES, PROGRAM_NAMES, WIDE_WORDS


@dataclasses.dataclass(frozen=True)
class Token:
    """A stretch of a request."""

    kind: str
    begin: int
    """Where it stands in the text, from 0."""
    end: int
    value: Any = None
    """What it says: spans, names of parts, a number, a sign, or why it is not understood."""


_STEPS = {"half": 1, "semi": 1, "st": 1, "whole": 2, "tone": 2, "oct": 12, "8ve": 12}
_INTERVALS = {
    **{"minor second": 1, "minor 2nd": 1, "major second": 2, "major 2nd": 2, "minor third": 3, "minor 3rd": 3},
    **{"major third": 4, "major 3rd": 4, "fourth": 5, "4th": 5, "tritone": 6, "fifth": 7, "5th": 7},
    **{"minor sixth": 8, "minor 6th": 8, "major sixth": 9, "major 6th": 9, "minor seventh": 10, "minor 7th": 10},
    **{"major seventh": 11, "major 7th": 11},
}
_SHARES = {
    **{"half": 50, "a half": 50, "half as many": 50, "a half as many": 50, "halve": 50, "halved": 50},
    **{"a third": 100 / 3, "one third": 100 / 3, "two thirds": 200 / 3},
    **{"a quarter": 25, "one quarter": 25, "three quarters": 75},
    **{"a fifth": 20, "one fifth": 20, "a tenth": 10, "one tenth": 10},
}
_LITTLE = r"(?:just )?(?:a )?(?:tiny |little |wee )?bit|a little|slightly|a touch|a tad|a notch|somewhat"
_MUCH = r"very|really|extremely|much|a lot|way|far|considerably|significantly|drastically"
_PARTS = r"(?:parts?|tracks?|instruments?|voices?|players?)"
_OWN = r"(?:'s|(?<=s)')?"
"""Of "the flute's part"."""
_ALL = (
    rf"every(?:thing|one|body)|all(?: of)?(?: the| other)? {_PARTS}|every {_PARTS}|all"
    r"|the (?:whole |full |entire )?(?:band|orchestra|ensemble|lot)|it all|all of (?:it|them)"
)
_EXCEPT = r"except(?: for)?|besides|other than|apart from|excluding|not including"
_BRIGHTER = (
    r"busier|denser|fuller|livelier|jazzier|funkier|bluesier|groovier|darker|brighter|happier|sadder|calmer|wilder"
    r"|simpler|dreamier|gentler|heavier|smoother|sweeter|bolder|bouncier|punchier|catchier|moodier|gloomier|richer"
    r"|warmer|lighter|spookier|scarier|angrier|fancier|better|nicer"
)
_LIVELY = (
    r"lively|jazzy|funky|bluesy|groovy|dark|bright|happy|cheerful|sad|calm|wild|simple|dreamy|gentle|heavy|smooth"
    r"|sweet|bold|bouncy|punchy|catchy|moody|gloomy|rich|warm|complex|interesting|exciting|dramatic|melodic|rhythmic"
    r"|energetic|aggressive|relaxed|romantic|mysterious|epic|playful|melanchol(?:ic|y)|tense|emotional|expressive"
    r"|intense|varied|active|virtuosic|minimal|classical|modern|syncopated|ornamented|mellow|tender|raw|fierce|grand|weird|subtle|delicate|solemn|lush"
)
_ENERGY = r"notes|energy|drama|life|variation|movement|tension|emotion|rhythm"
_MOOD = rf"{_BRIGHTER}|more (?:{_LIVELY}|dense|busy|{_ENERGY})|less (?:{_LIVELY})|(?:twice|double) the notes"

_PIECE = r"(?:whole )?(?:song|piece|track|mix|music|arrangement|thing|band|texture)"
_TOO = r"(?:(?:is|are|'s|'re) )?too"
_WISH = "want|need|make sure"
_ADJECTIVE = re.compile(
    rf"(?:(?:{_LITTLE}|{_MUCH}) )?(?:more|less) "
    r"(?P<word>[a-z]{2,}(?:ic|ous|al|ful|ive|ish|less|ant|ent|able|ible|ary|ate)|[a-z]*[aeiouy][a-z]*(?:[^l]y|ing|ed))"
    r"(?! (?:notes|hits))(?!\w)"
)
"""What a part or a place can be more of, by its ending; what it means is the model's to know."""
_IDLE_ADJECTIVE = re.compile(
    r"(?:whole|entire|annoying|boring|awful|terrible|horrible|stupid|silly|ugly|damn|lovely|nice) "
)

_Value = Callable[[re.Match[str]], Any]


def _alternatives(words: Collection[str]) -> str:
    """A pattern of words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _is(value: Any) -> _Value:
    return lambda match: value


def _interval(match: re.Match[str]) -> tuple[str, int]:
    """Sign and semitones of "two octaves", "+3 semitones" or "a half step"."""
    unit = next(value for key, value in _STEPS.items() if match["unit"].startswith(key))
    return match["sign"] or "", unit * int(number_named(match["count"] or "one"))


def _number(match: re.Match[str]) -> tuple[str, float]:
    return {"plus": "+", "minus": "-"}.get(sign := (match["sign"] or "").lower(), sign), number_named(match["n"])


_SIGNED = rf"(?:(?P<sign>[+-]|plus|minus) ?)?(?P<n>{NUMBER})"
# Of several that fit at a place the longest counts, of equally long ones the first.
_RULES: tuple[tuple[str, _Value, str], ...] = (
    ("all", _is(None), _ALL),
    ("all but", _is(None), rf"(?:{_ALL}) (?:but|save|minus|{_EXCEPT})"),
    ("except", _is(None), rf"{_EXCEPT}|but not"),
    ("rest", _is(None), rf"(?:all )?the (?:rest|others?|other {_PARTS})|every(?:thing|one) else|all else"),
    (
        "interval",
        _interval,
        rf"(?:(?P<sign>[+-])?(?P<count>{NUMBER}|an?)[ -]?)?(?P<unit>semi-?tones?|semis?|st|half[ -]?(?:steps?|tones?)"
        r"|whole[ -]?(?:steps?|tones?)|tones?|octaves?|oct|8ves?)",
    ),
    (
        "interval",
        lambda match: ("", _INTERVALS[match["name"].lower()]),
        rf"(?:(?:an?|one) )?(?:perfect )?(?P<name>{_alternatives(_INTERVALS)})",
    ),
    ("vague", _is(100 / 3), r"(?:an? )?third"),
    ("vague", _is(None), r"(?:an? )?(?:second|2nd|3rd|sixth|6th|seventh|7th|step)"),
    ("direction", _is(1), r"up(?:wards?)?|higher|more high|above|more"),
    ("direction", _is(-1), r"down(?:wards?)?|lower|more low|deeper|below|less"),
    ("percent", _number, rf"{_SIGNED} ?(?:%|percent|per cent|pct)"),
    ("bpm", _number, rf"{_SIGNED} ?(?:bpm|beats?(?: per | a |/)min(?:ute)?)"),
    ("number", _number, rf"{_SIGNED}(?![/:]|\.\d)"),
    ("share", lambda match: _SHARES[match[0].lower().removesuffix(" of")], rf"(?:{_alternatives(_SHARES)})(?: of)?"),
    ("times", _is(200), r"twice(?: as)?"),
    ("times", lambda match: 100 * number_named(match["n"]), rf"(?P<n>{NUMBER}) ?(?:x|times)(?: as)?"),
    ("degree", _is("little"), _LITTLE),
    ("degree", _is("much"), _MUCH),
    ("time", _is(200), r"(?:double|twice the) ?-?(?:time|tempo|speed)"),
    ("time", _is(50), r"half(?: the)?[ -]?(?:time|tempo|speed)"),
    ("tempo", _is(None), r"tempo|speed|bpm|pace"),
    ("faster", _is(1), r"faster|more fast|quicker|more quick(?:ly)?|speed(?:ed)?(?: it| things| everything)? up"),
    ("faster", _is(1), rf"fast|quick|less slow(?:ly)?|accelerate|{_TOO} slow"),
    ("faster", _is(-1), r"slower|more slow(?:ly)?|slow(?:ed)?(?: it| things| everything)? down|slow|less fast"),
    ("faster", _is(-1), rf"decelerate|{_TOO} fast|not so fast"),
    ("loudness", _is(None), r"volumes?|velocit(?:y|ies)|loudness"),
    (
        "louder",
        _is(1),
        rf"louder|more loud(?:ly)?|loud|less (?:quiet|soft)(?:ly)?|{_TOO} (?:quiet|soft)",
    ),
    ("louder", _is(-1), r"quieter|softer|more (?:quiet|soft|silent)(?:ly)?|less loud(?:ly)?|quiet(?:ly)?|soft(?:ly)?"),
    ("louder", _is(-1), rf"{_TOO} loud|not so loud"),
    ("notes", _is(None), r"notes?|note density|density|hits|(?:number|amount) of(?= (?:[\w']+ ){0,4}(?:notes|hits))"),
    ("thin", _is(None), r"sparser|more sparse(?:ly)?|sparse|thinner|thin(?:ned)?(?: out)?"),
    (
        "thin",
        _is(None),
        rf"less (?:busy|dense|crowded|notes)|{_TOO} (?:busy|dense|crowded)|too many notes",
    ),
    ("thin", _is(None), r"fewer notes|not so many notes|(?:fewer|less)(?= (?:\w+ ){1,2}(?:notes|hits))"),
    ("mood", _is(None), rf"(?:(?:{_LITTLE}|{_MUCH}) )?(?:{_MOOD})|twice as many notes"),
    ("remove", _is(None), r"removed?|deleted?|erased?|get rid of|throw (?:out|away)|lose|take (?:out|away)|leave out"),
    ("remove", _is(None), r"strip(?: out)?|without(?: any)?|no more|no|kill|cut out|out|away|omit|eliminate|gone"),
    ("remove", _is(None), r"(?:i )?(?:do not|don'?t) (?:want|need)(?: any)?(?: more)?"),
    ("silence", _is(None), r"muted?|silenced?|silent|clear|empty|(?:turn|switch) off|off"),
    ("drop", _is(-1), r"drop|cut"),
    ("change by", _is(1), r"raised?|increased?|boost|bump|lift|push|crank"),
    ("change by", _is(-1), r"reduced?|decreased?|lowered"),
    ("turn", _is(None), r"turn(?:ed)?|dial|bring|pull"),
    ("only", _is(None), r"only|just|isolate|nothing but|alone|solely"),
    ("only", _is(None), rf"strip(?: it| things| everything| the {_PIECE})?(?: all)? (?:back|down) to(?: just| only)?"),
    ("back", _is(-1), r"back"),
    ("keep", _is(None), r"keep|leave"),
    ("swap", _is(None), r"swap(?: out)?|replaced?|switch|substitute|exchange|convert|changed?"),
    ("swap", _is(None), r"replaces|(?:program|patch) change"),
    ("use", _is(None), r"use"),
    ("doubling", _is(None), r"doubl(?:e|es|ed|ing)(?: up)?|layer(?:ed)?|duplicated?"),
    ("anew", _is(None), r"re-?gen(?:erate)?|re-?write|re-?compose|re-?do|reimagine|rework|generate|compose|write|new"),
    ("something", _is(None), r"something|sth"),
    ("add", _is(1), r"add|insert|bring in|throw in|put in"),
    ("instead of", _is(None), r"instead of|in place of|rather than"),
    (
        "polite",
        _is(None),
        rf"like(?= (?:{_LITTLE}|{_MUCH}|twice) )"
        rf"|like(?= {NUMBER} ?(?:%|percent|bpm|beats|semi|half|whole|octaves?|x|times))",
    ),
    ("for", _is(None), r"for|with|into|as|becomes?|->|\u2192|like"),
    ("to", _is(None), r"to|at|=|by|on|of|in"),
    ("like", _is(None), r"so that|so it|in the style of|(?:to )?sound(?:s|ing)? like"),
    ("lead", _is(None), r"during|over|within|throughout|across|inside|from|until|till|after|before|between|around"),
    ("same place", _is(None), r"there|here|in the same (?:bars|place|part)|in (?:these|those) bars"),
    ("polite", _is(None), r"(?:instrument|sound|patch|program) (?:of|for|on|in)"),
    ("polite", _is(None), rf"(?:is|are|'s|'re)(?= (?:{_LITTLE}|{_MUCH}) too )"),
    ("pronoun", _is(None), r"it|its|them|they|that|this|(?:it|that)'s(?= too\b)|they're(?= too\b)"),
    (
        "unknown",
        _is("say what is to be done, and to whom; all else stays as it is"),
        r"(?:do not|don'?t|never|not|shouldn'?t|mustn'?t)(?: [a-z]+)?",
    ),
    ("end", _is(None), r"[.!?;]+(?=\s|$)"),
    (
        "and",
        lambda match: match[0].lower(),
        r",|:|and|(?:and )?then|also|as well as|plus|&|\+|but|while|after that|next|finally|afterwards",
    ),
    ("verb", _is(None), r"make|set|put|play(?:ed)?|transposed?|move|shift|take|give|let|get|have|pitch|go"),
    ("verb", _is(None), rf"{_WISH}|do|hear|sounds?|try|scale|plays|takes? over(?: for| from)?"),
    ("polite", _is(None), r"the|an?|please|pls|plz|can|could|would|will|you|u|i|i'd|i'll|we|we'd|let's|me|us|my"),
    ("polite", _is(None), r"like to|like|would like|love|hey|hi|hello|ok(?:ay)?|thx|cheers|so|must|should|be|being"),
    ("polite", _is(None), r"thanks?(?: you)?(?: a lot| (?:so|very) much)?|some|any|too(?=$|[.,;!?])|as well"),
    ("polite", _is(None), r"if (?:you|u) (?:could|can|would|don'?t mind)|if possible|i want you to|i would like"),
    ("polite", _is(None), r"i'd like|i'd love(?: it)?|than (?:before|now)|now|again|kindly|well|actually"),
    ("polite", _is(None), r"yo|lol|haha|dude|bro|mate|btw|ty"),
    (
        "polite",
        _is(None),
        r"(?:hi|hey|hello) there|good (?:morning|afternoon|evening|day)|(?:many|with) thanks(?: in advance)?",
    ),
    (
        "polite",
        _is(None),
        r"thanks in advance|(?:i|we) (?:think|guess|feel|find|believe|suppose)|maybe|perhaps|possibly",
    ),
    ("polite", _is(None), r"if you please|if (?:that|it)(?:'s| is) (?:ok(?:ay)?|all right|alright|possible)"),
    ("polite", _is(None), r"if (?:that|it)(?:'s| is) not too much (?:trouble|to ask)|be so kind as to|be so kind and"),
    ("polite", _is(None), r"(?:i|we) (?:was|were|am|are) wondering (?:if|whether)|(?:i|we) wonder (?:if|whether)"),
    ("polite", _is(None), r"(?:would|could) it be possible to|is it possible to|go ahead and"),
    ("asked", _is(None), r"(?:(?:would|do) (?:you|u) )?mind|(?:how|what) about"),
)
_COMPILED = tuple((kind, re.compile(rf"(?:{pattern})(?!\w)", re.IGNORECASE), value) for kind, value, pattern in _RULES)

_REMARKS = tuple((re.compile(rf"(?:{pattern})(?!\w)", re.IGNORECASE), remark) for remark, pattern in NOT_DONE)
_WORD = re.compile(r"[^\s,;:!?.]+(?:[.:][^\s,;:!?.]+)*|\S")
_AT_START = re.compile(
    r"(solo)(?= )|firstly|secondly|lastly|first(?=,| (?:of all|transpose|mute|make|set|remove|delete|thin|swap|replace"
    r"|change|raise|lower|drop|double|add|take|turn|slow|speed|cut|silence|put|play|move|shift)\b)"
)
"""Only as a clause's first word "solo" says what to do, and "first" in which order."""
_QUOTED = re.compile(rf'"([^"]+)"(?: {_PARTS})?')
_TRACKS = re.compile(
    rf"tracks? (?:no\.? ?|number |#)?({NUMBER}(?:(?:, and |, ?| and | & ){NUMBER}(?! ?(?:bpm|%|semi)))*)"
    rf"{_OWN}(?: {_PARTS})?(?!\w)",
    re.IGNORECASE,
)


@functools.cache
def _instruments() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of every name of an instrument, and the name that stands for each, in small letters."""
    vague = {"ensemble", "reed", "pipe", "world", "percussive"}
    names = {*WIDE_WORDS, *CAPTION_WORDS, *FAMILIES, *(name.lower() for name in PROGRAM_NAMES)} - vague
    means = {name: name for name in names}
    for kit in ("drum", "drum kit", "drumkit", "drum set", "drummer", "percussion"):
        means[kit] = "drums"
    means |= {"string": "strings", "sax": "saxophone", "keys": "keyboard", "bassline": "bass", "bass line": "bass"}
    means |= {"acoustic piano": "piano", "vocal": "vocals", "singer": "vocals", "vox": "vocals", "synths": "synth"}
    plurals = {f"{name}s": meant for name, meant in means.items() if not name.endswith("s")}
    plurals |= {f"{name}es": meant for name, meant in means.items() if name.endswith("s")}
    means = plurals | means
    pattern = "|".join(re.escape(name) for name in sorted(means, key=len, reverse=True))
    return re.compile(rf"({pattern}){_OWN}(?: (?:{_PARTS}|lines?|section))?(?!\w)", re.IGNORECASE), means


def instrument_at(text: str, at: int) -> tuple[int, str] | None:
    """The end and the name of the instrument that a text names from ``at`` on; None if it names none there."""
    pattern, means = _instruments()
    match = pattern.match(text, at)
    return (match.end(), means[match[1].lower()]) if match else None


def scan(text: str, tracks: Collection[str] = ()) -> list[Token]:
    """The tokens of a text with single spaces.

    Args:
        text: a request.
        tracks: names of the file's tracks; those that are no words of requests are known by themselves, others if
            "track" follows or they are quoted.
    """
    names = {name.lower(): name for name in tracks if name.strip()}
    lower = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    found: list[Token] = []
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        is_start = not found or found[-1].kind in ("and", "end")
        token = max(_candidates(text, lower, at, names, is_start), key=lambda token: token.end, default=None)
        token = _in_context(text, lower, at, found) or token
        if token is None:
            match = _WORD.match(text, at)
            assert match is not None
            token = Token("unknown", at, match.end(), "")
        found.append(token)
        at = token.end
    return _joined(found)


def _candidates(text: str, lower: str, at: int, names: dict[str, str], is_start: bool) -> Iterator[Token]:
    """What may begin at a place, the more likely of equally long ones first; is it a clause's start?"""
    if is_start and (match := _AT_START.match(lower, at)):
        yield Token("only" if match[1] else "polite", at, match.end())
    if match := _QUOTED.match(text, at):
        yield Token("quoted", at, match.end(), match[1])
    for name, written in names.items():
        if lower.startswith(name, at):
            end = at + len(name)
            suffix = re.compile(rf"{_OWN}(?: {_PARTS})?(?!\w)").match(lower, end)
            if suffix and (suffix.end() > end or _is_own(name) or text[at:end] == written != name):
                yield Token("parts", at, suffix.end(), (written,))
    if match := _TRACKS.match(lower, at):
        numbers = re.findall(NUMBER, match[1])
        yield Token("parts", at, match.end(), tuple(f"track {number_named(number):g}" for number in numbers))
    if (place := places_at(lower, at)) and place[1]:
        yield Token("led place" if place[2] else "place", at, place[0], place[1])
    elif place:
        yield Token("unknown", at, place[0], "name bars that there can be, the first one first, such as bars 9 to 16")
    if instrument := instrument_at(lower, at):
        yield Token("parts", at, instrument[0], (instrument[1],))
    for kind, pattern, value in _COMPILED:
        if match := pattern.match(lower, at):
            yield Token(kind, at, match.end(), value(match))
    for pattern, remark in _REMARKS:
        if match := pattern.match(lower, at):
            yield Token("unknown", at, match.end(), remark)
    if (match := _ADJECTIVE.match(lower, at)) and _is_new(lower, match.start("word")):
        yield Token("mood", at, match.end())


def _is_new(lower: str, at: int) -> bool:
    """Whether a word begins nothing that is known: "more electric piano" is not "more electric"."""
    patterns = [pattern for _, pattern, _ in _COMPILED] + [pattern for pattern, _ in _REMARKS]
    return not (instrument_at(lower, at) or any(pattern.match(lower, at) for pattern in patterns))


def _in_context(text: str, lower: str, at: int, found: list[Token]) -> Token | None:
    """What a word says only after those before it, which are ``found``; None for all others."""
    sentence = list(itertools.takewhile(lambda token: token.kind != "end", reversed(found)))
    is_asked = any(token.kind == "asked" for token in sentence)
    said = next((token for token in sentence if token.kind != "polite"), None)
    # "would you mind muting the drums and making the bass louder", but "add a flute, playing softly".
    is_verb = said is not None and (said.kind == "asked" or (is_asked and said.value == "and"))
    if is_verb and (gerund := _GERUND.match(lower, at)):
        return _verb(gerund, lower)
    is_wished = any(re.fullmatch(_WISH, lower[token.begin : token.end]) for token in sentence)
    if is_wished and (state := _STATE.match(lower, at)):  # "I want that the drums are off"
        return Token("polite", at, state.end())
    if (idle := _IDLE_ADJECTIVE.match(lower, at)) and instrument_at(text, idle.end()):
        return Token("polite", at, idle.end() - 1)
    return None


_GERUND = re.compile(r"(?P<stem>[a-z]+)ing(?!\w)")
_STATE = re.compile(r"(?:is|are)(?!\w)(?! too )")


def _verb(gerund: re.Match[str], lower: str) -> Token | None:
    """The token of a verb in -ing, and of what belongs to it as in "taking out"; None if there is no such verb."""
    stem = gerund["stem"]
    doubled = [stem[:-1]] if stem[-1:] == stem[-2:-1] else []
    found: list[Token] = []
    for base in (stem, f"{stem}e", *doubled):
        for kind, pattern, value in _COMPILED:
            match = pattern.match(base + lower[gerund.end() :])
            if match and match.end() >= len(base):
                found.append(Token(kind, gerund.start(), gerund.end() + match.end() - len(base), value(match)))
    return max(found, key=lambda token: token.end, default=None)


@functools.cache
def _is_own(name: str) -> bool:
    """Whether a track's name says nothing else in a request, not even an instrument."""
    return any(token.kind == "unknown" for token in scan(name))


def _joined(tokens: list[Token]) -> list[Token]:
    """Unknown words in a row as one, with the first remark that there is on them."""
    joined: list[Token] = []
    for token in tokens:
        if joined and token.kind == joined[-1].kind == "unknown":
            joined[-1] = dataclasses.replace(joined[-1], end=token.end, value=joined[-1].value or token.value)
        else:
            joined.append(token)
    return joined


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Single words that requests are made of, for the nearest to one that was mistyped."""
    patterns = " ".join(pattern for kind, _, pattern in _RULES if kind not in ("polite", "to", "for"))
    patterns += " " + re.sub(r"\w\?", "", patterns)  # "transposed?" is "transpose" too
    words = set(re.findall(r"(?<![\\\[(?<])\b[a-z]{4,}\b", patterns))
    return tuple(sorted(words | {word for name in _instruments()[1] for word in name.split() if len(word) > 3}))
