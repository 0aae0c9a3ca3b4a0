"""Running the plan of an edit on a score, event by event; all that is outside of its spans and parts stays as it is.

The operations of ``edit_plan.py`` that need no model are done here. What a new instrument or tempo needs behind a span
is set at its end (``edit_setup.py``). Files keep their length: nothing moves in time.
"""

import dataclasses
from collections.abc import Callable

from midillm_jax.errors import UserError
from midillm_jax.music.clock import bar_map
from midillm_jax.music.edit_plan import (
    Double,
    Operation,
    Plan,
    Regenerate,
    Reinstrument,
    Tempo,
    Thin,
    Transpose,
    Velocity,
)
from midillm_jax.music.edit_setup import Rewriting, at_tempo, play_on
from midillm_jax.music.edit_span import ticks
from midillm_jax.music.parts import Part, ScoreNote, ScoreNotes, is_drums, read_notes
from midillm_jax.music.placement import OFFS, ONS, Placement, TimedNote, room
from midillm_jax.music.score import NOTE_OFF, NOTE_ON, Score
from midillm_jax.music.thinning import superfluous
from midillm_jax.music.vocab import PITCHES

_AFTERTOUCH = 0xA0
_DRUMS_STAY = "; drums have no pitches and stay"


@dataclasses.dataclass(frozen=True)
class Target:
    """Where an operation works in a score."""

    start: int
    """Its first tick."""
    end: int
    """The first behind it."""
    parts: frozenset[Part]
    """Whose notes; empty where notes are only added."""

    def holds(self, note: ScoreNote) -> bool:
        """Whether a note is one of those meant: of the parts, and beginning in the span."""
        return note.part in self.parts and self.start <= note.onset < self.end


@dataclasses.dataclass(frozen=True)
class Applied:
    """A score after a plan."""

    score: Score
    told: tuple[str, ...]
    """Of each operation, what became of how many notes."""


def apply(
    score: Score,
    plan: Plan,
    regenerate: Callable[[Score, Regenerate, Target], Score],
    *,
    seed: int = 0,
    check: Callable[[Score], None] | None = None,
) -> Applied:
    """The score after the operations of a plan, one after the other.

    Spans are those of the score as it comes, parts those that it has when their operation's turn comes.

    Args:
        score: any.
        plan: operations.
        regenerate: gives the score with new notes; what it is called with is where, and whose notes they replace.
        seed: for what is left to chance, of notes as good to leave out.
        check: hears of the score after each operation; what it raises ends the work.

    Raises:
        UserError: a span or a part is not in the score, or an operation cannot be done to it.
    """
    spans = [ticks(score, operation.span) for operation in plan]
    told: list[str] = []
    for operation, (start, end) in zip(plan, spans, strict=True):
        try:
            score, outcome = _applied(score, operation, start, end, regenerate, seed)
        except UserError as error:
            raise UserError(f"{operation}: {error}") from None
        told.append(f"{operation}: {outcome}")
        if check is not None:
            check(score)
    return Applied(score, tuple(told))


def _applied(
    score: Score,
    operation: Operation,
    start: int,
    end: int,
    regenerate: Callable[[Score, Regenerate, Target], Score],
    seed: int,
) -> tuple[Score, str]:
    if isinstance(operation, Tempo):
        return at_tempo(score, start, end, operation.amount), "set"
    music = read_notes(score)
    parts = frozenset[Part]() if operation.parts is None else operation.parts.of(score, music)
    target = Target(start, end, parts)
    if isinstance(operation, Regenerate):
        return regenerate(score, operation, target), "new notes"
    if isinstance(operation, Reinstrument | Transpose | Double):
        return _pitched(score, operation, target, music)
    notes = [note for note in music.notes if target.holds(note)]
    if isinstance(operation, Velocity):
        return _with_velocities(score, operation, notes), _count(notes)
    gone = notes
    if isinstance(operation, Thin):
        gone = superfluous(notes, operation.percent, bar_map(score), score.ticks_per_beat, seed)
    rewriting = Rewriting(score)
    for note in gone:
        rewriting.drop(note.part.track, note.on, note.off)
    return rewriting.score(), f"{len(gone)} of {_count(notes)} taken out"


def _pitched(
    score: Score, operation: Reinstrument | Transpose | Double, target: Target, music: ScoreNotes
) -> tuple[Score, str]:
    """What can be done to all but drums."""
    parts = frozenset(part for part in target.parts if not is_drums(part.channel))
    if target.parts and not parts:
        raise UserError(
            f"{score.name}: drums have no pitches and no instrument to change, their channel makes them drums; "
            "name other parts"
        )
    stay = _DRUMS_STAY if len(parts) < len(target.parts) else ""
    target = dataclasses.replace(target, parts=parts)
    notes = [note for note in music.notes if target.holds(note)]
    if isinstance(operation, Reinstrument):
        changed = play_on(score, music, target.start, target.end, parts, operation.program)
        return changed, f"{_count(notes)}{stay}"
    beyond = [note for note in notes if not 0 <= note.pitch + operation.semitones < PITCHES]
    if beyond:
        raise UserError(
            f"{score.name}: {len(beyond)} of {_count(notes)} would leave MIDI's pitches, 0 to {PITCHES - 1}; "
            "move them less"
        )
    if isinstance(operation, Double):
        return _doubled(score, operation, notes, music, stay)
    return _transposed(score, operation.semitones, notes, music, stay)


