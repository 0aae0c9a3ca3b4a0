"""Whether a whole sequence keeps to the grammar, for tests and for what engines hand back.

Its logic is its own and not that of the masks (music/grammar.py), so that neither can hide a mistake of the other.
"""

from collections.abc import Sequence

import numpy as np

from midillm_jax.music.grammar import RECENT_NOTES, Limits, pack_limits
from midillm_jax.music.vocab import (
    ANTICIPATION_TICKS,
    CONTROL_OFFSET,
    DRUM_PROGRAM,
    DURATION_OFFSET,
    MAX_DURATION_TICKS,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    NOTES,
    PITCHES,
    REST,
    SEPARATOR,
)


def check(amt_ids: Sequence[int] | np.ndarray, limits: Limits | None = None, given: int = 0) -> str | None:
    """What is wrong with a whole sequence after its flag, and in which triple, or None if it is well formed.

    With ``limits``, also whether it keeps to them, but for its first ``given`` ids, a request's history, of which only
    the number of notes counts. Controls due after the last event may be there or not: training rows leave them out,
    engines write them.
    """
    ids = np.asarray(amt_ids, np.int64)
    if ids.ndim != 1:
        return f"expected a flat sequence of ids, found an array of shape {ids.shape}"
    if len(ids) % 3:
        return f"ends inside triple {len(ids) // 3}: {len(ids)} ids are no whole number of triples"
    triples = ids.reshape(-1, 3)
    separators = (triples == SEPARATOR).any(1)
    if separators.any():
        index = int(np.argmax(separators))
        if not (triples[index] == SEPARATOR).all():
            return f"triple {index}: SEPARATOR must fill the triple, found {triples[index].tolist()}"
        if index != len(triples) - 1:
            return f"triple {index}: SEPARATOR must come last, {len(triples) - 1 - index} triples follow"
        if index == 0:
            return "triple 0: SEPARATOR before the first note"
        triples = triples[:-1]
    is_control = triples[:, 0] >= CONTROL_OFFSET
    for index, (triple, control) in enumerate(zip(triples.tolist(), is_control.tolist(), strict=True)):
        onset, duration, note = (amt_id - CONTROL_OFFSET for amt_id in triple) if control else triple
        if not 0 <= onset < MAX_ONSET_TICKS:
            return f"triple {index}: id {triple[0]} is no onset"
        if not DURATION_OFFSET <= duration < DURATION_OFFSET + MAX_DURATION_TICKS:
            return f"triple {index}: id {triple[1]} is no duration that goes with its onset"
        if not NOTE_OFFSET <= note < NOTE_OFFSET + NOTES + (not control):
            return f"triple {index}: id {triple[2]} is no note that goes with its onset"
    rests = triples[:, 2] == REST
    events, positions = triples[~is_control], np.flatnonzero(~is_control)
    moves = np.diff(events[:, 0], prepend=0)
    if (moves < 0).any():
        index = int(np.argmax(moves < 0))
        before = events[index - 1, 0]
        return f"triple {positions[index]}: onset {events[index, 0]} comes before the last event's {before}"
    for index in np.flatnonzero(rests).tolist():
        if triples[index, 1] != DURATION_OFFSET:
            return f"triple {index}: a REST lasts {triples[index, 1] - DURATION_OFFSET} ticks, expected 0"
        if rests[: index + 1].all():
            return f"triple {index}: REST before the first note"
        if moves[np.searchsorted(positions, index)] == 0:
            return f"triple {index}: a REST at {triples[index, 0]} ticks does not move time on"
    reason = _misplaced_control(triples, is_control)
    return reason or (None if limits is None else _beyond(triples, is_control, limits, given // 3))


def _misplaced_control(triples: np.ndarray, is_control: np.ndarray) -> str | None:
    """Interleave the sequence's own controls with its events again, and compare."""
    onsets = triples[:, 0] - CONTROL_OFFSET * is_control
    controls = np.flatnonzero(is_control)
    if (np.diff(onsets[controls]) < 0).any():
        index = controls[1:][np.diff(onsets[controls]) < 0][0]
        return f"triple {index}: control onset {onsets[index]} comes before the last control's"
    events = np.flatnonzero(~is_control)
    before = np.searchsorted(events, controls)  # events written before each control
    heard = np.concatenate(([0], onsets[events]))  # the time that each number of events has reached
    early = onsets[controls] > heard[before] + ANTICIPATION_TICKS
    late = (before > 0) & (onsets[controls] <= heard[np.maximum(before - 1, 0)] + ANTICIPATION_TICKS)
    for wrong, word in ((early, "early"), (late, "late")):
        if wrong.any():
            index = controls[np.argmax(wrong)]
            return f"triple {index}: the control at {onsets[index]} ticks comes too {word}"
    return None


def _beyond(triples: np.ndarray, is_control: np.ndarray, limits: Limits, given: int) -> str | None:
    """Which triple from ``given`` on oversteps the limits, or None."""
    count = int((~is_control & (triples[:, 2] != REST)).sum())
    if limits.max_notes is not None and count > limits.max_notes:
        return f"{count} notes, at most {limits.max_notes} allowed"
    positions = np.flatnonzero(~is_control)
    positions = positions[positions >= given]
    events = triples[positions]
    outside = (events[:, 0] < limits.start_ticks) | (events[:, 0] >= limits.end_ticks)
    if outside.any():
        index = int(np.argmax(outside))
        early = events[index, 0] < limits.start_ticks
        where = f"the start at {limits.start_ticks}" if early else f"the end at {limits.end_ticks}"
        relation = "before" if early else "not before"
        return f"triple {positions[index]}: onset {events[index, 0]} is {relation} {where}"
    ticks, counts = np.unique(events[:, 0], return_counts=True)
    if len(counts) and counts.max() > limits.max_onsets_per_tick:
        return f"{counts.max()} events at {ticks[counts.argmax()]} ticks, at most {limits.max_onsets_per_tick} allowed"
    if pack_limits([limits]).distinct[0]:
        struck = triples[~is_control]
        for index in range(len(struck) - len(events), len(struck)):
            before = struck[max(index - RECENT_NOTES, 0) : index]
            if struck[index, 2] != REST and (before[before[:, 0] == struck[index, 0], 2] == struck[index, 2]).any():
                return f"a note at {struck[index, 0]} ticks is struck twice"
    notes = events[events[:, 2] != REST]
    for onset, _, note in notes.tolist():
        program, pitch = divmod(note - NOTE_OFFSET, PITCHES)
        if limits.programs is not None and program not in limits.programs:
            return f"program {program} at {onset} ticks is not among those allowed"
        if program != DRUM_PROGRAM and not limits.pitch_low <= pitch <= limits.pitch_high:
            return f"pitch {pitch} at {onset} ticks is outside {limits.pitch_low} to {limits.pitch_high}"
    return None
