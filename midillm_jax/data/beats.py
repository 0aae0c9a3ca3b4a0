"""Where the beats and bars of a piece lie, from the file's own tempos and meters, and whether its notes keep them."""

from dataclasses import dataclass

import numpy as np

from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import TICKS_PER_SECOND

_DEFAULT_METER = (4, 4)
"""What a MIDI file means where it says nothing."""
_SHORTEST_TEMPO = 10_000
"""Microseconds a quarter note; a shorter one is a slip, not a tempo."""
_MOST_BEATS = 20_000
_SLIVER = 0.05
"""Share of a beat that rounding may leave over in front of a new meter."""
_DIVISIONS = (1, 2, 3, 4, 6, 8, 12)
"""Parts of a quarter note on which notes may gather."""
_KEPT = 0.2
"""Least concentration of onsets on one of those divisions: played freely about 0, notated or to a click 0.3 to 1."""
_JUDGED_NOTES = 32
"""Notes from which that is more than chance."""


@dataclass(frozen=True)
class Grid:
    """The beats of a piece, in order, without gaps."""

    edges: np.ndarray
    """float64 [beats + 1], ticks of 10 ms: beat i lasts from edge i to edge i + 1."""
    bars: np.ndarray
    """int64 [beats], non-decreasing: the bar of each beat."""


def quarters_at(table: NoteTable, ticks: np.ndarray) -> np.ndarray:
    """float64: how many quarter notes have passed at these ticks."""
    times, tempos, counted = _clock(table)
    row = np.searchsorted(times, ticks, side="right") - 1
    return counted[row] + (ticks - times[row]) / tempos[row]


def _clock(table: NoteTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each tempo: its tick, the ticks that a quarter note lasts, and the quarter notes before it."""
    times = table.tempos[:, 0].astype(np.float64)
    tempos = np.maximum(table.tempos[:, 1], _SHORTEST_TEMPO) * (TICKS_PER_SECOND / 1e6)
    return times, tempos, np.concatenate([[0.0], np.cumsum(np.diff(times) / tempos[:-1])])


def keeps_time(table: NoteTable) -> bool:
    """Whether the notes follow the file's tempos.

    A recorded performance that was never put on a grid, or a game's music in units of its own, carries a tempo that
    means nothing. Its onsets spread evenly over the beat; of music that was notated, or played to a click, they gather
    on the beat's parts. True for fewer notes than can tell.
    """
    if len(table) < _JUDGED_NOTES:
        return True
    angles = 2j * np.pi * quarters_at(table, table.onsets)
    return any(abs(np.exp(division * angles).mean()) >= _KEPT for division in _DIVISIONS)


def beat_grid(table: NoteTable) -> Grid | None:
    """The beats until the last note's end; None where there would be tens of thousands, or none.

    Meters over eighths and shorter notes with a count of 6, 9, 12 ... have beats of three.
    """
    end = float((table.onsets + table.durations).max()) + 1
    meters = table.meters[table.meters[:, 0] < end].tolist()
    if not meters or meters[0][0] > 0:
        meters = [[0, *_DEFAULT_METER], *meters]
    starts = quarters_at(table, np.array([*(onset for onset, _, _ in meters), end], np.float64))
    beats: list[np.ndarray] = []
    bars: list[np.ndarray] = []
    first_bar = total = 0
    for (_, numerator, denominator), start, stop in zip(meters, starts[:-1], starts[1:], strict=True):
        parts = 3 if denominator >= 8 and numerator > 3 and numerator % 3 == 0 else 1
        length = parts * 4 / denominator
        count = int(np.ceil((stop - start) / length - _SLIVER))
        total += count
        if total > _MOST_BEATS:
            return None
        if count < 1:
            continue
        beats.append(start + length * np.arange(count))
        bars.append(first_bar + np.arange(count) // (numerator // parts))
        first_bar = int(bars[-1][-1]) + 1
    if not total:
        return None
    times, tempos, counted = _clock(table)
    quarters = np.append(np.concatenate(beats), starts[-1])
    row = np.searchsorted(counted, quarters, side="right") - 1
    edges = np.maximum.accumulate(times[row] + (quarters - counted[row]) * tempos[row])
    return Grid(edges, np.concatenate(bars))
