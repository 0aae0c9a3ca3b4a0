"""Which ids may come next: a small state machine over (onset, duration, note) triples.

Every engine asks the same functions before each token, so whatever leaves an engine is music that decodes:

    state  = start(batch, limits)                 int32 [B, K], numpy
    mask   = allowed(xp, state, slot, limits)     bool [B, W], W = SLOT_WIDTHS[slot]
    forced = forced(xp, state, controls)          int32 [B], an amt_id, or -1 where the token is free
    state  = advance(xp, state, ids, limits)      int32 [B, K]

``xp`` is numpy, jax.numpy or torch. Nothing branches on a value and nothing creates an array from thin air (on a GPU
it would land on the wrong device), so the same lines run inside a jitted loop and inside a logits processor.

A mask is over the slot's own ids: onsets 0..9999 then SEPARATOR; durations 10000..10999; notes 11000..27511 then REST.
:func:`slot_ids` turns an index within a slot into an amt_id. Ids that the mask cannot express (controls, which are
never sampled, and the second and third SEPARATOR) come from :func:`forced`, which always goes before the mask.

music/grammar_check.py looks at a whole sequence with logic of its own, for tests and for what engines hand back.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.music.vocab import (
    ANTICIPATION_TICKS,
    CONTROL_OFFSET,
    DRUM_PROGRAM,
    DURATION_OFFSET,
    DURATION_SLOT,
    MAX_DURATION_TICKS,
    MAX_GAP_TICKS,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    NOTE_SLOT,
    NOTES,
    ONSET_SLOT,
    PITCHES,
    PROGRAMS,
    REST,
    SEPARATOR,
)

Array = Any
"""An array of whichever library ``xp`` is."""

SLOT_WIDTHS = (MAX_ONSET_TICKS + 1, MAX_DURATION_TICKS, NOTES + 1)
"""Ids that can be sampled in the onset, duration and note slot."""
FREE = -1
"""What :func:`forced` gives where the token may be sampled."""

_NEVER = 1 << 30
"""Onset id of the row after a request's last control: never due."""

_PHASE = 0  # slot of the next token
_LAST_ONSET = 1  # onset of the last event (controls are not events), 0 before the first
_FLOOR = 2  # earliest onset the next event may have
_ONSET = 3  # onset of the triple being written
_CONTROL = 4  # 1 while that triple is a control
_NO_LENGTH = 5  # 1 while that triple's duration is 0, as a REST's is
_AT_TICK = 6  # events at _LAST_ONSET so far
_NOTES = 7  # notes so far, neither rests nor controls
_POINTER = 8  # controls written so far
_CLOSED = 9  # 1 from the first SEPARATOR on
_RECENT = 10  # from here on: the last notes at _LAST_ONSET, the latest first, each plus 1
RECENT_NOTES = 16
STATE_SIZE = _RECENT + RECENT_NOTES
"""Columns of a state [K]."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request allows, on top of what makes a sequence well formed.

    Raises:
        UserError: nothing would be left.
    """

    programs: tuple[int, ...] | None = None
    """Programs that may sound, 128 for drums; None for all."""
    pitch_low: int = 0
    pitch_high: int = PITCHES - 1
    """Both ends included; drums, whose pitch names an instrument, are not held to it."""
    max_onsets_per_tick: int = 64
    """Events that may share a tick; real music stays well below."""
    start_ticks: int = 0
    """No event before this, but for those of a history; controls are not held to it."""
    end_ticks: int = MAX_ONSET_TICKS
    """No onset at or after this."""
    max_notes: int | None = None
    """Notes, a history's included but not controls, after which only the end is allowed; None for no limit."""
    distinct: bool = False
    """No note that is among the last 16 at its tick, unless so few may sound: small models pile them up there."""
    closes: bool = True
    """Whether the model learned to end a piece; if not, SEPARATOR waits for max_notes or the second before the end."""

    def __post_init__(self) -> None:
        if self.programs is not None:
            wrong = [program for program in self.programs if not 0 <= program < PROGRAMS]
            if wrong or not self.programs:
                found = wrong[0] if wrong else "an empty list"
                raise UserError(f"limits: programs holds {found}; give at least one of 0 to 127, or 128 for drums")
        if not 0 <= self.pitch_low <= self.pitch_high < PITCHES:
            raise UserError(
                f"limits: pitches {self.pitch_low} to {self.pitch_high} are no range; give two of 0 to 127, lower first"
            )
        if not 1 <= self.end_ticks <= MAX_ONSET_TICKS:
            raise UserError(f"limits: the end is at {self.end_ticks} ticks of 10 ms; expected 1 to {MAX_ONSET_TICKS}")
        if not 0 <= self.start_ticks < self.end_ticks:
            span = f"{self.start_ticks} ticks of 10 ms to {self.end_ticks}"
            raise UserError(f"limits: from {span} there is no room; expected a start of 0 or more, before the end")
        if self.max_notes is not None and self.max_notes < 1:
            raise UserError(f"limits: max_notes is {self.max_notes}; expected at least 1")
        if self.max_onsets_per_tick < 1:
            raise UserError(f"limits: max_onsets_per_tick is {self.max_onsets_per_tick}; expected at least 1")

    def note_table(self) -> np.ndarray:
        """Which of the 16,512 notes may sound: bool [NOTES]."""
        programs = np.ones(PROGRAMS, bool) if self.programs is None else np.isin(np.arange(PROGRAMS), self.programs)
        pitches = np.arange(PITCHES)
        table = programs[:, None] & ((pitches >= self.pitch_low) & (pitches <= self.pitch_high))[None, :]
        table[DRUM_PROGRAM] = programs[DRUM_PROGRAM]
        return table.reshape(-1)


