"""What the page's fields say, as work for an engine: new music, or a change of the piece that is on the page."""

import dataclasses
import re
from typing import Literal

from midillm_jax.composing import asked_change, by_words, takes
from midillm_jax.composing.asked_change import AskedChange, Manner
from midillm_jax.composing.asked_piece import AskedPiece
from midillm_jax.errors import UserError, require
from midillm_jax.inference import changes, windows
from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music import clock, edit_plan
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.parts import ScoreNotes, read_notes
from midillm_jax.music.score import NOTE_ON, Score, write_score
from midillm_jax.music.signatures import signatures
from midillm_jax.music.timing import midi_file
from midillm_jax.music.vocab import TICKS_PER_SECOND
from midillm_jax.serving.places import bars_of, place, stretch, track_choices
from midillm_jax.serving.versions import MAX_NOTES
from midillm_jax.serving.writer import Hear, Tell, Work

Kind = Literal["new", "continue", "infill", "accompany", "replace", "edit"]

MIN_SECONDS, MAX_SECONDS = 5, 300
"""Of new music at a time."""
WORDS_LETTERS, PLAN_LETTERS, _OPERATIONS = 500, 4000, 40
"""Of an edit at most."""
_NOTES_A_SECOND = 20
"""Of a new piece at most, on average: a model that floods would take minutes over a second that nobody wants."""
_NO_NUMBER, _HALF = re.compile(r"\d{10}"), re.compile("[\ud800-\udfff]")
_NO_PIECE = "There is no piece yet to {verb}; write one, or open a .mid file of yours"
_VERBS: dict[Kind, str] = {
    "continue": "continue",
    "infill": "fill in",
    "accompany": "accompany",
    "replace": "write tracks of anew",
    "edit": "edit",
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
    words: str = ""
    """Edit: what is to be changed."""
    plan: str = ""
    """Edit: the same as a plan, a line an operation, which goes before the words."""
    outputs: int = 1
    candidates: int = 1
    """Takes to write, of which the best ``outputs`` are kept; 1 keeps all as they come."""
    tempo: float | None = None
    """New: quarter notes a minute."""
    key: str = ""
    """New: such as "A minor"."""
    quantize: str = "auto"
    """All but new: the grid of new notes; so are the two that follow."""
    strength: float = 1.0
    velocity: int | None = None
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 0.98

    @property
    def chosen_among(self) -> int | None:
        """Candidates, where there are any."""
        return None if self.candidates == 1 else self.candidates


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
    seconds: float = 0.0
    """Of music that each output is to have at most; not known of an edit."""
    start: float = 0.0
    """Second at which it begins."""
    change: changes.Change | None = None
    """None for new music, and for an edit."""
    edit: str | None = None
    """The plan of an edit."""
    needs_model: bool = True


def plan(wish: Wish, score: Score | None, bounds: Bounds, music: ScoreNotes | None = None) -> Plan:
    """What is to be done for a wish.

    Args:
        wish: as the page's fields have it.
        score: the piece on the page, if there is one.
        bounds: what may be asked for.
        music: the piece's notes, where they were read before.

    Raises:
        UserError: a field says what cannot be understood or done; nothing is asked of the model for this.
    """
    prompt = " ".join(wish.prompt.split())
    most = bounds.outputs
    require(
        ("The number of takes", wish.outputs, 1 <= wish.outputs <= most, f"1 to {most}"),
        ("The number of candidates", wish.candidates, 1 <= wish.candidates <= most, f"1 to {most}"),
        ("The length", wish.seconds, MIN_SECONDS <= wish.seconds <= MAX_SECONDS, f"{MIN_SECONDS} to {MAX_SECONDS} s"),
    )
    takes.check(wish.chosen_among, wish.outputs)
    _check_letters("The prompt", prompt, bounds.prompt_letters)
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
    manner = Manner(wish.quantize, wish.strength, wish.velocity)
    return (_edit if wish.kind == "edit" else _change)(wish, asked, score, music or read_notes(score), manner)


def _new(wish: Wish, asked: MusicRequest) -> Plan:
    piece = AskedPiece(
        asked.prompt, instruments=wish.instruments.strip() or None, tempo=wish.tempo, key=wish.key.strip() or None
    )
    most = round(wish.seconds * _NOTES_A_SECOND)
    place = windows.Place(end_ticks=round(wish.seconds * TICKS_PER_SECOND), programs=piece.may_play(), max_notes=most)
    request = dataclasses.replace(asked, outputs=wish.chosen_among or wish.outputs)

    def work(model: MusicModel, tell: Tell, hear: Hear) -> list[Take]:
        written = windows.write(model, request, place, tell, hear)
        fitted = [piece.fitted(decode_notes(one.events)) for one in written]
        order, why = list(range(len(fitted))), []
        if wish.chosen_among is not None:
            ranked = takes.ranked([table for table, _ in fitted], piece.facts())
            order = [take.number for take in ranked[: wish.outputs]]
            why = [takes.account(ranked, wish.outputs)]
        found = []
        for number in order:
            table, told = fitted[number]
            if not len(table):
                raise UserError("The model wrote no note; try another seed, or another prompt")
            cut = [] if written[number].closed else [f"cut after {most:,} notes"]
            cut += ["piled up: try another seed"] if signatures(table).flooded else []
            facts = [_counted(len(table)), f"{table.seconds():.1f} s", *told, *cut, f"seed {asked.seed}"]
            midi = midi_file(table, asked.seed + number, wish.tempo)
            found.append(Take(midi, ". ".join((", ".join(facts), *why))))
        return found

    return Plan(work, asked.prompt or "Music without a prompt", wish.seconds)


def _change(wish: Wish, asked: MusicRequest, score: Score, music: ScoreNotes, manner: Manner) -> Plan:
    title, wanted = _what_changes(wish, score, music)
    change, grid = wanted.change(score, music), manner.grid(score, music)

    def work(model: MusicModel, tell: Tell, hear: Hear) -> list[Take]:
        changed, why = asked_change.write(
            model,
            score,
            music,
            wanted,
            change,
            asked,
            manner,
            grid,
            candidates=wish.chosen_among,
            tell=tell,
            hear=hear,
        )
        ending = f", seed {asked.seed}" + ("" if why is None else f". {why}")
        return [Take(write_score(one.score), one.account + ending) for one in changed]

    start, seconds = changes.seconds_of(score, change)
    return Plan(work, title, seconds, start, change)


def _what_changes(wish: Wish, score: Score, music: ScoreNotes) -> tuple[str, AskedChange]:
    where, instruments = wish.where.strip(), wish.instruments.strip() or None
    tracks = ", ".join(wish.tracks) or None
    if wish.kind == "continue":
        start = place(score, where)
        bar = clock.bar_map(score).bar(clock.music_end(score) if start is None else start)
        asked = AskedChange("continue", start, seconds=wish.seconds, instruments=instruments)
        return f"Continued from bar {bar}", asked
    span = stretch(score, where)
    bars = "" if span is None else f" in {bars_of(score, *span)}"
    if wish.kind == "infill":
        if span is None:
            raise UserError("Which bars are to be filled in? Drag over them in the roll, or write them, such as 9-16")
        return f"Filled in {bars_of(score, *span)}", AskedChange("infill", span=span, instruments=instruments)
    if wish.kind == "accompany":
        if instruments is None:
            raise UserError("Which instruments are to be added? Write one or several, such as bass, drums")
        title = f"Added {instruments}{bars}"
        return title, AskedChange("accompany", span=span, instruments=instruments, tracks=tracks)
    if tracks is None:
        raise UserError("Which tracks are to be written anew? Choose one or several in the list")
    anew = ", ".join(name for name, words in track_choices(score, music) if words in wish.tracks)
    return f"New {anew}{bars}", AskedChange("replace", span=span, tracks=tracks)


def plan_text(wish: Wish, score: Score | None) -> str:
    """The plan that the words of an edit mean, a line an operation.

    Raises:
        UserError: as :func:`plan`; what was not understood is named.
    """
    if score is None:
        raise UserError(_NO_PIECE.format(verb=_VERBS["edit"]))
    _check_text("What is to be changed", wish.words, WORDS_LETTERS)
    if not wish.words.strip():
        raise UserError("What is to be changed? Write it, such as: make bars 9 to 16 sparser")
    return edit_plan.plan_text(by_words.plan_for(score, wish.words))


def _edit(wish: Wish, asked: MusicRequest, score: Score, music: ScoreNotes, manner: Manner) -> Plan:
    _check_text("The plan", wish.plan, PLAN_LETTERS)
    operations = edit_plan.read_plan(wish.plan if wish.plan.strip() else plan_text(wish, score))
    if not 1 <= len(operations) <= _OPERATIONS:
        raise UserError(f"The plan has {len(operations)} operations; expected 1 to {_OPERATIONS}")
    by_model, grid = by_words.needs_model(operations), manner.grid(score, music)

    def work(model: MusicModel, tell: Tell, hear: Hear) -> list[Take]:
        def check(score: Score) -> None:
            tell("decode", 0.0)  # where a work that is not wanted any more ends
            _check_size(score)

        applied = by_words.run(
            score,
            operations,
            model,
            asked,
            grid=grid,
            strength=manner.strength,
            velocity=manner.velocity,
            tell=tell,
            hear=hear,
            check=check,
        )
        told = " \u00b7 ".join(applied.told) + (f", seed {asked.seed}" if by_model else "")
        return [Take(write_score(applied.score), told)]

    lines = edit_plan.plan_text(operations)
    title = " ".join(wish.words.split()) if _mean(wish, score, lines) else "; ".join(lines.splitlines())
    return Plan(work, title, edit=wish.plan if wish.plan.strip() else lines, needs_model=by_model)


def _mean(wish: Wish, score: Score, lines: str) -> bool:
    """Whether the words of an edit are those of its plan, which may have been changed or written by hand."""
    try:
        return plan_text(wish, score) == lines
    except UserError:
        return False


def _check_letters(name: str, text: str, most: int) -> None:
    """Raises UserError for a text that is too long."""
    if len(text) > most:
        raise UserError(f"{name} has {len(text):,} letters, and may have {most:,}; a sentence is best")


def _check_text(name: str, text: str, most: int) -> None:
    """Raises UserError for a text of an edit that is too long, no text, or has numbers beyond all bars and seconds."""
    _check_letters(name, text, most)
    if found := _NO_NUMBER.search(text):
        raise UserError(f"{name} holds {found[0]}..., a number that no bar, second or tempo has; write a smaller one")
    if found := _HALF.search(text):
        raise UserError(f"{name}: character {found.start() + 1} is half of a pair (a surrogate), not text")


def _check_size(score: Score) -> None:
    """Ends an edit whose every step may double the notes before it has no room left.

    Raises:
        UserError: there are more notes than the page shows.
    """
    notes = sum(event.message[0] & 0xF0 == NOTE_ON for track in score.tracks for event in track)
    if notes > 2 * MAX_NOTES:  # offs may be written as such too
        raise UserError(f"This makes more than {MAX_NOTES:,} notes, which is what the page takes; change less")


def _counted(notes: int) -> str:
    return "1 note" if notes == 1 else f"{notes:,} notes"
