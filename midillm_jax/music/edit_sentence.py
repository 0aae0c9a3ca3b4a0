"""A sentence of a request for an edit, parted into its clauses; parts that are listed become one token."""

import dataclasses
import itertools
from collections.abc import Collection

from midillm_jax.music.edit_clause import Clause, Unclear
from midillm_jax.music.edit_lexicon import Token
from midillm_jax.music.edit_plan import Parts
from midillm_jax.music.edit_span import EVERYWHERE

VERBS = frozenset(
    ("verb", "remove", "silence", "drop", "change by", "turn", "keep", "swap", "use", "doubling", "anew", "add")
)
_AMOUNTS = frozenset(("bpm", "number", "percent", "share", "times", "vague", "degree"))
_CORES = frozenset(
    (
        *(VERBS - {"verb"} | _AMOUNTS - {"degree"}),
        *("interval", "time", "faster", "louder", "thin", "mood", "only", "direction", "tempo", "loudness", "like"),
        "something",
    )
)
"""Tokens that say what to do."""
PLACES = frozenset(("place", "led place"))
EMPTY = frozenset(("polite", "asked", "to"))
_FOR = frozenset(("for", "to", "instead of"))
_JOINTS = (",", "and", "&", "+", "plus", "as well as")
"""Words of kind "and" that join the parts of a list."""
_AMOUNT_KINDS = _AMOUNTS | {"interval"}
_LENDABLE = PLACES | EMPTY | {"parts", "number", "percent", "interval", "direction", "and"}
"""What a clause may consist of that says the rest as the one before it does."""
_NOT_LENT = frozenset(
    ("except parts", "swap", "use", "doubling", "instead of", "add", "for", "like", "only", "keep", "unknown")
)


def with_parts(tokens: list[Token], listed: bool) -> list[Token]:
    """The tokens with what names parts as single ones, whose values are ``Parts`` ("rest": all that was not named).

    ``listed``: parts in a row, as in "the piano, the bass and strings", are one.
    """
    said: list[Token] = []
    tokens = [
        dataclasses.replace(token, kind="except") if _excepts(tokens, at) else token for at, token in enumerate(tokens)
    ]
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


def _excepts(tokens: list[Token], at: int) -> bool:
    """Whether "but" leaves parts out of all, as in "everything out but the choir", and begins no other clause."""
    if tokens[at].value != "but":
        return False
    is_comma = at > 0 and tokens[at - 1].value == ","
    clause = list(itertools.takewhile(lambda token: token.kind != "and", reversed(tokens[: at - is_comma])))
    if not any(token.kind == "all" or token.value == (EVERYWHERE,) for token in clause):
        return False
    tail = [token for token in tokens[at + 1 :] if token.kind != "polite"]
    listed = list(itertools.takewhile(lambda token: token.kind in ("parts", "and"), tail))
    if not listed or listed[0].kind != "parts":
        return False
    if any(token.kind in ("remove", "silence") for token in clause):
        return True
    return len(listed) == len(tail) or listed[-1].kind == "and" or tail[len(listed)].kind in PLACES


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


def completed(piece: list[Token], lender: list[Token]) -> list[Token]:
    """A clause with what it leaves to the one before it, as in "transpose the bass up 12 and the pad down 12".

    Where it leaves nothing to it that makes sense, it is the clause itself.
    """
    kinds, said = {token.kind for token in piece}, {token.kind for token in lender}
    signed = any(token.kind in ("number", "percent", "interval") and token.value[0] for token in piece)
    if not lender or not kinds <= _LENDABLE or said & _NOT_LENT or only(lender, _LENDABLE - {"direction"}):
        return piece
    parts = [token.value for token in lender + piece if token.kind == "parts"]
    if ("parts" in kinds and len(parts) != 2) or any(each == "rest" or each.but for each in parts):
        return piece
    if "interval" in kinds and (signed or "direction" in kinds):
        return piece  # it is said in full
    is_again = not kinds & (_AMOUNT_KINDS | {"direction"})
    if is_again and not _is_again(lender, piece):
        return piece
    dropped = PLACES | {"parts", "and", "pronoun", "asked"}
    if kinds & _AMOUNT_KINDS:
        dropped |= _AMOUNT_KINDS | {"to"}
    if "direction" in kinds or signed:
        dropped |= {"direction", "change by"}
    return [token for token in lender if token.kind not in dropped] + _linked(piece, lender)


def _linked(piece: list[Token], lender: list[Token]) -> list[Token]:
    """A clause with the word before its amount that stands before the other's: "by 30% and the bass 50%"."""
    at, before = (
        next((at for at, token in enumerate(tokens) if token.kind in _AMOUNT_KINDS), 0) for tokens in (piece, lender)
    )
    if at == 0 or before == 0 or piece[at - 1].kind == "to" or lender[before - 1].kind != "to":
        return piece
    return [*piece[:at], lender[before - 1], *piece[at:]]


