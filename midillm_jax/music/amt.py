"""Notes to and from the ids of the Anticipatory Music Transformer, arrival-time encoding.

An event is (onset, duration, note); controls are the same ids plus 27,513. Onsets here are absolute and may exceed
the 10,000 ticks that a model's window has: :mod:`midillm_jax.music.anticipation` cuts windows.
"""

from collections import defaultdict

import mido
import numpy as np

from midillm_jax.music.midi import DRUM_CHANNEL, NOTE_OFF_VELOCITY, NoteTable, read_midi, save_midi, write_midi
from midillm_jax.music.vocab import (
    CONTROL_OFFSET,
    DRUM_PROGRAM,
    DURATION_OFFSET,
    MAX_DURATION_TICKS,
    NOTE_OFFSET,
    NOTES,
    PITCHES,
    REST,
    SEPARATOR,
    TICKS_PER_SECOND,
)

DEFAULT_VELOCITY = 72
"""What decoded notes get: the ids hold no velocity."""


def encode_midi(data: bytes, *, compiled: bool = False) -> np.ndarray:
    """The events of a MIDI file, int32 [3n]; see :func:`~midillm_jax.music.midi.read_midi`, which raises MidiError."""
    return encode_notes(read_midi(data, compiled=compiled))


def encode_notes(table: NoteTable) -> np.ndarray:
    """The events of a note table in its order, int32 [3n]."""
    events = np.empty((len(table), 3), np.int32)
    events[:, 0] = table.onsets
    np.add(table.durations, DURATION_OFFSET, out=events[:, 1])
    np.add(table.notes, NOTE_OFFSET, out=events[:, 2])
    return events.reshape(-1)


def decode_notes(amt_ids: np.ndarray) -> NoteTable:
    """The notes among any ids, controls included, sorted by onset.

    A note is an onset followed by a duration and a note id of its kind (event or control); whatever else stands
    between, before or behind is passed over: flags, rests, separators, an unfinished triple, ids out of place.
    The note id tells a control from an event, as an absolute onset may be any number.
    """
    ids = np.asarray(amt_ids, np.int32).reshape(-1)
    onset, duration, note = ids[:-2], ids[1:-1], ids[2:]
    starts: list[np.ndarray] = []
    for offset in (0, CONTROL_OFFSET):
        is_duration = (duration >= offset + DURATION_OFFSET) & (
            duration < offset + DURATION_OFFSET + MAX_DURATION_TICKS
        )
        is_note = (note >= offset + NOTE_OFFSET) & (note < offset + NOTE_OFFSET + NOTES)
        starts.append(np.flatnonzero(is_duration & is_note & (onset >= offset)))
    start = _without_overlap(np.sort(np.concatenate(starts)))
    events = np.stack([onset[start], duration[start], note[start]])
    events -= np.where(events[2] >= CONTROL_OFFSET, CONTROL_OFFSET, 0)
    onset, duration, note = events[:, np.argsort(events[0], kind="stable")]
    velocities = np.full(len(onset), DEFAULT_VELOCITY, np.uint8)
    return NoteTable(onset, duration - DURATION_OFFSET, note - NOTE_OFFSET, velocities)


def _without_overlap(starts: np.ndarray) -> np.ndarray:
    """Starts of triples at least three apart, the earlier of two that overlap (possible among ids out of place)."""
    if not (np.diff(starts) < 3).any():
        return starts
    kept: list[int] = []
    for start in starts.tolist():
        if not kept or start >= kept[-1] + 3:
            kept.append(start)
    return np.array(kept, np.int64)


def decode_midi(amt_ids: np.ndarray, compat: bool = False) -> bytes:
    """A MIDI file of ids; any ids give a file, without notes if they hold none.

    ``compat`` writes what the reference's ``events_to_midi`` writes, byte for byte, faults included: events whose
    onset passes 275.13 seconds move, note-ons precede note-offs at equal ticks, drums use up a melodic channel.
    It raises ValueError where the reference raises: no notes, a flag in front, more programs than channels.
    """
    return _reference_midi(amt_ids) if compat else write_midi(decode_notes(amt_ids))


def _reference_midi(amt_ids: np.ndarray) -> bytes:
    ids = np.asarray(amt_ids, np.int64).reshape(-1)
    triples = ids[: len(ids) // 3 * 3].reshape(-1, 3)
    triples = triples[triples[:, 2] != REST]
    is_separator = triples == SEPARATOR
    triples = np.where(triples >= CONTROL_OFFSET, triples - CONTROL_OFFSET, triples) - [0, DURATION_OFFSET, NOTE_OFFSET]
    notes = triples[~is_separator.any(1)]
    if not len(notes):
        raise ValueError("compat: there are no notes, which the reference cannot write")
    out_of_place = (notes < 0).any() or (notes[:, 1] >= MAX_DURATION_TICKS).any() or (notes[:, 2] >= NOTES).any()
    if out_of_place or (is_separator.any(1) != is_separator.all(1)).any():
        raise ValueError("compat: an id is out of place (a flag in front?), which the reference cannot write")

    # Pieces behind a separator follow the end of the one before.
    shift = end = 0
    events: list[tuple[int, int, int]] = []
    for (onset, duration, note), ends_piece in zip(triples.tolist(), is_separator[:, 2].tolist(), strict=True):
        if ends_piece:
            shift, end = shift + end, 0
        else:
            end = max(end, onset + duration)
            events.append((onset + shift, duration, note))

    agenda: dict[tuple[int, int], list[int]] = defaultdict(list)  # (tick, off after on) -> notes
    for onset, duration, note in events:
        agenda[onset, 0].append(note)
        agenda[onset + duration, 1].append(note)
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_SECOND // 2)
    tracks: dict[int, tuple[mido.MidiTrack, int]] = {}
    last: dict[int, int] = {}
    counted = 0
    for tick, is_off in sorted(agenda):
        for note in agenda[tick, is_off]:
            program, pitch = divmod(note, PITCHES)
            if program not in tracks:
                channel = DRUM_CHANNEL if program == DRUM_PROGRAM else counted
                if channel > 15:
                    raise ValueError("compat: there are more programs than channels, which the reference cannot write")
                counted += 2 if counted == DRUM_CHANNEL - 1 else 1
                tracks[program] = file.add_track(), channel
                last[program] = 0
                patch = 0 if program == DRUM_PROGRAM else program
                tracks[program][0].append(mido.Message("program_change", channel=channel, program=patch))
            track, channel = tracks[program]
            kind, velocity = ("note_off", NOTE_OFF_VELOCITY) if is_off else ("note_on", DEFAULT_VELOCITY)
            delta = tick - last[program]
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=delta))
            last[program] = tick
    return save_midi(file)
