"""What of a person's file is to be written anew: continued, filled in, accompanied, or parts of it.

``music`` are the score's notes, where they were read before.
"""

import dataclasses

from midillm_jax.errors import UserError
from midillm_jax.music import clock
from midillm_jax.music.edit import Edited
from midillm_jax.music.grid import Grid, estimated_grid, grid_named
from midillm_jax.music.parts import Part, ScoreNotes, parts_named, programs_asked, read_notes
from midillm_jax.music.score import Score


@dataclasses.dataclass(frozen=True)
class Change:
    """What of a score is written anew."""

    start: int
    """The first tick; notes that begin before it are kept."""
    end: int | None
    """The first tick behind it; None for all that follows."""
    parts: frozenset[Part] | None
    """Whose notes go; None for all, an empty set for none."""
    programs: tuple[int, ...] | None
    """Programs that the new notes may have, 128 for drums; None for all."""
    seconds: float | None = None
    """How long new notes may begin from the start on, where ``end`` is None."""
    may_close: bool = False
    """Whether the model may end the music before that."""


def continuation(
    score: Score, start: int | None, seconds: float, add: str | None = None, music: ScoreNotes | None = None
) -> Change:
    """New music from a tick on (the end if None), in place of what is there; for the instruments of the score.

    Raises:
        UserError: ``add``, a list of further instruments, holds another word; or nothing is left to go on from.
    """
    start = clock.music_end(score) if start is None else start
    programs = _own_programs(score, start, add, music)
    if not programs:
        raise UserError(f"{score.name}: no note begins before the place to go on from; name a later one")
    return Change(start, None, None, programs, seconds, may_close=True)


def infilling(score: Score, start: int, end: int, add: str | None = None, music: ScoreNotes | None = None) -> Change:
    """New music between two ticks in place of what is there, for the instruments of the score.

    Raises:
        UserError: ``add``, a list of further instruments, holds another word.
    """
    return Change(start, end, None, _own_programs(score, None, add, music) or None)


def accompaniment(
    score: Score,
    add: str,
    keep: str | None = None,
    span: tuple[int, int] | None = None,
    music: ScoreNotes | None = None,
) -> Change:
    """New parts for the instruments in a list, beside all that is there, or beside the parts that ``keep`` names alone.

    Raises:
        UserError: a list holds a word that is no instrument, or that fits nothing that plays.
    """
    start, end = span or (0, clock.music_end(score))
    others = frozenset[Part]()
    if keep is not None:
        music = music or read_notes(score)
        others = frozenset(note.part for note in music.notes) - parts_named(score, keep, music)
    return Change(start, end, others, programs_asked(add))


def replacement(
    score: Score, tracks: str, span: tuple[int, int] | None = None, music: ScoreNotes | None = None
) -> Change:
    """New notes for the parts in a list, which fit all others.

    Raises:
        UserError: a name fits nothing that plays.
    """
    start, end = span or (0, clock.music_end(score))
    parts = parts_named(score, tracks, music)
    return Change(start, end, parts, tuple(sorted({part.program for part in parts})))


def _own_programs(score: Score, before: int | None, add: str | None, music: ScoreNotes | None) -> tuple[int, ...]:
    notes = (music or read_notes(score)).notes
    own = {note.part.program for note in notes if before is None or note.onset < before}
    return tuple(sorted(own | set(programs_asked(add) if add is not None and own else ())))


def seconds_of(score: Score, change: Change) -> tuple[float, float]:
    """When a change begins, and how long new notes may begin from there on."""
    tempos = clock.tempo_map(score)
    start = tempos.seconds(change.start)
    if change.end is not None:
        return start, tempos.seconds(change.end) - start
    assert change.seconds is not None
    return start, change.seconds


def span(score: Score, between: tuple[str, str] | None, bars: str | None) -> tuple[int, int] | None:
    """A stretch in ticks, named by two places or by bars; None if by neither.

    Raises:
        UserError: it is named twice, or is not in the score.
    """
    if between is not None and bars is not None:
        raise UserError(f"the stretch is named by {' to '.join(between)!r} and by bars {bars!r}; give one of them")
    if between is not None:
        return clock.span(score, *between)
    return None if bars is None else clock.bars(score, bars)


def grid_of(score: Score, named: str, music: ScoreNotes | None = None) -> Grid | None:
    """The grid for new notes: ``off``, ``auto`` (the one that the score keeps to, if any) or as ``grid_named`` has it.

    Raises:
        UserError: it is none of these.
    """
    if named == "off":
        return None
    if named != "auto":
        return grid_named(named)
    onsets = (note.onset for note in (music or read_notes(score)).notes)
    return estimated_grid(onsets, clock.bar_map(score), score.ticks_per_beat)


def account(score: Score, change: Change, edited: Edited) -> str:
    """What became of a score: the span, how many notes went and came, and what could not be placed as written."""
    tempos, bars = clock.tempo_map(score), clock.bar_map(score)
    first = bars.bar(change.start)
    until = "on" if change.end is None else f"to {bars.bar(max(change.end - 1, change.start))}"
    spoilt = {"omitted": edited.omitted, "shortened": edited.shortened, "moved": edited.moved}
    notes = [f"{count} {what}" for what, count in spoilt.items() if count]
    because = f" ({', '.join(notes)}: their pitch sounds there already)" if notes else ""
    return (
        f"from bar {first} {until} ({tempos.seconds(change.start):.1f} s), {edited.added} notes new{because}, "
        f"{edited.removed} gone"
    )
