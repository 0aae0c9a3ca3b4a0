"""The words musicians and MidiCaps use for a tempo and for a length, and lists in plain English."""

from collections.abc import Sequence

TEMPO_BANDS: tuple[tuple[float, str, str], ...] = (
    (40, "Grave", "very slow"),
    (60, "Largo", "very slow"),
    (76, "Adagio", "slow"),
    (90, "Andante", "moderately slow"),
    (115, "Moderato", "moderate"),
    (140, "Allegro", "fast"),
    (168, "Vivace", "fast"),
    (208, "Presto", "very fast"),
    (float("inf"), "Prestissimo", "extremely fast"),
)
"""Beats a minute below which a band ends, its Italian word and its plain word."""

DURATION_BANDS: tuple[tuple[float, str], ...] = (
    (15, "very short fragment"),
    (45, "short fragment"),
    (120, "short piece"),
    (300, "piece"),
    (float("inf"), "long piece"),
)
"""Seconds below which a band ends, and its word."""


def tempo_words(bpm: float) -> tuple[str, str]:
    """The Italian and the plain word of a tempo in beats a minute, e.g. ("Allegro", "fast")."""
    return next((italian, plain) for limit, italian, plain in TEMPO_BANDS if bpm < limit)


def duration_word(seconds: float) -> str:
    """What MidiCaps' manner calls a piece of that length, e.g. "short fragment"."""
    return next(word for limit, word in DURATION_BANDS if seconds < limit)


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """``["a", "b", "c"]`` as "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an", as it is spoken ("an 18-second piece", "a 100 BPM march")."""
    number = phrase.split("-")[0].split(" ")[0]
    if number.isdigit():
        vowel = number in ("11", "18") or number.startswith("8")
    else:
        vowel = phrase[0].lower() in "aeio" or phrase.lower().startswith("up")
    return f"{'an' if vowel else 'a'} {phrase}"
