"""A request in words becomes the plan of an edit, by rules; what they do not understand is told and nothing is guessed.

A request is taken apart into clauses, at full stops, commas, "and" and "then". Each says what to do, where, and to
whom. ``docs/editing_by_words.md`` says what is made of what was left unsaid.
"""

import copy
import dataclasses
import difflib
import functools
import itertools
import re
from collections.abc import Collection, Iterable

from midillm_jax.errors import UserError
from midillm_jax.music.edit_clause import Clause, Unclear
from midillm_jax.music.edit_lexicon import Token, scan, vocabulary
from midillm_jax.music.edit_meaning import operations
from midillm_jax.music.edit_plan import Operation, Parts, Plan, Regenerate, Reinstrument, Remove
from midillm_jax.music.edit_span import Span
from midillm_jax.music.instruments import PROGRAM_NAMES

_VERBS = frozenset(
    ("verb", "remove", "silence", "drop", "change by", "turn", "keep", "swap", "use", "doubling", "anew", "add")
)
_VERB_LIKE = re.compile(
    r"(?:slow|speed)\w* (?:\w+ )?(?:down|up)|accelerate|decelerate|thin(?:ned)?\b|halve", re.IGNORECASE
)
"""Words of other kinds that have a clause's verb in them."""
_AMOUNTS = frozenset(("bpm", "number", "percent", "share", "times", "vague", "degree"))
_CORES = frozenset(
    (
        *(_VERBS - {"verb"} | _AMOUNTS - {"degree"}),
        *("interval", "time", "faster", "louder", "thin", "mood", "only", "direction", "tempo", "loudness", "like"),
        "something",
    )
)
"""Tokens that say what to do."""
_PLACES = frozenset(("place", "led place"))
_EMPTY = frozenset(("polite", "to"))
_BULLET = re.compile(r"^(?:[-*\u2022]|\d+[.)]) ")
_FOR = frozenset(("for", "to", "instead of"))
_JOINTS = (",", "and", "&", "+", "plus", "as well as")
"""Words of kind "and" that join the parts of a list."""


