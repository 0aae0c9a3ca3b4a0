"""What a clause of a request for an edit asks for, as operations; nothing is guessed but the amounts given here."""

from collections.abc import Callable

from midillm_jax.music.edit_clause import Clause, Unclear
from midillm_jax.music.edit_lexicon import Token
from midillm_jax.music.edit_not_done import NOBODYS
from midillm_jax.music.edit_plan import (
    ALL,
    Amount,
    Double,
    Operation,
    Parts,
    Regenerate,
    Reinstrument,
    Remove,
    Tempo,
    Thin,
    Transpose,
    Velocity,
)
from midillm_jax.music.edit_span import EVERYWHERE, Span
from midillm_jax.music.parts import program_named
from midillm_jax.music.vocab import DRUM_PROGRAM

_DEFAULTS = {
    "faster": {1: {"little": 105, None: 110, "much": 125}, -1: {"little": 95, None: 90, "much": 75}},
    "louder": {1: {"little": 110, None: 125, "much": 150}, -1: {"little": 90, None: 80, "much": 60}},
}
"""Percent of what it was, where no number is said."""
_THIN = {"little": 75, None: 50, "much": 25}
"""Percent of the notes that stay, where no number is said."""
_ABSOLUTE = ("to", "at", "=")
"""Words before an amount that is the new value."""
_WHICH_FOR_WHICH = "say which instrument for which: swap the piano for strings"


def operations(
    clause: Clause, spans: tuple[Span, ...], parts: Parts | None, meant: Parts | None, before: Operation | None
) -> list[Operation]:
    """What a clause asks for, once in each of its spans.

    Args:
        clause: without its places.
        spans: empty where nothing was said, which means everywhere.
        parts: whose notes; None where nobody was named.
        meant: whom "it" and "them" mean.
        before: the operation that was asked for last.

    Raises:
        Unclear: words of the clause say nothing that can be done.
    """
    make = _maker(clause, bool(spans), parts, meant, before)
    return [make(span) for span in spans or (EVERYWHERE,)]


def _maker(
    clause: Clause, has_place: bool, parts: Parts | None, meant: Parts | None, before: Operation | None
) -> Callable[[Span], Operation]:
    """Makes the clause's operation for a span."""
    clause.take_back()
    if clause.free_text() or clause.has("anew", "mood"):
        return _written(clause, parts)
    if clause.has("doubling") and not clause.has("tempo", "loudness", "faster", "louder"):
        return _doubling(clause, meant)
    if clause.has("swap", "use", "instead of", "for") or len(_parts_tokens(clause)) > 1:
        change = _change(clause, has_place, before)
        if change is not None:
            return change
    if clause.has("time", "tempo", "bpm", "faster"):
        return _tempo(clause, parts)
    is_turned = clause.has("turn") and clause.has("direction") and not clause.has("interval")
    if clause.has("loudness", "louder") or is_turned:
        return _velocity(clause, parts)
    if clause.has("thin") or (clause.has("notes") and clause.has("share", "percent", "vague", "change by", "drop")):
        return _thin(clause, parts)
    if clause.has("interval") or (clause.has("number") and _is_transposed(clause)):
        return _transpose(clause, parts)
    if clause.has("vague"):
        raise Unclear(clause.words(*clause.take("vague")), "say of which kind, such as a minor third or a whole step")
    if clause.has("direction", "change by"):
        token = clause.take("direction", "change by")[0]
        raise Unclear(clause.words(token), "say by how much, such as an octave or 3 semitones")
    if clause.has("remove", "silence", "drop"):
        return _remove(clause, has_place, parts)
    if clause.has("only"):
        return _keep_only(clause, parts)
    raise Unclear(clause.text(), "it does not say what to do; name it, such as: transpose the piano up an octave")


def _parts_tokens(clause: Clause) -> list[Token]:
    return [token for token in clause.all if token.kind == "parts"]


def _written(clause: Clause, parts: Parts | None) -> Callable[[Span], Operation]:
    """New notes of a model's, from a description in free words or one of the adjectives."""
    if clause.has("add") and clause.free_text():
        for token in clause.all:
            if token.kind == "unknown" and token.value and token.value != NOBODYS:
                raise Unclear(clause.words(token), token.value)
        text = clause.description()
        music = [t for t in clause.all if (t.kind == "parts" and t.value != ALL) or (t.kind == "unknown" and t.value)]
        if not music or not text:
            words = clause.words(*clause.take("unknown")) if clause.has("unknown") else text or clause.text()
            raise Unclear(words, "name an instrument to add, or what it plays: add a flute solo")
        clause.take("add")
        clause.nothing_left("parts")
        return lambda span: Regenerate(span, None, text)
    text = clause.description()
    moods = clause.take("mood")
    text = text or " ".join(clause.words(token).lower() for token in moods)
    clause.take("anew", "swap", "turn", "for", "add")
    _one_of_parts(clause)
    clause.nothing_left()
    return lambda span: Regenerate(span, parts or ALL, text)


