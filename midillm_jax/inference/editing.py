"""A person's own file gets new music: it is continued, filled in, accompanied, or some of its tracks are played anew.

The file is edited note by note (music/edit.py): what is not written anew stays as it is, to the byte.
"""

from collections.abc import Callable, Sequence

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference import windows
from midillm_jax.inference.changes import Change
from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.engine import Stage
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music import dynamics
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.clock import BarMap, TempoMap, bar_map, tempo_map
from midillm_jax.music.edit import Edited, NewNote, replace_span
from midillm_jax.music.grid import Grid
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.parts import ScoreNote, ScoreNotes, read_notes
from midillm_jax.music.score import Score
from midillm_jax.music.vocab import (
    DURATION_OFFSET,
    MAX_DURATION_TICKS,
    NOTE_OFFSET,
    PITCHES,
    TICKS_PER_SECOND,
)

_ON_BEAT_TICKS = 2
"""A note this many ticks of 10 ms off a beat is still on it."""


def write_into(
    model: MusicModel,
    score: Score,
    change: Change,
    request: MusicRequest,
    *,
    grid: Grid | None = None,
    strength: float = 1.0,
    velocity: int | None = None,
    keep: Callable[[Sequence[NoteTable]], Sequence[int]] | None = None,
    tell: Callable[[Stage, float], None] | None = None,
    hear: Callable[[int, np.ndarray], None] | None = None,
    music: ScoreNotes | None = None,
) -> list[Edited]:
    """Scores with new music where a change says, one for each output of the request that is kept.

    Args:
        model: what writes.
        score: the person's music.
        change: what of it is written anew.
        request: words, outputs, seed and sampling.
        grid: what new onsets are moved to; None leaves them as they are (to 10 ms).
        strength: how far they are moved, 0 (not at all) to 1 (onto the grid).
        velocity: of all new notes; None for music/dynamics.py, around what the score's own notes have.
        keep: gives which outputs are kept and in which order, from the new notes of each, whose times are those of the
            score's tempos; all are if None.
        tell: as in :func:`~midillm_jax.inference.windows.write`.
        hear: likewise.
        music: the score's notes, where they were read before.

    Raises:
        UserError: the span is shorter than a tick of the tokens, all channels are in use, or the prompt or what is
            given leaves no room for music.
    """
    music = music or read_notes(score)
    tempos = tempo_map(score)
    until = float("inf") if change.end is None else change.end
    start = _ticks(tempos, change.start)
    if change.end is None:
        assert change.seconds is not None
        end = start + round(change.seconds * TICKS_PER_SECOND)
    else:
        end = _ticks(tempos, change.end)
    if end <= start:
        raise UserError(f"{score.name}: the span is shorter than 10 ms, in which no music can be written; widen it")
    own: list[ScoreNote] = []
    given: list[ScoreNote] = []
    for note in music.notes:
        mine = change.parts is None or note.part in change.parts
        if not mine or note.onset >= until:
            given.append(note)
        elif note.onset < change.start:
            own.append(note)
    place = windows.Place(
        start_ticks=start,
        end_ticks=end,
        before=note_events(own, tempos),
        given=note_events(given, tempos),
        programs=change.programs,
        may_close=change.may_close,
    )
    written = windows.write(model, request, place, tell, hear)
    tables = [decode_notes(new.events) for new in written]
    bars, levels = bar_map(score), _levels(music.notes)
    edited = []
    for number in range(len(tables)) if keep is None else keep(tables):
        notes = new_notes(tables[number], tempos, bars, levels, velocity, seed=request.seed + number)
        edited.append(
            replace_span(
                score, change.start, change.end, change.parts, notes, grid=grid, strength=strength, music=music
            )
        )
    return edited


def _ticks(tempos: TempoMap, tick: int) -> int:
    """A tick of the score in those of the tokens."""
    return round(tempos.seconds(tick) * TICKS_PER_SECOND)


def note_events(notes: Sequence[ScoreNote], tempos: TempoMap) -> np.ndarray:
    """Notes of a score as events, int32 [3n], sorted by onset; one that is never ended sounds as long as can be."""
    rows = []
    for note in notes:
        onset = _ticks(tempos, note.onset)
        length = MAX_DURATION_TICKS - 1 if note.end is None else _ticks(tempos, note.end) - onset
        duration = DURATION_OFFSET + min(max(length, 0), MAX_DURATION_TICKS - 1)
        rows.append((onset, duration, NOTE_OFFSET + PITCHES * note.part.program + note.pitch))
    rows.sort(key=lambda row: row[0])
    return np.array(rows, np.int32).reshape(-1)


def _levels(notes: Sequence[ScoreNote]) -> dict[int | None, int]:
    """The middle velocity of each program, and of all under None."""
    by_program: dict[int | None, list[int]] = {}
    for note in notes:
        by_program.setdefault(note.part.program, []).append(note.velocity)
        by_program.setdefault(None, []).append(note.velocity)
    return {program: int(np.median(found)) for program, found in by_program.items()}


def new_notes(
    table: NoteTable,
    tempos: TempoMap,
    bars: BarMap,
    levels: dict[int | None, int],
    velocity: int | None,
    seed: int,
) -> list[NewNote]:
    """What a model wrote as notes for a score, with velocities."""
    programs, pitches = table.notes // PITCHES, table.notes % PITCHES
    if velocity is None:
        loud = levels.get(None, dynamics.DEFAULT_LEVEL)
        base = np.array([levels.get(program, loud) for program in programs.tolist()], np.int32)
        weights = np.array([_weight(onset, tempos, bars) for onset in table.onsets.tolist()], np.int32)
        struck = dynamics.velocities(table.onsets, table.notes, base, weights, seed)
    else:
        struck = np.full(len(table), velocity, np.uint8)
    columns = (table.onsets / TICKS_PER_SECOND, table.durations / TICKS_PER_SECOND, programs, pitches, struck)
    return [NewNote(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _weight(onset: int, tempos: TempoMap, bars: BarMap) -> int:
    """2 on a bar line, 1 on a beat (a quarter note counted from it), else 0."""
    tick = tempos.tick(onset / TICKS_PER_SECOND)
    bar = bars.bar(tick)
    lines = bars.start(bar), bars.start(bar + 1)
    # How many ticks of the score two ticks of the tokens are, here.
    slack = tempos.tick((onset + _ON_BEAT_TICKS) / TICKS_PER_SECOND) - tick
    if min(abs(tick - line) for line in lines) <= slack:
        return 2
    off = (tick - lines[0]) % tempos.ticks_per_beat
    return int(min(off, tempos.ticks_per_beat - off) <= slack)
