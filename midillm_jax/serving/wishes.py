"""What the page's fields say, as work for an engine: new music, or a change of the piece that is on the page."""

import dataclasses
import re
from typing import Literal

from midillm_jax.errors import UserError, require
from midillm_jax.inference import changes, editing, windows
from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music import clock
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.parts import Part, parts_named, programs_asked, read_notes, track_names
from midillm_jax.music.score import Score, write_score
from midillm_jax.music.signatures import signatures
from midillm_jax.music.timing import midi_file
from midillm_jax.music.vocab import TICKS_PER_SECOND
from midillm_jax.serving.writer import Hear, Tell, Work

Kind = Literal["new", "continue", "infill", "accompany", "replace"]

MIN_SECONDS, MAX_SECONDS = 5, 300
"""Of new music at a time."""
_NOTES_A_SECOND = 20
"""Of a new piece at most, on average: a model that floods would take minutes over a second that nobody wants."""
_WHERE_LETTERS = 80
"""Of a place or a stretch that are read."""
_TO = re.compile(r"\s+to\s+|\s*[-\u2013]\s*")
_NO_PIECE = "There is no piece yet to {verb}; write one, or open a .mid file of yours"
_VERBS = {
    "continue": "continue",
    "infill": "fill in",
    "accompany": "accompany",
    "replace": "write tracks of anew",
}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a person may ask for at most."""

    outputs: int
    prompt_letters: int


@dataclasses.dataclass(frozen=True)
class Wish:
    """The page's fields, as they are filled in; what is empty has a default."""

    kind: Kind
    prompt: str = ""
    seconds: float = 30
    """Of new music; not for a stretch, whose length ``where`` says."""
    where: str = ""
    """A stretch such as 9-16 (bars) or 20s-35s; for a continuation a place, such as "bar 17"."""
    instruments: str = ""
    """New: those that may play. Continue, fill in: those that may play besides. Accompany: those to write."""
    tracks: tuple[str, ...] = ()
    """Replace: the tracks to write anew. Accompany: those to keep, all if none is named."""
    outputs: int = 1
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 0.98


@dataclasses.dataclass(frozen=True)
class Take:
    """One output of a work."""

    midi: bytes
    account: str
    """A sentence's end: what became of it."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A wish whose words were understood."""

    work: Work
    """Gives a list of Takes."""
    title: str
    """What a version that comes of it is called."""
    seconds: float
    """Of music that each output is to have at most."""
    start: float
    """Second at which it begins."""
    change: changes.Change | None
    """None for new music."""


def plan(wish: Wish, score: Score | None, bounds: Bounds) -> Plan:
    """What is to be done for a wish.

    Args:
        wish: as the page's fields have it.
        score: the piece on the page, if there is one.
        bounds: what may be asked for.

    Raises:
        UserError: a field says what cannot be understood or done; nothing is asked of the model for this.
    """
    prompt = " ".join(wish.prompt.split())
    require(
        ("The number of takes", wish.outputs, 1 <= wish.outputs <= bounds.outputs, f"1 to {bounds.outputs}"),
        ("The length", wish.seconds, MIN_SECONDS <= wish.seconds <= MAX_SECONDS, f"{MIN_SECONDS} to {MAX_SECONDS} s"),
    )
    if len(prompt) > bounds.prompt_letters:
        raise UserError(
            f"The prompt has {len(prompt):,} letters, and may have {bounds.prompt_letters:,}; a sentence is best"
        )
    asked = MusicRequest(
        prompt=prompt or None,
        outputs=wish.outputs,
        seed=wish.seed,
        temperature=wish.temperature,
        top_p=wish.top_p,
    )
    if wish.kind == "new":
        return _new(wish, asked)
    if score is None:
        raise UserError(_NO_PIECE.format(verb=_VERBS[wish.kind]))
    return _change(wish, asked, score)


