"""Music with a beat that is known."""

import numpy as np

from midillm_jax.music.midi import NoteTable


def groove(beat: float, beats: int, bars: int = 16, start: float = 0.0, jitter: float = 0.0) -> NoteTable:
    """A kick on every bar line, hats on half beats, a chord on the other beats."""
    rng = np.random.default_rng(0)
    rows = []
    for half in range(2 * beats * bars):
        onset = start + half * beat / 2 + rng.normal(0, jitter)
        rows.append((onset, 10, 128 * 128 + 42))
        if half % (2 * beats) == 0:
            rows.append((onset, 10, 128 * 128 + 36))
            rows.append((onset, round(beat * beats), 128 * 33 + 40))
        elif half % 2 == 0:
            rows.append((onset, 20, 64))
    rows.sort()
    onsets, durations, notes = (np.array(column) for column in zip(*rows, strict=True))
    onsets = np.maximum(np.rint(onsets), 0).astype(np.int32)
    return NoteTable(onsets, durations.astype(np.int32), notes.astype(np.int32), np.full(len(rows), 72, np.uint8))
