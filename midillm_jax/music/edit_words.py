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
from midillm_jax.music.edit_plan import ALL, Operation, Parts, Plan, Regenerate, Reinstrument, Remove, Tempo, Velocity
from midillm_jax.music.edit_sentence import (
    EMPTY,
    PLACES,
    VERBS,
    clauses,
    completed,
    require_one_sense,
    require_same_placing,
    with_parts,
)
from midillm_jax.music.edit_span import Span
from midillm_jax.music.instruments import PROGRAM_NAMES

_VERB_LIKE = re.compile(
    r"(?:slow|speed)\w* (?:\w+ )?(?:down|up)|accelerate|decelerate|thin(?:ned)?\b|halve", re.IGNORECASE
)
"""Words of other kinds that have a clause's verb in them."""
_STATES = ("gone", "out", "away", "off", "silent", "muted", "silenced", "removed")
"""What parts may be, and no verb of a clause's."""
_BULLET = re.compile(r"^(?:[-*\u2022]|\d+[.)]) ")


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
        self._complaints: list[Operation] = []
        """What was made of clauses that only said what is wrong."""
        self._open = 0
        """Where the operations begin that take the next place: those of the clauses before that share one verb."""

    def with_sentence(self, tokens: list[Token]) -> "_Reading":
        """This reading and a sentence's. Where a list of parts makes no sense, its last may begin another clause."""
        listed, apart = copy.copy(self), copy.copy(self)
        listed._read(with_parts(tokens, listed=True))
        if len(listed.problems) > len(self.problems):
            apart._read(with_parts(tokens, listed=False))
            if len(apart.problems) == len(self.problems):
                return apart
        return listed

    def _read(self, tokens: list[Token]) -> None:
        """Reads a sentence: its clauses, with a place at its head that holds for all of them."""
        self.plan, self.problems = list(self.plan), list(self.problems)
        leading: tuple[Span, ...] = ()
        idle: list[Token] = []
        lender: list[Token] = []
        for number, piece in enumerate(clauses(self._text, tokens)):
            places = [token for token in piece if token.kind in PLACES]
            first = next((token for token in piece if token.kind not in EMPTY), None)
            if places and all(token.kind in PLACES | EMPTY | {"and"} for token in piece):
                leading, idle = places[0].value, places
                continue
            idle = []
            if first is not None and first.kind == "led place" and len(places) == 1:
                leading = first.value
            unknown = [token for token in piece if token.kind == "unknown"]
            whole = completed(piece, lender)
            clause = Clause(self._text, whole)
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
                require_one_sense(self._text, lender, piece)
                if whole is not piece and not leading:
                    require_same_placing(self._text, lender, piece)
                self._take(clause, leading, elided)
            except Unclear as problem:
                self.problems.append((problem.words, problem.remark))
            except UserError as error:  # a number that cannot be
                self.problems.append((clause.text(), str(error)))
            lender = whole
        if idle:
            self.problems.append((self._text[idle[0].begin : idle[-1].end], "say what is to be done there"))

    def _is_verb(self, token: Token) -> bool:
        if self._text[token.begin : token.end].lower() in _STATES:
            return False
        return token.kind in VERBS or _VERB_LIKE.match(self._text, token.begin, token.end) is not None

    def _take(self, clause: Clause, leading: tuple[Span, ...], elided: bool) -> None:
        pronouns = [clause.words(token).lower() for token in clause.take("pronoun")]
        refers = elided or bool(pronouns)
        own = clause.parts(self._named)
        if own is None and (whole := clause.whole()):
            is_unclear = (pronouns or whole.endswith(" track")) and not clause.has("tempo", "bpm", "faster", "time")
            if is_unclear and self._parts not in (None, ALL):
                raise Unclear(clause.text(), f"say whether it is everything that is meant, or {self._parts}")
            refers, own = False, ALL
        parts = self._parts if own is None and refers else own
        if own is None and self._gone is not None and {"them", "they"} & set(pronouns):
            parts = self._gone
        places = clause.places(self._spans)
        is_same = own is None and refers
        if elided and not pronouns and (clause.has("tempo", "bpm") or self._gone is not None):
            is_same = False  # "mute the drums in bars 1-4, tempo 90"
        spans = places or leading or (self._spans if is_same else ())
        made = operations(clause, spans, parts, self._parts, self.plan[-1] if self.plan else None)
        if not elided or own is not None:
            self._open = len(self.plan)
        elif places and not isinstance(made[0], Remove):  # "make it sparser and quieter in bars 1-8"
            before, self.plan = self.plan[self._open :], self.plan[: self._open]
            self.plan += [dataclasses.replace(each, span=span) for each in before for span in places]
        made = self._add(made, clause.is_complaint(), bool(spans))
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

    def _add(self, made: list[Operation], is_complaint: bool, is_placed: bool) -> list[Operation]:
        """Adds a clause's operations, and gives them. A complaint and its cure are one: "it is too loud, softer"."""
        cured: list[Operation] = []
        if not is_complaint:
            cured = [old for old in self._complaints if any(_is_cured(old, by, is_placed) for by in made)]
        elif any(_is_cured(made[-1], by, is_placed=True) for by in self.plan):
            return made
        else:
            self._complaints = self._complaints + made
        if cured and not is_placed:
            made = [dataclasses.replace(made[-1], span=old.span) for old in cured]
        self._open -= sum(old in cured for old in self.plan[: self._open])
        self.plan = [old for old in self.plan if old not in cured]
        self._complaints = [old for old in self._complaints if old not in cured]
        self.plan += made
        return made


def _is_cured(complaint: Operation, by: Operation, is_placed: bool) -> bool:
    """Whether what a complaint asks for is asked for by an operation of the same kind, or that takes the notes out."""
    if getattr(complaint, "parts", None) != getattr(by, "parts", None):
        return False
    if isinstance(by, Tempo | Velocity) and isinstance(complaint, Tempo | Velocity):
        is_less = by.amount.value < (100 if by.amount.kind == "percent" else 0)
        if by.amount.kind != "to" and is_less != (complaint.amount.value < 100):  # it is percent
            return False
    is_there = complaint.span == by.span
    return (type(by) is type(complaint) and (is_there or not is_placed)) or (isinstance(by, Remove) and is_there)


def _names(token: Token) -> tuple[str, ...]:
    return token.value.names if isinstance(token.value, Parts) and not token.value.but else ()


@functools.cache
def _advice(words: str) -> str:
    """What to write for words that are in no table."""
    near = difflib.get_close_matches(words.split()[-1].lower(), vocabulary(), n=1, cutoff=0.8)
    if near and near[0] not in words.lower():
        return f"do you mean {near[0]!r}?"
    return "say it in other words, or have it written anew, such as: rewrite bars 9-16 as a slow waltz"
