"""A clause of a request for an edit: its tokens, taken out one after the other, each of which must have its use."""

import dataclasses
import itertools
import re

from midillm_jax.music.edit_lexicon import Token
from midillm_jax.music.edit_plan import ALL, Parts
from midillm_jax.music.edit_span import EVERYWHERE, Span

_IDLE = frozenset(("polite", "asked", "verb", "pronoun", "to", "and", "notes", "only"))
"""Tokens that may be left when all is said."""
_PLACES = ("place", "led place")
_WHOLE = re.compile(r"(?:(?:the|this|my) )?(?:whole|entire|full|complete|all)\b|the|this|my|song|piece")
"""How a place begins that is the piece itself, as in "lower the whole thing"; "throughout the song" is when."""


class Unclear(Exception):
    """Words of a clause that are not understood, and what can be said instead."""

    def __init__(self, words: str, remark: str) -> None:
        super().__init__(words)
        self.words, self.remark = words, remark


class Clause:
    """The tokens of a clause, which are taken out one after the other."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self._text = text
        self.all = list(tokens)
        self._left = list(tokens)

    def words(self, *tokens: Token) -> str:
        """The request's words from the first of some tokens to the last."""
        return self._text[min(token.begin for token in tokens) : max(token.end for token in tokens)]

    def text(self) -> str:
        """The request's words for the clause, without those that say nothing around them."""
        said = [token for token in self.all if token.kind not in ("polite", "and")]
        return self.words(*(said or self.all))

    def has(self, *kinds: str) -> bool:
        """Whether a token of these kinds is left."""
        return any(token.kind in kinds for token in self._left)

    def take(self, *kinds: str) -> list[Token]:
        """Takes the tokens of these kinds."""
        taken = [token for token in self._left if token.kind in kinds]
        self._left = [token for token in self._left if token.kind not in kinds]
        return taken

    def take_words(self, *words: str) -> list[Token]:
        """Takes the tokens that are these words, in small letters."""
        taken = [token for token in self._left if self.words(token).lower() in words]
        self._left = [token for token in self._left if token not in taken]
        return taken

    def is_article_between(self, one: Token, other: Token) -> bool:
        """Whether nothing but an article stands between two tokens."""
        return self._text[one.end : other.begin].lower() in (" a ", " an ")

    def before(self, token: Token) -> str:
        """The word before a token, politeness apart; empty where it is the first."""
        at = self.all.index(token)
        earlier = [each for each in self.all[:at] if each.kind != "polite"]
        return self.words(earlier[-1]).lower() if earlier else ""

    def free_text(self) -> bool:
        """Whether the clause describes music in words that are not to be understood here."""
        return bool(self._described())

    def _described(self) -> list[Token]:
        """The tokens that describe music: behind "add", "rewrite ... as", "turn bars ... into", "sound like"."""
        kinds = [token.kind for token in self.all]
        more = any(  # "add more energy", but not "add a more lively piano"
            token.kind == "mood"
            and self.words(token).lower().startswith("more ")
            and (at == 0 or self.words(self.all[at - 1]).lower() not in ("a", "an"))
            for at, token in enumerate(self.all)
        )
        if "add" in kinds and not more and not {"bpm", "number", "percent"} & set(kinds):
            added = self.all[kinds.index("add") + 1 :]
            first = next((token for token in added if token.kind != "polite"), None)
            return [] if first is not None and first.kind in ("interval", "vague") else added
        if "like" in kinds:
            return self.all[kinds.index("like") :]
        is_change = "swap" in kinds or "turn" in kinds
        if is_change and set(_PLACES) & set(kinds) and "parts" not in kinds:
            into = (at for at, token in enumerate(self.all) if self.words(token).lower() in ("into", "with"))
            behind = self.all[next(into, len(kinds)) + 1 :]
            said = {token.kind for token in behind}
            is_measured = said & {"bpm", "tempo", "loudness", "interval", "percent"}
            if said & {"unknown", "mood", "something"} and not is_measured:
                return behind
        if "something" in kinds and (is_change or "anew" in kinds):
            return self.all[kinds.index("something") :]
        if "anew" in kinds and "for" in kinds[kinds.index("anew") :]:
            return self.all[kinds.index("for", kinds.index("anew")) + 1 :]
        return []

    def description(self) -> str:
        """Takes what describes music, but for a place at its beginning or end."""
        tokens = self._described()
        while tokens and (tokens[0].kind in _PLACES or self.words(tokens[0]).lower() in ("some", "any", "please")):
            tokens = tokens[1:]
        while tokens and tokens[-1].kind in ("polite", "and", *_PLACES):
            tokens = tokens[:-1]
        for token in tokens:
            if token.kind in _PLACES:
                raise Unclear(self.words(token), "say where at the end, behind what is to be played")
        self._left = [token for token in self._left if token not in tokens]
        return self.words(*tokens).strip('"') if tokens else ""

    def parts(self, named: tuple[str, ...]) -> Parts | None:
        """Whose notes the clause is about: the first parts that it names; None where it names none.

        ``named`` are the parts that were named before, for "the rest". The others stay for the clause to be taken.
        """
        if self._described() and self.has("add"):
            return None
        described = set(self._described())
        found = [token for token in self._left if token.kind == "parts" and token not in described]
        for token in found:
            if token.value == "rest":
                if not named:
                    raise Unclear(self.words(token), "nobody was named before; write everything but, and whom")
                self._put(token, Token("parts", token.begin, token.end, Parts(named, True)))
        excepted = self.take("except parts")
        first = next((token for token in self._left if token.kind == "parts" and token not in described), None)
        parts = None if first is None else first.value
        if excepted:
            if parts not in (None, ALL):
                raise Unclear(self.words(excepted[0]), "parts are left out of all, not of some; name those meant")
            parts = excepted[0].value
        return parts

    def _put(self, token: Token, new: Token) -> None:
        self.all = [new if each is token else each for each in self.all]
        self._left = [new if each is token else each for each in self._left]

    def places(self, before: tuple[Span, ...]) -> tuple[Span, ...]:
        """The spans that the clause names; ``before`` are those of the clause before, for "there"."""
        if self.take("same place"):
            return before or (EVERYWHERE,)
        described = self._described()
        named = (token for token in self.all if token.kind in _PLACES)
        found = [token for token in named if token not in described or self._is_at_edge(token, described)]
        self._left = [token for token in self._left if token not in found]
        narrow = [token for token in found if token.value != (EVERYWHERE,)]
        for token in found:
            said = [each for each in self.all[: self.all.index(token)] if each.kind != "polite"]
            is_first = all(each.kind == "and" for each in said)
            is_joined = not is_first and said[-1].kind == "and" and (bool(narrow) or said[-1].value != ",")
            if is_joined and token not in narrow:  # "mute the piano, then the whole thing"
                raise Unclear(self.words(token), "say what is to be done there, in a sentence of its own")
        narrow = narrow or found[:1]
        for one, other in itertools.pairwise(narrow):
            between = self.all[self.all.index(one) + 1 : self.all.index(other)]
            if not between or any(token.kind not in ("and", "polite") for token in between):
                raise Unclear(self.words(other), "one place at a time; write the other as a sentence of its own")
        return tuple(span for token in narrow for span in token.value)

    def whole(self) -> str:
        """The words that name the piece itself as what the clause is about; empty where none do."""
        places = (token for token in self.all if token.kind == "place" and token.value == (EVERYWHERE,))
        said = (self.words(token).lower() for token in places)
        return next((words for words in said if _WHOLE.match(words)), "")

    def is_complaint(self) -> bool:
        """Whether it says what is wrong, as in "the piano is too loud": that asks for less of it."""
        return any(
            token.kind in ("louder", "faster", "thin") and re.search(r"\btoo\b", self.words(token).lower())
            for token in self.all
        )

    def take_back(self) -> None:
        """Reads "pull the piano back" as "turn it down"; any other "back" is left."""
        verbs = {self.words(token).lower() for token in self.all if token.kind == "turn"}
        for token in [token for token in self._left if token.kind == "back"]:
            if verbs & {"pull", "dial"}:
                self._put(token, dataclasses.replace(token, kind="direction"))

    def _is_at_edge(self, token: Token, described: list[Token]) -> bool:
        said = [each for each in described if each.kind not in ("polite", "and")]
        return token in (said[0], said[-1])

    def nothing_left(self, *idle: str) -> None:
        """Raises ``Unclear`` on the first token that has had no use."""
        for token in self._left:
            if token.kind not in _IDLE and token.kind not in idle:
                raise Unclear(self.words(token), "it does not fit with the rest; say it in a sentence of its own")