def _one_of_parts(clause: Clause) -> None:
    """Takes the parts that the clause is about, and "for" before them; others are left over."""
    tokens = clause.take("parts")
    if len(tokens) > 1:
        raise Unclear(clause.words(tokens[1]), "it is not clear what is to be done to whom; write a sentence for each")
    clause.take_words("for", "as")


def _doubling(clause: Clause, meant: Parts | None) -> Callable[[Span], Operation]:
    """The same notes on another instrument: "double X with Y", "X doubled by Y", "let Y double X"."""
    token = clause.take("doubling")[0]
    verb = clause.words(token).lower()
    behind = [each for each in clause.all[clause.all.index(token) + 1 :] if each.kind not in ("polite", "and")]
    tokens = clause.take("parts")
    if verb.startswith("duplicate") and not tokens:
        raise Unclear(clause.words(token), "bars are not repeated; of parts say: double the flute an octave up")
    links = _LAYERED_BY if verb.startswith("layer") else _DOUBLED_BY
    is_it = bool(behind) and behind[0].kind == "pronoun"
    before = [each for each in tokens if each.begin < token.begin]
    linked = [each for each in tokens if each not in before and clause.before(each) in links]
    bare = [each for each in tokens if each not in before and each not in linked]
    own: list[Token] = bare
    by = linked
    if before and (bare or is_it) and not linked and not verb.startswith(("doubled", "duplicated", "layered")):
        by = before  # the violin doubles the flute
    elif before:
        own = before + bare
    if is_it or (not own and behind and clause.words(behind[0]).lower() in links):
        parts = meant
    else:
        parts = own[0].value if own else None
    if parts is None or len(own) + is_it > 1 or len(by) > 1:
        raise Unclear(clause.text(), "say whom to double, such as: double the flute with a violin, an octave up")
    program = _target(clause, by[0]) if by else None
    clause.take_words(*links)
    semitones = _semitones(clause) if clause.has("interval") else 0
    if program is None and not semitones:
        raise Unclear(clause.text(), "say with what, such as: double the flute with a violin, an octave up")
    clause.nothing_left()
    return lambda span: Double(span, parts, program, semitones)


_DOUBLED_BY = ("with", "by", "on", "in")
"""Words before the instrument that doubles."""
_LAYERED_BY = ("with",)
"""Only "with": in "layer strings on the piano" it is the piano that has the notes."""


def _change(clause: Clause, has_place: bool, before: Operation | None) -> Callable[[Span], Operation] | None:
    """Another instrument; None where the clause has no two parts and nothing that would need them."""
    tokens = _parts_tokens(clause)
    is_for_all = has_place and not clause.has("instead of") and len(tokens) == 1
    if is_for_all and clause.before(tokens[0]) in ("to", "into", "with", "by"):
        source, target = ALL, tokens[0]
    elif len(tokens) == 2:
        first, second = tokens
        source, target = (second.value, first) if _is_target_first(clause, before, *tokens) else (first.value, second)
    elif clause.has("swap", "use", "instead of") and not clause.has(*_OTHER):
        raise Unclear(clause.text(), _WHICH_FOR_WHICH)
    else:
        return None
    program = _target(clause, target)
    clause.take("parts", "swap", "use", "turn", "for", "instead of")
    clause.nothing_left()
    return lambda span: Reinstrument(span, source, program)


def _is_target_first(clause: Clause, before: Operation | None, first: Token, second: Token) -> bool:
    """Whether of two parts the first is the new one, as in "strings instead of the piano"."""
    between = clause.before(second)
    link = next((token for token in clause.all if token.kind == "instead of"), None)
    if link is not None:
        return link.begin > first.begin
    verbs = {clause.words(token).lower() for token in clause.all if token.kind in ("swap", "use", "turn", "verb")}
    if between in _TAKES_OVER or ("use" in verbs and between in ("for", "on", "in")):
        return True
    if "substitute" in verbs and between == "for":
        return True
    is_swap = clause.has("swap", "turn") or isinstance(before, Reinstrument)
    is_part = "part" in clause.words(first).lower().split()
    if (
        between in ("into", "to", "becomes", "become", "->", "\u2192")
        or (between in ("for", "with", "by", "as", "on") and is_swap)
        or (between in ("by", "as", "on") and clause.has("verb"))
        or (between == "with" and clause.has("verb") and is_part)
        or (clause.has("verb", "turn") and clause.is_article_between(first, second))  # make the piano a harp
    ):
        return False
    raise Unclear(clause.text(), _WHICH_FOR_WHICH)


