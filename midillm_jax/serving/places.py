"""Places, stretches and tracks of a piece, as people name them on the page."""

import re

from midillm_jax.errors import UserError
from midillm_jax.music import clock
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.parts import Part, ScoreNotes, parts_named, read_notes, track_names
from midillm_jax.music.score import Score

_WHERE_LETTERS = 80
"""Of a place or a stretch that are read."""
_TO = re.compile(r"\s+to\s+|\s*[-\u2013]\s*")


def place(score: Score, where: str) -> int | None:
    """The tick of a place, or of a stretch's beginning; None for an empty text.

    Raises:
        UserError: as :func:`stretch`.
    """
    where = where[:_WHERE_LETTERS]
    if not where.strip():
        return None
    try:
        return clock.place(score, where)
    except UserError as error:
        try:
            span = stretch(score, where)
        except UserError:
            raise error from None
        assert span is not None
        return span[0]


def stretch(score: Score, where: str) -> tuple[int, int] | None:
    """The first tick of a stretch and the first behind it: bars as ``9-16``, or places as ``20s-35s``; None if empty.

    Raises:
        UserError: it is neither, or not in the score.
    """
    words = where[:_WHERE_LETTERS].strip()
    if not words:
        return None
    if re.fullmatch(r"(?:bars?)?[\d\s\u2013-]+", words.lower()):
        return clock.bars(score, words)
    ends = _TO.split(words)
    if len(ends) == 2:
        first, last = ends
        if re.fullmatch(r"\d+", first) and last.endswith("s"):
            first += "s"  # 20-35s
        return clock.span(score, first, last)
    raise UserError(f"{words!r} names no stretch; write bars (9-16), seconds (20s-35s) or minutes (0:20-0:35)")


def track_choices(score: Score, music: ScoreNotes | None = None) -> list[tuple[str, str]]:
    """What a person can choose among in a score: how each is shown, and the words that parts_named knows it by.

    Args:
        score: any.
        music: its notes, where they were read before.
    """
    music, names = music or read_notes(score), track_names(score)
    parts = sorted({note.part for note in music.notes})
    choices = []
    for part in parts:
        alone = score.form == 1 and sum(other.track == part.track for other in parts) == 1
        words = f"track {part.track + 1}" if alone else PROGRAM_NAMES[part.program]
        if not alone and part not in _meant(score, words, music):
            continue  # a name with "and" or "+" in it, in a file of one track
        said = names.get(part.track, "")
        shown = PROGRAM_NAMES[part.program] + (f" ({said or words})" if alone else "")
        choices.append((shown, words))
    return list({words: (shown, words) for shown, words in choices}.values())


def _meant(score: Score, words: str, music: ScoreNotes) -> frozenset[Part]:
    try:
        return parts_named(score, words, music)
    except UserError:
        return frozenset()


def bars_of(score: Score, start: int, end: int) -> str:
    """The bars from a tick to another, in words."""
    bars = clock.bar_map(score)
    first, last = bars.bar(start), bars.bar(max(end - 1, start))
    return f"bar {first}" if first == last else f"bars {first}\u2013{last}"