class NotUnderstood(UserError):
    """What of a request is not understood."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        """``problems``: the words of the request, and what can be said instead."""
        found = list(problems)
        self.words = tuple(words for words, _ in found)
        """As they stand in the request, in its order."""
        super().__init__("; ".join(f"{words!r} is not understood: {remark}" for words, remark in found))


def plan_of(words: str, tracks: Collection[str] = ()) -> Plan:
    """The plan that a request asks for, such as "make bars 9 to 16 sparser and swap the piano for strings".

    Args:
        words: the request, in English.
        tracks: the names of the file's tracks.

    Raises:
        NotUnderstood: words in it say nothing known, or nothing that can be done; all of them are named.
    """
    lines = (_BULLET.sub("", " ".join(line.split())) for line in words.splitlines())
    text = "; ".join(line for line in lines if line)
    text = text.translate({0x201C: '"', 0x201D: '"', 0x2018: "'", 0x2019: "'", 0x2014: "-"})
    text = re.sub(r"(?<=\w)=(?=\w)", " = ", text)
    reading = _Reading(text)
    tokens = [Token("parts", t.begin, t.end, (t.value,)) if t.kind == "quoted" else t for t in scan(text, tracks)]
    for is_end, sentence in itertools.groupby(tokens, key=lambda token: token.kind == "end"):
        if not is_end:
            reading = reading.with_sentence(list(sentence))
    if reading.problems:
        raise NotUnderstood(sorted(reading.problems, key=lambda problem: text.find(problem[0])))
    if not reading.plan:
        raise NotUnderstood([(text, "say what to do, such as: transpose the piano up an octave in bars 9 to 16")])
    return tuple(reading.plan)


class _Reading:
    """What has been read of a request so far."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.plan: list[Operation] = []
        self.problems: list[tuple[str, str]] = []
        self._parts: Parts | None = None
        """Whom the clause before was about."""
        self._gone: Parts | None = None
        """Who was taken out in the clause before: "it" is the piece then, but "them" are they."""
        self._spans: tuple[Span, ...] = ()
        self._named: tuple[str, ...] = ()
        """All parts named so far."""
        self._open = 0
        """Where the operations begin that take the next place: those of the clauses before that share one verb."""

    def with_sentence(self, tokens: list[Token]) -> "_Reading":
        """This reading and a sentence's. Where a list of parts makes no sense, its last may begin another clause."""
        listed, apart = copy.copy(self), copy.copy(self)
        listed._read(_with_parts(tokens, listed=True))
        if len(listed.problems) > len(self.problems):
            apart._read(_with_parts(tokens, listed=False))
            if len(apart.problems) == len(self.problems):
                return apart
        return listed

    def _read(self, tokens: list[Token]) -> None:
        """Reads a sentence: its clauses, with a place at its head that holds for all of them."""
        self.plan, self.problems = list(self.plan), list(self.problems)
        leading: tuple[Span, ...] = ()
        idle: list[Token] = []
        for number, piece in enumerate(_pieces(self._text, tokens)):
            places = [token for token in piece if token.kind in _PLACES]
            first = next((token for token in piece if token.kind not in _EMPTY), None)
            if places and all(token.kind in _PLACES | _EMPTY | {"and"} for token in piece):
                leading, idle = places[0].value, places
                continue
            idle = []
            if first is not None and first.kind == "led place" and len(places) == 1:
                leading = first.value
            unknown = [token for token in piece if token.kind == "unknown"]
            clause = Clause(self._text, piece)
            if unknown and not clause.free_text():
                for token in unknown:
                    said = self._text[token.begin : token.end]
                    self.problems.append((said, token.value or _advice(said)))
                names = tuple(name for token in piece if token.kind == "parts" for name in _names(token))
                self._named += names
                self._parts, self._spans = Parts(names) if names else None, ()
                continue
            elided = number > 0 and not any(self._is_verb(token) for token in piece)
            try:
                self._take(clause, leading, elided)
            except Unclear as problem:
                self.problems.append((problem.words, problem.remark))
            except UserError as error:  # a number that cannot be
                self.problems.append((clause.text(), str(error)))
        if idle:
            self.problems.append((self._text[idle[0].begin : idle[-1].end], "say what is to be done there"))

    def _is_verb(self, token: Token) -> bool:
        return token.kind in _VERBS or _VERB_LIKE.match(self._text, token.begin, token.end) is not None

    def _take(self, clause: Clause, leading: tuple[Span, ...], elided: bool) -> None:
        pronouns = [clause.words(token).lower() for token in clause.take("pronoun")]
        refers = elided or bool(pronouns)
        own = clause.parts(self._named)
        parts = self._parts if own is None and refers else own
        if own is None and self._gone is not None and {"them", "they"} & set(pronouns):
            parts = self._gone
        places = clause.places(self._spans)
        spans = places or leading or (self._spans if own is None and refers else ())
        made = operations(clause, spans, parts, self.plan[-1] if self.plan else None)
        if not elided or own is not None:
            self._open = len(self.plan)
        elif places:  # "make it sparser and quieter in bars 1-8"
            before, self.plan = self.plan[self._open :], self.plan[: self._open]
            self.plan += [dataclasses.replace(each, span=span) for each in before for span in places]
        self.plan += made
        if places or leading:
            self._open = len(self.plan)
        last = made[-1]
        self._spans = tuple(dict.fromkeys(operation.span for operation in made))
        self._parts, self._gone = None, last.parts if isinstance(last, Remove) else None
        if isinstance(last, Reinstrument):
            self._parts = Parts((PROGRAM_NAMES[last.program],))
        elif not isinstance(last, Remove) and not (isinstance(last, Regenerate) and last.parts is None):
            self._parts = getattr(last, "parts", None) or parts
        self._named += own.names if own is not None and not own.but else ()


def _names(token: Token) -> tuple[str, ...]:
    return token.value.names if isinstance(token.value, Parts) and not token.value.but else ()


@functools.cache
def _advice(words: str) -> str:
    """What to write for words that are in no table."""
    near = difflib.get_close_matches(words.split()[-1].lower(), vocabulary(), n=1, cutoff=0.8)
    if near and near[0] not in words.lower():
        return f"do you mean {near[0]!r}?"
    return "say it in other words, or have it written anew, such as: rewrite bars 9-16 as a slow waltz"


