"""Which of several takes to keep: not those that failed, then those that do most of what was asked."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.asked import Asked
from midillm_jax.evaluation.control import Control, score
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.inference.changes import Change, seconds_of
from midillm_jax.inference.editing import note_events
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.clock import tempo_map
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.parts import ScoreNote, ScoreNotes
from midillm_jax.music.score import Score
from midillm_jax.music.signatures import LEAST_SECONDS, LONGEST_SILENCE, Signatures, signatures
from midillm_jax.music.vocab import PITCHES, TICKS_PER_SECOND

_LOOPING, _FLOODED, _EMPTY = "looping", "flooded with notes", "next to empty or full of holes"


class Judged(NamedTuple):
    """A take, and what is to be said of it."""

    number: int
    """Its place in the order in which they were written, from 0."""
    failed: str | None
    """Why it is no music to keep, by music/signatures.py."""
    agreement: float | None
    """Of what was asked (instruments, drums, tempo, key, meter, length), the share that it does; None if nothing is."""


class Stretch(NamedTuple):
    """Where takes of a change of a file are to sound. Times are in ticks of 10 ms."""

    start: int
    end: int
    closes: bool
    """Whether the music may end before that."""
    kept: NoteTable
    """What sounds there besides."""
    before: Signatures
    """Of what sounded there; for a continuation, of as long a stretch of what it goes on from."""
    players: tuple[frozenset[int], ...]
    """The programs that pass for each instrument that is to play something new; none where all are free."""


def check(candidates: int | None, outputs: int, dashes: str = "") -> None:
    """Whether there are enough takes to choose among.

    Raises:
        UserError: there are not.
    """
    if candidates is not None and candidates < outputs:
        kept = f"{dashes}outputs" if dashes else f"{outputs} takes"
        raise UserError(f"{dashes}candidates {candidates}: expected {outputs} or more, as {kept} are kept")


def judge(number: int, table: NoteTable, asked: Asked) -> Judged:
    """What is to be said of a new piece."""
    signs = signatures(table)
    faults = {_LOOPING: signs.looping, _FLOODED: signs.flooded, _EMPTY: signs.empty}
    return Judged(number, _first(faults), _mean(_agreements(score(table, asked))))


def ranked(tables: Sequence[NoteTable], asked: Asked) -> list[Judged]:
    """New pieces, the best first; of equal ones the one that was written first."""
    return _in_order(judge(number, table, asked) for number, table in enumerate(tables))


def stretch_of(score: Score, music: ScoreNotes, change: Change, players: tuple[frozenset[int], ...]) -> Stretch:
    """Where takes of a change are to sound, in a file with these notes; ``players`` as in Stretch."""
    begin, seconds = seconds_of(score, change)
    start = round(begin * TICKS_PER_SECOND)
    end = max(round((begin + seconds) * TICKS_PER_SECOND), start + 1)
    until = float("inf") if change.end is None else change.end

    def goes(note: ScoreNote) -> bool:
        return change.start <= note.onset < until and (change.parts is None or note.part in change.parts)

    tempos = tempo_map(score)
    all_of = decode_notes(note_events(music.notes, tempos))
    kept = decode_notes(note_events([note for note in music.notes if not goes(note)], tempos))
    heard_before = (start, end) if change.end is not None else (max(2 * start - end, 0), start)
    return Stretch(
        start,
        end,
        change.may_close,
        _sounding(kept, start, end),
        signatures(_sounding(all_of, *heard_before), heard_before),
        players,
    )


def judge_change(number: int, new: NoteTable, stretch: Stretch, asked: Asked) -> Judged:
    """What is to be said of new notes in a file.

    The stretch is heard with all that sounds in it. What it suffered from before, as a file of loops does, is no fault
    of a take; new parts that leave out half of it are, whoever plays besides. Of what the words say, instruments, drums
    and key count: tempo, bars and length are the file's.
    """
    heard = together(stretch.kept, new)
    ends = round(new.seconds() * TICKS_PER_SECOND)
    span = stretch.start, max(min(stretch.end, ends), stretch.start + 1) if stretch.closes else stretch.end
    signs, before, half = signatures(heard, span), stretch.before, _seconds((stretch.start, stretch.end)) / 2
    faults = {
        "without a note": not len(new),
        _FLOODED: signatures(new).flooded,
        _LOOPING: signs.looping and not before.looping,
        "over at once": _seconds(span) < min(LEAST_SECONDS, half),
        _EMPTY: (signs.holey and not before.holey)
        or signatures(new, span).longest_silence > max(LONGEST_SILENCE, half),
    }
    found = _agreements(score(heard, dataclasses.replace(asked, tempo=None, meter=None, seconds=None)))
    if stretch.players:
        playing = set((new.notes // PITCHES).tolist())
        found.append(sum(not player.isdisjoint(playing) for player in stretch.players) / len(stretch.players))
    return Judged(number, _first(faults), _mean(found))


def ranked_changes(tables: Sequence[NoteTable], stretch: Stretch, prompt: str | None) -> list[Judged]:
    """The new notes of takes of a change, the best first; of equal ones those that were written first."""
    asked = Asked() if prompt is None else read_prompt(prompt)
    return _in_order(judge_change(number, table, stretch, asked) for number, table in enumerate(tables))


def account(takes: Sequence[Judged], kept: int) -> str:
    """One sentence on what was written and what is kept; takes as ``ranked`` gives them."""
    faults: dict[str, int] = {}
    for take in takes:
        if take.failed is not None:
            faults[take.failed] = faults.get(take.failed, 0) + 1
    failed = "; ".join(f"{count} {name}" for name, count in faults.items()) or "none failed"
    return f"{len(takes)} takes: {failed}; kept {', '.join(map(_described, takes[:kept]))}"


def _described(take: Judged) -> str:
    said = [] if take.failed is None else [take.failed]
    said += [] if take.agreement is None else [f"{take.agreement:.0%} of what was asked"]
    return f"{take.number + 1}" + (f" ({', '.join(said)})" if said else "")


def _in_order(judged: Iterable[Judged]) -> list[Judged]:
    return sorted(judged, key=lambda take: (take.failed is not None, -(take.agreement or 0.0), take.number))


def _first(faults: dict[str, bool]) -> str | None:
    return next((name for name, is_so in faults.items() if is_so), None)


def _agreements(control: Control) -> list[float]:
    """Of each thing that was asked. Nearly right, as in the next tempo bin or the relative key, counts half."""
    pairs = ((control.tempo_bin, control.tempo_bin_near), (control.key, control.key_or_relative))
    found = [(exact + bool(near)) / 2 for exact, near in pairs if exact is not None]
    found += [float(each) for each in (control.drums, control.meter, control.length) if each is not None]
    if control.instruments is not None:
        found.append(control.instruments.f1)
    return found


def _mean(found: list[float]) -> float | None:
    return sum(found) / len(found) if found else None


def _seconds(span: tuple[int, int]) -> float:
    return (span[1] - span[0]) / TICKS_PER_SECOND


def _sounding(table: NoteTable, start: int, end: int) -> NoteTable:
    """What of the notes sounds in a stretch; those that ring into it begin with it."""
    inside = (table.onsets < end) & (table.onsets + table.durations > start)
    onsets, ends = table.onsets[inside], (table.onsets + table.durations)[inside]
    begins = np.maximum(onsets, start)
    return NoteTable(begins, ends - begins, table.notes[inside], table.velocities[inside])


def together(one: NoteTable, other: NoteTable) -> NoteTable:
    """The notes of both."""
    onsets = np.concatenate((one.onsets, other.onsets))
    order = np.argsort(onsets, kind="stable")
    durations = np.concatenate((one.durations, other.durations))[order]
    notes = np.concatenate((one.notes, other.notes))[order]
    velocities = np.concatenate((one.velocities, other.velocities))[order]
    return NoteTable(onsets[order], durations, notes, velocities)