class LimitArrays(NamedTuple):
    """The limits of a batch, one row a request; an engine moves the arrays to its device once."""

    notes: Array  # bool [B, NOTES]
    max_onsets_per_tick: Array  # int32 [B]
    start_ticks: Array  # int32 [B]
    end_ticks: Array  # int32 [B]
    max_notes: Array  # int32 [B]
    distinct: Array  # bool [B]
    closes: Array  # bool [B]
    ticks: Array  # int32 [NOTES], 0 1 2 ...: the values of a slot


class Controls(NamedTuple):
    """The controls of a batch, sorted by onset, each request's followed by at least one row that is never due."""

    ids: Array  # int32 [B, C, 3], control ids
    rows: Array  # int32 [B], 0 1 2 ...


def pack_limits(limits: Sequence[Limits]) -> LimitArrays:
    """Numpy arrays for a batch of limits."""
    unlimited = np.iinfo(np.int32).max
    notes = np.stack([one.note_table() for one in limits])
    return LimitArrays(
        notes=notes,
        max_onsets_per_tick=np.array([one.max_onsets_per_tick for one in limits], np.int32),
        start_ticks=np.array([one.start_ticks for one in limits], np.int32),
        end_ticks=np.array([one.end_ticks for one in limits], np.int32),
        max_notes=np.array([unlimited if one.max_notes is None else one.max_notes for one in limits], np.int32),
        distinct=np.array([one.distinct for one in limits], bool) & (notes.sum(1) > RECENT_NOTES),
        closes=np.array([one.closes for one in limits], bool),
        ticks=np.arange(NOTES, dtype=np.int32),
    )