def _with_parts(tokens: list[Token], listed: bool) -> list[Token]:
    """The tokens with what names parts as single ones, whose values are ``Parts`` ("rest": all that was not named).

    ``listed``: parts in a row, as in "the piano, the bass and strings", are one.
    """
    said: list[Token] = []
    for token in tokens:
        before = _listed_before(said, tokens, token) if listed and token.kind == "parts" else None
        if before is not None:
            del said[before + 1 :]
            said[before] = dataclasses.replace(said[before], end=token.end, value=said[before].value + token.value)
        else:
            said.append(token)
    found: list[Token] = []
    for index, token in enumerate(said):
        following = next((after for after in said[index + 1 :] if after.kind != "polite" and after.kind != "to"), None)
        previous = next((before for before in reversed(found) if before.kind != "polite"), None)
        if token.kind == "parts" and previous is not None and previous.kind in ("all but", "except"):
            kind = "parts" if previous.kind == "all but" else "except parts"
            found[found.index(previous) :] = [Token(kind, previous.begin, token.end, Parts(token.value, True))]
        elif token.kind == "parts":
            found.append(dataclasses.replace(token, value=Parts(token.value)))
        elif token.kind == "rest":
            found.append(dataclasses.replace(token, kind="parts", value="rest"))
        elif token.kind == "all" and not (following is not None and following.kind in ("parts", "notes")):
            found.append(dataclasses.replace(token, kind="parts", value=Parts()))
        elif token.kind != "all":
            found.append(token)
    return found


def _listed_before(listed: list[Token], tokens: list[Token], token: Token) -> int | None:
    """Where the list of parts stands that a part goes on with, as in "the piano, the bass and strings"."""
    at = len(listed) - 1
    while at >= 0 and listed[at].kind == "polite":
        at -= 1
    commas = at
    while at >= 0 and (listed[at].kind == "polite" or listed[at].value in _JOINTS):
        at -= 1
    if at < 0 or at == commas or listed[at].kind != "parts":
        return None
    # "swap the piano for strings and the flute for a piccolo" are two swaps.
    before = next((each for each in reversed(listed[:at]) if each.kind != "polite"), None)
    after = next((each for each in tokens[tokens.index(token) + 1 :] if each.kind != "polite"), None)
    is_target = before is not None and before.kind in _FOR
    return None if is_target and after is not None and after.kind in _FOR else at


def _pieces(text: str, tokens: list[Token]) -> list[list[Token]]:
    """The clauses of a sentence: it is parted at "and" and commas that have something to do on both sides."""
    parted: list[list[Token]] = []
    joints: list[Token] = []
    for is_and, group in itertools.groupby(tokens, key=lambda token: token.kind == "and"):
        if is_and:
            joints = list(group)
        elif not _only(piece := list(group), _EMPTY):
            parted.append(joints + piece)
    pieces: list[list[Token]] = []
    waiting: list[Token] = []
    for number, piece in enumerate(parted):
        before = pieces[-1] if pieces else None
        is_last = number == len(parted) - 1
        if before is not None and not waiting and _goes_on(text, before, piece, is_last):
            before += piece
        elif _says_what(piece):
            pieces.append([*waiting, *piece])
            waiting = []
        elif _only(piece, _PLACES | _EMPTY | {"and"}) and not waiting:
            pieces.append(piece)  # a place for all that follows
        else:
            waiting += piece
    return [*pieces, waiting] if waiting else pieces


def _goes_on(text: str, before: list[Token], piece: list[Token], is_last: bool) -> bool:
    """Whether a piece belongs to the clause before it."""
    kinds, known = {token.kind for token in piece}, {token.kind for token in before}
    if _only(before, _PLACES | _EMPTY | {"and"}):
        return False
    if Clause(text, before).free_text():
        return not kinds & (_VERBS | _PLACES) and (not kinds & _CORES or "add" not in known)
    if "interval" in kinds and "interval" in known and _only(piece, _EMPTY | {"interval", "and", "direction"}):
        return not known & {"direction"}
    if kinds & _AMOUNTS and _only(piece, _AMOUNTS | _EMPTY | {"and"}):
        return not known & (_AMOUNTS - {"degree"}) and bool(known & {"faster", "louder", "tempo", "loudness", "thin"})
    if _says_what(piece) and not _only(piece, _PLACES | _EMPTY | {"and", "only"}):
        return False
    if "except parts" in kinds:
        return True
    if _only(piece, _PLACES | _EMPTY | {"and", "only"}):
        return is_last or (not known & _PLACES and piece[0].end - piece[0].begin == 1)  # a comma
    return is_last


def _says_what(piece: list[Token]) -> bool:
    """Whether a piece tells what to do, if only by two parts, as in "the flute for a piccolo"."""
    is_change = sum(token.kind == "parts" for token in piece) > 1
    return is_change or any(token.kind in _CORES or token.kind == "unknown" for token in piece)


def _only(tokens: list[Token], kinds: Collection[str]) -> bool:
    return all(token.kind in kinds for token in tokens)