_TAKES_OVER = (
    *("play", "plays", "replace", "replaces", "take over", "takes over"),
    *("take over for", "take over from", "takes over for", "takes over from"),
)
"""Words between the new instrument and the old one."""
_OTHER = ("tempo", "bpm", "time", "loudness", "louder", "faster", "interval", "direction", "thin", "percent")
"""What may be changed besides instruments."""


def _target(clause: Clause, token: Token) -> int:
    """The program of the one instrument that a token names."""
    parts: Parts = token.value
    program = program_named(parts.names[0]) if len(parts.names) == 1 and not parts.but else None
    if program is None or program == DRUM_PROGRAM or parts.names[0].startswith("track "):
        raise Unclear(clause.words(token), "name one instrument with pitches that General MIDI knows, such as strings")
    return program


def _tempo(clause: Clause, parts: Parts | None) -> Callable[[Span], Operation]:
    for token in clause.take("parts"):
        if token.value != ALL:
            raise Unclear(clause.words(token), "all parts share one tempo; leave the part out, or thin it instead")
    times = clause.take("time")
    if times:
        clause.nothing_left()
        return lambda span: Tempo(span, Amount(times[0].value, "percent"))
    amount = _amount(clause, "faster")
    clause.nothing_left()
    return lambda span: Tempo(span, amount)


def _velocity(clause: Clause, parts: Parts | None) -> Callable[[Span], Operation]:
    amount = _amount(clause, "louder")
    _one_of_parts(clause)
    clause.nothing_left()
    return lambda span: Velocity(span, parts or ALL, amount)


def _signs(clause: Clause, *kinds: str) -> int | None:
    """1 or -1 where the clause's words for more and less agree; None where it has none."""
    tokens = clause.take(*kinds)
    signs = {token.value for token in tokens if token.value in (1, -1)}
    if len(signs) > 1:
        raise Unclear(clause.words(*tokens), "it says more and less at once; say one of them")
    return signs.pop() if signs else None


def _amount(clause: Clause, comparative: str) -> Amount:
    """How much more or less of tempo or velocity; takes the words for it."""
    noun = clause.take("tempo" if comparative == "faster" else "loudness")
    has_as = bool(clause.take_words("as"))
    clause.take_words("for")
    sign = _signs(clause, comparative, "direction", "change by", "drop", "add")
    clause.take("turn", "swap", "use")
    if noun and clause.take("doubling"):
        return Amount(200, "percent")
    numbers = clause.take("bpm", "number", "percent", "share", "times", "vague")
    degrees = clause.take("degree")
    degree = degrees[0].value if degrees else None
    if len(numbers) > 1 or (numbers and degrees):
        raise Unclear(clause.words(*numbers, *degrees), "say one amount")
    if not numbers:
        if sign is None:
            words = clause.words(*noun) if noun else clause.text()
            raise Unclear(words, "say how it is to change, such as faster, louder, to 90, by 10%")
        return Amount(_DEFAULTS[comparative][sign][degree], "percent")
    token = numbers[0]
    if token.kind == "bpm" and comparative == "louder":
        raise Unclear(clause.words(token), "velocities are 1 to 127, or percent")
    if token.kind == "number" and comparative == "faster" and not noun and clause.before(token) not in _ABSOLUTE:
        raise Unclear(clause.words(token), "say beats a minute or percent: 10 bpm faster, 10% faster")
    is_value = token.kind in ("bpm", "number")  # "slower, 72 bpm"
    is_absolute = clause.before(token) in _ABSOLUTE or has_as or (clause.before(token) == "," and is_value)
    if token.kind == "times":
        return Amount(round(token.value if sign != -1 else 10000 / token.value, 1), "percent")
    if token.kind in ("share", "vague"):
        _is_share(clause, token)
        if is_absolute or (token.value == 50 and sign != 1):
            return Amount(round(token.value, 1), "percent")
        return Amount(round(100 + _needed(clause, sign, token) * token.value, 1), "percent")
    written, value = token.value
    if written:
        sign, is_absolute = _agreed(clause, written, sign, token), False
    elif is_absolute or (sign is None and clause.before(token) != "by"):
        return Amount(value, "percent" if token.kind == "percent" else "to")
    change = _needed(clause, sign, token) * value
    return Amount(100 + change, "percent") if token.kind == "percent" else Amount(change, "by")