def _new(wish: Wish, asked: MusicRequest) -> Plan:
    programs = programs_asked(wish.instruments) if wish.instruments.strip() else None
    most = round(wish.seconds * _NOTES_A_SECOND)
    place = windows.Place(end_ticks=round(wish.seconds * TICKS_PER_SECOND), programs=programs, max_notes=most)

    def work(model: MusicModel, tell: Tell, hear: Hear) -> list[Take]:
        takes = []
        for number, one in enumerate(windows.write(model, asked, place, tell, hear)):
            table = decode_notes(one.events)
            if not len(table):
                raise UserError("The model wrote no note; try another seed, or another prompt")
            cut = "" if one.closed else f", cut after {most:,} notes"
            if signatures(table).flooded:
                cut += ", piled up: try another seed"
            account = f"{_counted(len(table))}, {table.seconds():.1f} s{cut}, seed {asked.seed}"
            takes.append(Take(midi_file(table, asked.seed + number), account))
        return takes

    return Plan(work, asked.prompt or "Music without a prompt", wish.seconds, 0.0, None)


def _change(wish: Wish, asked: MusicRequest, score: Score) -> Plan:
    title, change = _what_changes(wish, score)
    grid = changes.grid_of(score, "auto")

    def work(model: MusicModel, tell: Tell, hear: Hear) -> list[Take]:
        edited = editing.write_into(model, score, change, asked, grid=grid, tell=tell, hear=hear)
        return [
            Take(write_score(one.score), f"{changes.account(score, change, one)}, seed {asked.seed}") for one in edited
        ]

    start, seconds = changes.seconds_of(score, change)
    return Plan(work, title, seconds, start, change)


def _what_changes(wish: Wish, score: Score) -> tuple[str, changes.Change]:
    where, extra = wish.where.strip(), wish.instruments.strip()
    if wish.kind == "continue":
        start = place(score, where)
        change = changes.continuation(score, start, wish.seconds, extra or None)
        return f"Continued from bar {clock.bar_map(score).bar(change.start)}", change
    span = stretch(score, where)
    bars = "" if span is None else f" in {_bars(score, *span)}"
    if wish.kind == "infill":
        if span is None:
            raise UserError("Which bars are to be filled in? Drag over them in the roll, or write them, such as 9-16")
        return f"Filled in {_bars(score, *span)}", changes.infilling(score, *span, extra or None)
    if wish.kind == "accompany":
        if not extra:
            raise UserError("Which instruments are to be added? Write one or several, such as bass, drums")
        kept = None if not wish.tracks else ", ".join(wish.tracks)
        return f"Added {extra}{bars}", changes.accompaniment(score, extra, kept, span)
    if not wish.tracks:
        raise UserError("Which tracks are to be written anew? Choose one or several in the list")
    names = dict(track_choices(score))
    anew = ", ".join(name for name, words in names.items() if words in wish.tracks)
    return f"New {anew}{bars}", changes.replacement(score, ", ".join(wish.tracks), span)


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


def track_choices(score: Score) -> list[tuple[str, str]]:
    """What a person can choose among in a score: how each is shown, and the words that parts_named knows it by."""
    music, names = read_notes(score), track_names(score)
    parts = sorted({note.part for note in music.notes})
    choices = []
    for part in parts:
        alone = score.form == 1 and sum(other.track == part.track for other in parts) == 1
        words = f"track {part.track + 1}" if alone else PROGRAM_NAMES[part.program]
        if not alone and part not in _meant(score, words):
            continue  # a name with "and" or "+" in it, in a file of one track
        said = names.get(part.track, "")
        shown = PROGRAM_NAMES[part.program] + (f" ({said or words})" if alone else "")
        choices.append((shown, words))
    return list({words: (shown, words) for shown, words in choices}.values())


def _meant(score: Score, words: str) -> frozenset[Part]:
    try:
        return parts_named(score, words)
    except UserError:
        return frozenset()


def _bars(score: Score, start: int, end: int) -> str:
    bars = clock.bar_map(score)
    first, last = bars.bar(start), bars.bar(max(end - 1, start))
    return f"bar {first}" if first == last else f"bars {first}\u2013{last}"


def _counted(notes: int) -> str:
    return "1 note" if notes == 1 else f"{notes:,} notes"
