"""A tempo and a key that were asked for as such: the music is played faster or slower, and moved, until it has them."""

import dataclasses

import numpy as np

from midillm_jax.data.tonality import Key, estimate_key, tuned
from midillm_jax.errors import UserError
from midillm_jax.evaluation.asked import parse_key
from midillm_jax.evaluation.control import relative_key
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.timing import find_pulse
from midillm_jax.music.vocab import MAX_DURATION_TICKS, PITCHES

SLOWEST, FASTEST = 20.0, 400.0
"""Quarter notes a minute."""


def key_named(name: str) -> Key:
    """The key of a name such as "A minor".

    Raises:
        UserError: it is none.
    """
    key = parse_key(name)
    if key is None:
        raise UserError(f"{name!r} is no key; write one such as 'A minor' or 'Eb major'")
    return key


def at_tempo(table: NoteTable, bpm: float) -> tuple[NoteTable, str]:
    """The notes at so many quarter notes a minute, and what was done.

    The beat is the one that is heard (music/timing.py), its half or its double, whichever is nearest: times are scaled
    by a half more or a third less at most.
    """
    pulse = find_pulse(table) if len(table) else None
    if pulse is None:
        return table, "no beat is heard, so its tempo was left"
    found = 60e6 / pulse.microseconds
    found *= min((0.5, 1.0, 2.0), key=lambda factor: abs(np.log(found * factor / bpm)))
    scale = found / bpm
    durations = np.minimum(np.rint(table.durations * scale), MAX_DURATION_TICKS - 1)
    moved = dataclasses.replace(
        table,
        onsets=np.rint(table.onsets * scale).astype(np.int32),
        durations=durations.astype(np.int32),
    )
    return moved, f"from {found:.0f} to {bpm:g} bpm"


def in_key(table: NoteTable, key: Key) -> tuple[NoteTable, str]:
    """The notes moved to a key by half an octave at most, and what was done.

    Where the piece is heard in the other mode it gets the relative key, which has the same notes. Drums and sound
    effects have no pitch and stay; a note that would leave the keyboard goes an octave back.
    """
    estimate = estimate_key(table) if len(table) else None
    if estimate is None:
        return table, "no key is heard, so its pitches were left"
    goal = key if estimate.key.mode == key.mode else relative_key(key)
    semitones = (goal.tonic - estimate.key.tonic + 6) % 12 - 6
    pitches = table.notes % PITCHES + np.where(tuned(table), semitones, 0)
    pitches += 12 * (pitches < 0) - 12 * (pitches >= PITCHES)
    notes = (table.notes // PITCHES * PITCHES + pitches).astype(np.int32)
    name = goal.name if goal == key else f"{goal.name}, the relative of {key.name}"
    return dataclasses.replace(table, notes=notes), f"{semitones:+d} semitones, from {estimate.key.name} to {name}"