def _is_again(before: list[Token], piece: list[Token]) -> bool:
    """Whether a piece names only a part and a place, behind a clause with both: "mute A in bar 1 and B in bar 2"."""
    if not only(piece, PLACES | EMPTY | {"parts", "and"}):
        return False
    return all(PLACES & (kinds := {token.kind for token in each}) and "parts" in kinds for each in (before, piece))


def require_same_placing(text: str, lender: list[Token], piece: list[Token]) -> None:
    """Raises ``Unclear`` where only one of two clauses that share their words has a place: is it the other's too?"""
    places = [[token for token in tokens if token.kind in PLACES] for tokens in (lender, piece)]
    if bool(places[0]) != bool(places[1]):
        token = (places[0] or places[1])[0]
        raise Unclear(text[token.begin : token.end], "say where for each of them, or first of all for both")


def require_one_sense(text: str, earlier: list[Token], piece: list[Token]) -> None:
    """Raises ``Unclear`` where a clause without a verb says something that the one before it may have meant too."""
    kinds, known = {token.kind for token in piece}, {token.kind for token in earlier}
    words = text[earlier[0].begin : earlier[-1].end] if earlier else ""
    if not earlier or kinds & VERBS:
        return
    # "bring the bass down and the piano up 3 semitones"
    if {"turn", "direction"} <= known and not known & (_AMOUNT_KINDS | {"loudness"}) and "interval" in kinds:
        raise Unclear(words, "say how much: an interval, or that it is to be softer or louder")
    # "more lively and louder drums"
    said = [token.kind for token in piece if token.kind not in EMPTY and token.kind != "and"]
    shared = {"mood", "louder", "thin"}
    is_before_parts = any(one in shared and other == "parts" for one, other in itertools.pairwise(said))
    if is_before_parts and known & shared and known <= shared | EMPTY | {"verb", "and", "degree"}:
        raise Unclear(words, "say whose notes, in each of the clauses")


def clauses(text: str, tokens: list[Token]) -> list[list[Token]]:
    """The clauses of a sentence: it is parted at "and" and commas that have something to do on both sides."""
    parted: list[list[Token]] = []
    joints: list[Token] = []
    for is_and, group in itertools.groupby(tokens, key=lambda token: token.kind == "and"):
        if is_and:
            joints = list(group)
        elif not only(piece := list(group), EMPTY):
            parted.append(joints + piece)
    pieces: list[list[Token]] = []
    waiting: list[Token] = []
    for number, piece in enumerate(parted):
        before = pieces[-1] if pieces else None
        is_last = number == len(parted) - 1
        if before is not None and not waiting and _goes_on(text, before, piece, is_last):
            before += piece
        elif _says_what(piece) or (before is not None and not waiting and _is_again(before, piece)):
            pieces.append([*waiting, *piece])
            waiting = []
        elif only(piece, PLACES | EMPTY | {"and"}) and not waiting:
            pieces.append(piece)  # a place for all that follows
        else:
            waiting += piece
    return [*pieces, waiting] if waiting else pieces


def _goes_on(text: str, before: list[Token], piece: list[Token], is_last: bool) -> bool:
    """Whether a piece belongs to the clause before it."""
    kinds, known = {token.kind for token in piece}, {token.kind for token in before}
    if only(before, PLACES | EMPTY | {"and"}) or _is_again(before, piece):
        return False
    if Clause(text, before).free_text():
        return not kinds & (VERBS | PLACES) and (not kinds & _CORES or "add" not in known)
    if "doubling" in known and "interval" not in known and only(piece, EMPTY | {"interval", "and", "direction"}):
        return "interval" in kinds  # "double the flute with a violin, an octave up"
    if "interval" in kinds and "interval" in known and only(piece, EMPTY | {"interval", "and", "direction"}):
        return not known & {"direction"}
    if kinds & _AMOUNTS and only(piece, _AMOUNTS | EMPTY | {"and"}):
        return not known & (_AMOUNTS - {"degree"}) and bool(known & {"faster", "louder", "tempo", "loudness", "thin"})
    if _says_what(piece) and not only(piece, PLACES | EMPTY | {"and", "only"}):
        return False
    if "except parts" in kinds:
        return True
    if only(piece, PLACES | EMPTY | {"and", "only"}):
        return is_last or (not known & PLACES and piece[0].end - piece[0].begin == 1)  # a comma
    return is_last


def _says_what(piece: list[Token]) -> bool:
    """Whether a piece tells what to do, if only by two parts, as in "the flute for a piccolo"."""
    is_change = sum(token.kind == "parts" for token in piece) > 1
    return is_change or any(token.kind in _CORES or token.kind == "unknown" for token in piece)


def only(tokens: list[Token], kinds: Collection[str]) -> bool:
    return all(token.kind in kinds for token in tokens)
