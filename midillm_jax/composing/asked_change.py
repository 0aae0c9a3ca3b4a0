"""A change of a file as fields ask for it, whether they are options of a command or on the page; and its writing."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from midillm_jax.composing import takes
from midillm_jax.errors import UserError
from midillm_jax.inference import changes, editing
from midillm_jax.inference.changes import Change
from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.engine import Stage
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.grid import Grid
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.parts import ScoreNotes, names_in, programs_named
from midillm_jax.music.score import Score

Kind = Literal["continue", "infill", "accompany", "replace"]


@dataclasses.dataclass(frozen=True)
class AskedChange:
    """What of a file is to be written anew. Who fills it in has read places and stretches already, each as people
    write them there."""

    kind: Kind
    start: int | None = None
    """Continue: the first tick of the new music; the end of the last bar if None."""
    span: tuple[int, int] | None = None
    """The others: the first tick and the first behind; all of the file if None, which infill cannot have."""
    seconds: float = 30.0
    """Continue: of new music at most."""
    instruments: str | None = None
    """Continue, infill: those that may play besides those of the file. Accompany: those to write; it must have some."""
    tracks: str | None = None
    """Replace: the parts to write anew; it must have some. Accompany: those to keep; all if None."""

    def change(self, score: Score, music: ScoreNotes) -> Change:
        """The same, held against the file.

        Raises:
            UserError: an instrument or a part that was named is not there.
        """
        if self.kind == "continue":
            return changes.continuation(score, self.start, self.seconds, self.instruments, music)
        if self.kind == "infill":
            assert self.span is not None
            return changes.infilling(score, *self.span, self.instruments, music)
        if self.kind == "accompany":
            assert self.instruments is not None
            return changes.accompaniment(score, self.instruments, self.tracks, self.span, music)
        assert self.tracks is not None
        return changes.replacement(score, self.tracks, self.span, music)

    def players(self, change: Change) -> tuple[frozenset[int], ...]:
        """The programs that pass for each instrument that is asked to play something new; none where all are free."""
        if self.kind == "accompany":
            assert self.instruments is not None
            return tuple(frozenset(programs_named(name)) for name in names_in(self.instruments))
        if self.kind == "replace":
            return tuple(frozenset((program,)) for program in change.programs or ())
        return ()


@dataclasses.dataclass(frozen=True)
class Manner:
    """How new notes are put into a file.

    Raises:
        UserError: a value is out of its range.
    """

    quantize: str = "auto"
    """Their grid, as :func:`~midillm_jax.inference.changes.grid_of` takes it."""
    strength: float = 1.0
    """How far they are moved onto it, 0 to 1."""
    velocity: int | None = None
    """Of all of them; by rules if None."""
    dashes: str = ""
    """What stands before a field's name where it is an option."""

    def __post_init__(self) -> None:
        if self.velocity is not None and not 1 <= self.velocity <= 127:
            raise UserError(f"{self.dashes}velocity {self.velocity}: expected 1 to 127")
        if not 0 <= self.strength <= 1:
            raise UserError(f"{self.dashes}strength {self.strength:g}: expected 0 (not moved) to 1 (onto the grid)")

    def grid(self, score: Score, music: ScoreNotes) -> Grid | None:
        """The grid in a file.

        Raises:
            UserError: it is none.
        """
        return changes.grid_of(score, self.quantize, music)


class Changed(NamedTuple):
    """A file after a change."""

    score: Score
    account: str
    """What became of it, as a sentence's end."""


def write(
    model: MusicModel,
    score: Score,
    music: ScoreNotes,
    asked: AskedChange,
    change: Change,
    request: MusicRequest,
    manner: Manner,
    grid: Grid | None,
    candidates: int | None = None,
    tell: Callable[[Stage, float], None] | None = None,
    hear: Callable[[int, np.ndarray], None] | None = None,
) -> tuple[list[Changed], str | None]:
    """The file after a change, once for each output of the request; and which of several candidates were kept and why.

    Args:
        model: what writes.
        score: the file.
        music: its notes.
        asked: the change as it was asked for.
        change: the same, held against the file.
        request: words, outputs, seed and sampling.
        manner: how new notes are put there.
        grid: that of the manner, in this file.
        candidates: takes to write, of which as many as the request has outputs are kept, the best first; no more than
            these if None.
        tell: as in :func:`~midillm_jax.inference.windows.write`.
        hear: likewise.

    Raises:
        UserError: as :func:`~midillm_jax.inference.editing.write_into`.
    """
    told: list[str] = []

    def best(tables: Sequence[NoteTable]) -> list[int]:
        stretch = takes.stretch_of(score, music, change, asked.players(change))
        ranked = takes.ranked_changes(tables, stretch, request.prompt)
        told.append(takes.account(ranked, request.outputs))
        return [take.number for take in ranked[: request.outputs]]

    edited = editing.write_into(
        model,
        score,
        change,
        request if candidates is None else dataclasses.replace(request, outputs=candidates),
        grid=grid,
        strength=manner.strength,
        velocity=manner.velocity,
        keep=None if candidates is None else best,
        tell=tell,
        hear=hear,
        music=music,
    )
    return [Changed(one.score, changes.account(score, change, one)) for one in edited], told[0] if told else None