def _count(notes: list[ScoreNote]) -> str:
    return f"{len(notes)} note{'' if len(notes) == 1 else 's'}"


def _with_velocities(score: Score, operation: Velocity, notes: list[ScoreNote]) -> Score:
    rewriting, amount = Rewriting(score), operation.amount
    for note in notes:
        now = note.velocity
        wanted = {"to": amount.value, "by": now + amount.value, "percent": now * amount.value / 100}[amount.kind]
        status = NOTE_ON | note.part.channel % 16
        rewriting.replace(note.part.track, note.on, bytes((status, note.pitch, min(max(round(wanted), 1), 127))))
    return rewriting.score()


def _doubled(
    score: Score, operation: Double, notes: list[ScoreNote], music: ScoreNotes, stay: str
) -> tuple[Score, str]:
    """The notes a second time, where ``placement.py`` finds a place for them."""
    parts = frozenset(note.part for note in notes)
    programs = {part.program for part in parts} if operation.program is None else {operation.program}
    placement = Placement(score, music, [], parts, programs, float("inf"))
    for note in notes:
        end = score.end_tick() if note.end is None else note.end
        program = note.part.program if operation.program is None else operation.program
        pitch = note.pitch + operation.semitones
        placement.add(TimedNote(note.onset, max(end, note.onset + 1), program, pitch, note.velocity))
    left_out = f", {placement.omitted} left out as their pitch sounds there" if placement.omitted else ""
    return placement.score(), f"{len(notes) - placement.omitted} notes added{left_out}{stay}"


def _transposed(
    score: Score, semitones: int, notes: list[ScoreNote], music: ScoreNotes, stay: str
) -> tuple[Score, str]:
    """The notes at other pitches. One channel cannot sound a pitch twice, so notes that are not moved come first.

    A moved note finds its place beside them as new notes do in ``edit.replace_span``, or is left out.
    """
    moved = set(notes)
    staying: dict[tuple[int, int], list[tuple[int, float, int]]] = {}
    """(channel, pitch) -> (begin, end, track); an off that ends nothing takes no time."""
    for note in music.notes:
        if note not in moved:
            end = float("inf") if note.end is None else note.end
            staying.setdefault((note.part.channel, note.pitch), []).append((note.onset, end, note.part.track))
    for channel, pitch, tick in music.stray_offs:
        staying.setdefault((channel, pitch), []).append((tick, tick, -1))
    rewriting, omitted = Rewriting(score), 0
    touches = _aftertouches(score) if notes else {}
    for note in notes:
        track, channel, pitch = note.part.track, note.part.channel % 16, note.pitch + semitones
        on, off = bytes((NOTE_ON | channel, pitch, note.velocity)), bytes((NOTE_OFF | channel, pitch, 0))
        end = float("inf") if note.end is None else note.end
        for index in touches.get((track, channel, note.pitch), ()):
            if note.on < index < (float("inf") if note.off is None else note.off):
                pressure = score.tracks[track][index].message[2]
                rewriting.replace(track, index, bytes((_AFTERTOUCH | channel, pitch, pressure)))
        others = staying.get((note.part.channel, pitch), ())
        if not any(begin <= end and note.onset <= until for begin, until, _ in others):
            rewriting.replace(track, note.on, on)
            if note.off is not None:
                own = score.tracks[track][note.off].message
                rewriting.replace(track, note.off, bytes((own[0], pitch, own[2])))
            continue
        rewriting.drop(track, note.on, note.off)
        found = room(others, track, note.onset, end, float("inf"))
        if found is None:
            omitted += 1
            continue
        rewriting.add(track, found[0], on, ONS)
        if found[1] < float("inf"):
            rewriting.add(track, int(found[1]), off, OFFS)
    left_out = f", {omitted} left out as their new pitch sounds there" if omitted else ""
    return rewriting.score(), f"{len(notes) - omitted} notes{left_out}{stay}"


def _aftertouches(score: Score) -> dict[tuple[int, int, int], list[int]]:
    """(track, channel of its port, pitch) -> which events of the track are the pressure on a key."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for track, events in enumerate(score.tracks):
        for index, event in enumerate(events):
            if event.message[0] & 0xF0 == _AFTERTOUCH:
                found.setdefault((track, event.message[0] & 0x0F, event.message[1]), []).append(index)
    return found
