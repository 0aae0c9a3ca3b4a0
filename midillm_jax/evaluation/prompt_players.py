"""Who plays, by the words of a prompt: the instruments and whether there are drums, and what is said to be missing.

A word stands for every General MIDI program that would pass for it: "guitar" for all eight, "electric bass" for five.
"""

import re

from midillm_jax.music.instruments import CAPTION_WORDS, PROGRAM_NAMES, WIDE_WORDS
from midillm_jax.music.vocab import DRUM_PROGRAM

_PITCHED = re.compile(
    r"\bsteel (?:drums?|pans?)\b|\btaiko(?: drums?)?\b|\bsynth drum\b|\breverse cymbals?\b"
    r"|\b(?:melodic|chromatic|tuned|pitched) percussion\b"
)
"""General MIDI programs, played on channels of their own, that only sound like the drum kit."""
_MENTION = re.compile(
    r"\b(?:drums?|drum(?:beats?|lines?|kits?|sets?|ming)|drummers?|percussions?|percussionists?"
    r"|hi-?hats?|snares?|cymbals?|bongos?|congas?)\b"
)
_DRUMLESS = re.compile(r"\b(?:drums?|percussion)[- ]?(?:less|free)\b")
_SENTENCE_END = re.compile(r"[.;!?](?=\s|$)|\n")
# What may stand between a negation, the last that reaches so far, and what it negates: a few words that open no new
# thought, "or" and commas.
_SCOPE = r"((?:\s+(?!(?:but|with|without|featuring|while|yet|though|although|plus|{stop})\b)[\w'-]+|,){{0,7}})\s*$"
_WITHOUT = re.compile(
    r".*\b(?:without|w/o|minus|sans|lack(?:s|ing)?|omit(?:s|ting)?|exclud(?:es|ing)|devoid of|free (?:of|from)"
    r"|absence of|leav(?:es|ing) out|skip(?:s|ping)|avoid(?:s|ing)|instead of|rather than)" + _SCOPE.format(stop="only")
)
_NO = re.compile(r".*(?:\b(?:no|not(?! only| just)|nor|neither|never)|n't)" + _SCOPE.format(stop="and|only"))
_ABSENT = re.compile(
    r"\s*(?:kits?|sets?|machines?|parts?|tracks?|beats?)?\s*(?::\s*(?:no|none)\b"
    r"|(?:(?:are|is|was|were|do|does|stay|remain)\s+)?(?:absent|missing|silent|tacet|omitted|left out|excluded)\b"
    r"|(?:(?:are|is|was|were|do|does)\s*(?:not|n't)|never)\s+(?:\w+\s+)?"
    r"(?:used|present|played?|heard|included|featured?|there|needed|wanted|allowed|enter|join)\b)"
)


def asks_for_drums(caption: str) -> bool | None:
    """Whether a caption wants drums: True, False, or None where it says nothing about them.

    Drums asked for anywhere outweigh drums denied elsewhere ("no drums at first; the drums enter later").
    Instruments of the General MIDI "percussive" family that have a channel of their own do not count.
    """
    text = _PITCHED.sub(" instrument ", _plain(caption))
    denied = bool(_DRUMLESS.search(text))
    text = _DRUMLESS.sub(" ", text)
    for sentence in _SENTENCE_END.split(text):
        for mention in _MENTION.finditer(sentence):
            if not _is_denied(sentence[: mention.start()], sentence[mention.end() :]):
                return True
            denied = True
    return False if denied else None


def _is_denied(before: str, after: str) -> bool:
    if _ABSENT.match(after):
        return True
    found = _WITHOUT.search(before) or _NO.search(before)
    if found is None:
        return False
    # A comma ends what "without" reaches, unless it goes on as a list: "without bass, drums or guitar".
    return "," not in found[1] or bool(re.search(r"\b(?:or|nor)\b", found[1] + after[:40]))


_QUALITIES = r"acoustic|electric|overdriven|distorted|clean|muted|nylon|steel|alto|tenor|soprano|baritone|synth"
_SHARED = re.compile(rf"\b({_QUALITIES}) (?:and|or) ({_QUALITIES}) (guitars?|bass|pianos?|saxophones?|sax|strings)\b")
_NOT_PLAYED = re.compile(r"\bbass[ -]?(?:lines?|notes?|register|clefs?|drums?)")


def _lexicon() -> dict[str, frozenset[int]]:
    """Every word for an instrument, in small letters -> its programs."""
    words: dict[str, set[int]] = {}
    for program in range(DRUM_PROGRAM):
        for word in (CAPTION_WORDS[program], PROGRAM_NAMES[program].lower()):
            words.setdefault(word, set()).add(program)
    words.update((word, set(programs)) for word, programs in WIDE_WORDS.items())
    return {word: frozenset(programs) for word, programs in words.items()}


_LEXICON = _lexicon()
# The longest first, so that "electric bass guitar" is no guitar.
_INSTRUMENT = re.compile(
    r"(?<![\w-])("
    + "|".join(re.escape(word) for word in sorted(_LEXICON, key=len, reverse=True))
    + r")(?:e?s)?(?![\w-])"
)


def asked_instruments(prompt: str) -> tuple[frozenset[int], ...] | None:
    """For each instrument that a prompt names and does not deny, drums apart, its programs; None if it names none."""
    text = _NOT_PLAYED.sub(" ", _plain(prompt))
    text = _SHARED.sub(r"\1 \3 and \2 \3", text)
    found: dict[str, frozenset[int]] = {}
    for sentence in _SENTENCE_END.split(text):
        for mention in _INSTRUMENT.finditer(sentence):
            if not _is_denied(sentence[: mention.start()], sentence[mention.end() :]):
                found.setdefault(mention[1], _LEXICON[mention[1]])
    # "An electric guitar plays; the guitar rests": a single wide word may stand for one that was named in full.
    named = [one for word, one in found.items() if " " in word or not any(other < one for other in found.values())]
    return tuple(dict.fromkeys(named)) or None


def _plain(prompt: str) -> str:
    return prompt.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