def _agreed(clause: Clause, written: str, sign: int | None, token: Token) -> int:
    """The sign written before a number, where the words say nothing else."""
    own = 1 if written == "+" else -1
    if sign not in (None, own):
        raise Unclear(clause.words(token), "its sign and the words say different things; leave out one of them")
    return own


def _is_share(clause: Clause, token: Token) -> None:
    if token.value is None:
        raise Unclear(clause.words(token), "say percent, such as 10%")


def _needed(clause: Clause, sign: int | None, token: Token) -> int:
    if sign is None:
        raise Unclear(clause.words(token), "say whether it is more or less, such as 10% faster")
    return sign


def _thin(clause: Clause, parts: Parts | None) -> Callable[[Span], Operation]:
    taken = clause.take("remove", "drop", "silence")
    is_taken = any(not (clause.has("thin") and clause.words(token).lower() == "out") for token in taken)
    is_kept = clause.has("keep", "only")
    adding = [token for token in clause.take("change by", "direction") if token.value == 1]
    if adding:
        raise Unclear(clause.words(adding[0]), "more notes are written anew: write busier, or rewrite")
    is_less = any(clause.words(token).lower().startswith(("less", "fewer")) for token in clause.take("thin"))
    clause.take("keep", "only", "notes", "for")
    numbers = clause.take("percent", "share", "vague")
    for token in numbers:
        _is_share(clause, token)
    degrees = clause.take("degree")
    _one_of_parts(clause)
    clause.nothing_left()
    if len(numbers) > 1 or (numbers and degrees):
        raise Unclear(clause.words(*numbers, *degrees), "say one amount")
    if not numbers:
        if is_taken:
            raise Unclear(clause.text(), "say how many notes are to go, such as 30% of the notes")
        percent: float = _THIN[degrees[0].value if degrees else None]
        return lambda span: Thin(span, parts or ALL, percent)
    token = numbers[0]
    value = token.value[1] if token.kind == "percent" else token.value
    if clause.before(token) in _ABSOLUTE or is_kept or (value == 50 and not is_taken):
        percent = value
    elif clause.before(token) == "by" or is_taken or is_less:
        percent = 100 - value
    else:
        raise Unclear(clause.words(token), "say whether that many notes go or stay: thin by 30%, thin to 30%")
    return lambda span: Thin(span, parts or ALL, round(percent))


def _is_transposed(clause: Clause) -> bool:
    return any(clause.words(token).lower().startswith("transpose") for token in clause.all if token.kind == "verb")


def _semitones(clause: Clause) -> int:
    """Takes an interval and its direction; numbers alone are semitones."""
    intervals = clause.take("interval")
    if not intervals:
        intervals = clause.take("number")
        if len(intervals) > 1:
            raise Unclear(clause.words(*intervals), "say one interval")
    sign = _signs(clause, "direction", "change by", "drop")
    if written := intervals[0].value[0]:
        sign = _agreed(clause, written, sign, intervals[0])
    if sign is None:
        raise Unclear(clause.words(*intervals), "say whether it goes up or down")
    return sign * int(sum(token.value[1] for token in intervals))


def _transpose(clause: Clause, parts: Parts | None) -> Callable[[Span], Operation]:
    semitones = _semitones(clause)
    clause.take("turn")
    _one_of_parts(clause)
    clause.nothing_left()
    return lambda span: Transpose(span, parts or ALL, semitones)


def _remove(clause: Clause, has_place: bool, parts: Parts | None) -> Callable[[Span], Operation]:
    if parts is None and not has_place:
        raise Unclear(clause.text(), "say whose notes, such as: mute the drums")
    if parts is None and not clause.has("silence", "notes"):
        said = [token for token in clause.all if token.kind not in ("polite", "and")]
        raise Unclear(clause.words(*said), "bars are not cut out; to empty them write: silence bars 9-12")
    clause.take("remove", "silence", "drop", "turn")
    if any(clause.words(token).lower() == "leave" for token in clause.all):
        clause.take("keep")
    _one_of_parts(clause)
    clause.nothing_left()
    return lambda span: Remove(span, parts or ALL)


def _keep_only(clause: Clause, parts: Parts | None) -> Callable[[Span], Operation]:
    if parts is None or parts.but or not parts.names or not clause.has("parts"):
        raise Unclear(clause.text(), "say whom to keep, such as: keep only the piano and the bass")
    clause.take("only", "keep")
    _one_of_parts(clause)
    clause.nothing_left()
    return lambda span: Remove(span, Parts(parts.names, True))