def pack_controls(controls: Sequence[Sequence[int]], capacity: int = 0) -> Controls:
    """Numpy arrays for a batch of flat control sequences (control ids, three a control, in any order).

    ``capacity`` is the least number of controls to make room for, so that a jitted loop sees few shapes.
    """
    counts = [len(one) // 3 for one in controls]
    ids = np.full((len(controls), max([capacity, *counts]) + 1, 3), _NEVER, np.int32)
    for row, one in enumerate(controls):
        triples = np.asarray(one, np.int32).reshape(-1, 3)
        reason = _control_error(triples)
        if reason is not None:
            raise ValueError(f"controls: {reason}")
        ids[row, : counts[row]] = triples[np.argsort(triples[:, 0], kind="stable")]
    return Controls(ids, np.arange(len(controls), dtype=np.int32))


def slot_ids(xp: Any, indices: Array, slot: int) -> Array:
    """amt_ids of indices within a slot."""
    if slot == ONSET_SLOT:
        return xp.where(indices == MAX_ONSET_TICKS, SEPARATOR, indices)
    return indices + (DURATION_OFFSET if slot == DURATION_SLOT else NOTE_OFFSET)


def start(batch: int, limits: LimitArrays) -> np.ndarray:
    """The state before the first triple: int32 [B, K]."""
    if len(limits.end_ticks) != batch:
        raise ValueError(f"limits of {len(limits.end_ticks)} requests for a batch of {batch}")
    return np.zeros((batch, STATE_SIZE), np.int32)


def allowed(xp: Any, state: Array, slot: int, limits: LimitArrays) -> Array:
    """Which of the slot's ids may come next: bool [B, SLOT_WIDTHS[slot]], never empty in a row.

    All rows must stand at ``slot``; where :func:`forced` gives an id the mask has no say.
    """
    last, notes = state[:, _LAST_ONSET], state[:, _NOTES]
    heard = (notes > 0) | (state[:, _POINTER] > 0)
    if slot == ONSET_SLOT:
        floor, end = xp.maximum(state[:, _FLOOR], limits.start_ticks), limits.end_ticks
        more = (floor < end) & (notes < limits.max_notes)
        ticks = limits.ticks[None, :MAX_ONSET_TICKS]
        onsets = (ticks >= floor[:, None]) & (ticks < end[:, None]) & more[:, None]
        # A model that never learned to close would cram notes against the end: open the door a second before.
        separator = (heard & (limits.closes | (last + MAX_GAP_TICKS >= end))) | ~more
        return xp.concatenate((onsets, separator[:, None]), 1)
    if slot == DURATION_SLOT:
        return (limits.ticks[None, :MAX_DURATION_TICKS] >= 0) & (state[:, _PHASE] >= 0)[:, None]
    # A rest that did not move time on could be repeated for ever.
    rest = (state[:, _NO_LENGTH] > 0) & heard & (state[:, _ONSET] > last)
    allowed = xp.concatenate((limits.notes, rest[:, None]), 1)
    together = limits.distinct & (state[:, _ONSET] == last)
    # A note that is taken loses its column; where none is, the last column, which is the rest's, stands in for it.
    taken = xp.where(together[:, None] & (state[:, _RECENT:] > 0), state[:, _RECENT:] - 1, NOTES)
    rows = limits.ticks[: len(state), None]
    if hasattr(allowed, "at"):  # arrays of JAX are not written to
        return allowed.at[rows, taken].set(False).at[:, NOTES].set(rest)
    allowed[rows, taken] = False
    allowed[:, NOTES] = rest
    return allowed


def fold_end(xp: Any, logits: Array, limits: LimitArrays) -> Array:
    """Onset-slot logits [B, W] in which SEPARATOR has gathered the probability of every onset at or past the end.

    A mask alone would spread that probability over the last ticks before the end and pile up notes there; with this, a
    piece asked to last 10 seconds stops as often as the model would have gone on past 10 seconds.
    """
    onsets, separator = logits[:, :MAX_ONSET_TICKS], logits[:, MAX_ONSET_TICKS]
    past = xp.where(limits.ticks[None, :MAX_ONSET_TICKS] >= limits.end_ticks[:, None], onsets, -math.inf)
    peak = xp.maximum(xp.amax(past, 1), separator)
    folded = peak + xp.log(xp.sum(xp.exp(past - peak[:, None]), 1) + xp.exp(separator - peak))
    # Without a limit inside the window nothing is past the end; keep that case exact.
    folded = xp.where(limits.end_ticks < MAX_ONSET_TICKS, folded, separator)
    return xp.concatenate((onsets, folded[:, None]), 1)


def forced(xp: Any, state: Array, controls: Controls) -> Array:
    """The id that must come next, or FREE: int32 [B].

    Before each event stand the controls whose onset is at most the previous event's + 500 ticks (``anticipate`` of
    the reference); a closed sequence is SEPARATOR to the end.
    """
    phase = state[:, _PHASE]
    ahead = controls.ids[controls.rows, state[:, _POINTER]]
    due = ahead[:, 0] - CONTROL_OFFSET <= state[:, _LAST_ONSET] + ANTICIPATION_TICKS
    onset = xp.where(due, ahead[:, 0], FREE)
    rest = xp.where(state[:, _CONTROL] > 0, xp.where(phase == DURATION_SLOT, ahead[:, 1], ahead[:, 2]), FREE)
    return xp.where(state[:, _CLOSED] > 0, SEPARATOR, xp.where(phase == ONSET_SLOT, onset, rest))


def advance(xp: Any, state: Array, ids: Array, limits: LimitArrays) -> Array:
    """The state after one more id a row; ``ids`` are amt_ids [B] of the slot at which each row stands."""
    phase, last, at_tick = state[:, _PHASE], state[:, _LAST_ONSET], state[:, _AT_TICK]
    first, final = phase == ONSET_SLOT, phase == NOTE_SLOT
    closed = (state[:, _CLOSED] > 0) | (first & (ids == SEPARATOR))
    control = xp.where(first, (ids >= CONTROL_OFFSET) & ~closed, state[:, _CONTROL] > 0)
    onset = xp.where(first, xp.where(control, ids - CONTROL_OFFSET, ids), state[:, _ONSET])
    no_length = xp.where(phase == DURATION_SLOT, ids == DURATION_OFFSET, state[:, _NO_LENGTH] > 0)
    event = final & ~control & ~closed
    same = onset == last
    at_tick = xp.where(event, xp.where(same, at_tick, 0) + 1, at_tick)
    last = xp.where(event, onset, last)
    floor = xp.where(at_tick >= limits.max_onsets_per_tick, last + 1, last)
    no, yes = 0 * phase, 0 * phase + 1  # flags in the state's own integer type, whichever library it is
    columns = (
        xp.where(final, no, phase + 1),
        last,
        floor,
        onset,
        xp.where(control, yes, no),
        xp.where(no_length, yes, no),
        at_tick,
        xp.where(event & (ids != REST), state[:, _NOTES] + 1, state[:, _NOTES]),
        xp.where(final & control & ~closed, state[:, _POINTER] + 1, state[:, _POINTER]),
        xp.where(closed, yes, no),
        xp.where(event, ids - NOTE_OFFSET + 1, state[:, _RECENT]),
        *(
            xp.where(event, xp.where(same, state[:, column - 1], 0), state[:, column])
            for column in range(_RECENT + 1, STATE_SIZE)
        ),
    )
    return xp.stack(columns, 1)


def slots(state: Array) -> Array:
    """Slot of each row's next token: int32 [B]."""
    return state[:, _PHASE]


def controls_written(state: Array) -> Array:
    """How many of its controls each row holds: int32 [B], or a scalar of one state [K]."""
    return state[..., _POINTER]


def has_closed(state: Array) -> Array:
    """Which rows have ended: bool [B]."""
    return state[:, _CLOSED] > 0


def replay(amt_ids: Sequence[int] | np.ndarray, limits: Limits) -> np.ndarray:
    """The state after a whole sequence of triples: int32 [K], for music that an engine is to continue."""
    arrays = pack_limits([limits])
    state = start(1, arrays)
    for amt_id in np.asarray(amt_ids, np.int32):
        state = advance(np, state, amt_id[None], arrays)
    return state[0]


def _control_error(triples: np.ndarray) -> str | None:
    """What is wrong with control triples int32 [C, 3], or None."""
    low = CONTROL_OFFSET + np.array([0, DURATION_OFFSET, NOTE_OFFSET])
    outside = (triples < low) | (triples >= low + np.array([MAX_ONSET_TICKS, MAX_DURATION_TICKS, NOTES]))
    if not outside.any():
        return None
    index, slot = np.argwhere(outside)[0]
    return f"triple {index}: id {triples[index, slot]} is no control {('onset', 'duration', 'note')[slot]}"
