"""Which notes a model is told in advance, and how they are woven into the music: pure functions of (events, rng).

Events and controls are flat int32 [3n] of AMT ids, sorted by onset, without rests or separators unless said. See
"Anticipatory Music Transformer", arXiv 2306.08620, sections 3 and 4.
"""

from collections.abc import Collection

import numpy as np

from midillm_jax.music.vocab import (
    ANTICIPATION_TICKS,
    CONTROL_OFFSET,
    DURATION_OFFSET,
    MAX_GAP_TICKS,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    PITCHES,
    PROGRAMS,
    REST,
    SEPARATOR,
    TICKS_PER_SECOND,
)

SPANS_PER_SECOND = 0.05
SPAN_TICKS = 500
AUGMENTATIONS = 10
"""One of ten ways to choose the controls of a piece; see :func:`augment`."""


def programs(events: np.ndarray) -> np.ndarray:
    """The programs that play, int [k], in order of their first note."""
    found, first = np.unique((events[2::3] - NOTE_OFFSET) // PITCHES, return_index=True)
    return found[np.argsort(first)]


def onsets(events: np.ndarray) -> np.ndarray:
    """Onsets in ticks, of events and controls alike, int32 [n]; the note id tells which of the two an id is."""
    return events[0::3] - np.where(events[2::3] >= CONTROL_OFFSET, CONTROL_OFFSET, 0).astype(np.int32)


def translate(events: np.ndarray, ticks: int) -> np.ndarray:
    """Events and controls that begin ``ticks`` later (earlier if negative); separators stay as they are."""
    moved = events.copy()
    moved[0::3] += np.where(events[2::3] == SEPARATOR, 0, ticks).astype(np.int32)
    return moved


def clip(events: np.ndarray, start_ticks: int, end_ticks: int) -> np.ndarray:
    """Events and controls that begin from ``start_ticks`` to ``end_ticks``, none of them sounding longer than that."""
    times = onsets(events)
    inside = (times >= start_ticks) & (times <= end_ticks)
    clipped = events.reshape(-1, 3)[inside]
    # A control's duration id is larger by as much as its note id.
    offset = DURATION_OFFSET + np.where(clipped[:, 2] >= CONTROL_OFFSET, CONTROL_OFFSET, 0)
    clipped[:, 1] = np.minimum(clipped[:, 1], offset + end_ticks - times[inside])
    return clipped.reshape(-1)


def window(events: np.ndarray, start: int, length: int) -> np.ndarray:
    """At most ``length`` triples from triple ``start`` on, for a sequence of its own.

    Onsets are relative to the window's earliest, but absolute in a window that begins the piece. The window ends
    before the first triple whose onset does not fit into 10,000 ticks. The piece is complete in it if it reaches the
    last triple: ``start + len(window) // 3 == len(events) // 3``.
    """
    cut = events[3 * start : 3 * (start + length)]
    times = onsets(cut)
    origin = np.minimum.accumulate(times) if start else np.zeros_like(times)
    # The origin itself moves down if an event precedes the control woven in before it.
    reach = np.maximum.accumulate(times) - origin
    fits = int(np.searchsorted(reach, MAX_ONSET_TICKS))
    return translate(cut[: 3 * fits], -int(origin[fits - 1])) if fits else cut[:0]


def pad(events: np.ndarray, end_ticks: int) -> np.ndarray:
    """Events with a rest after every 100 ticks without an onset, up to ``end_ticks``."""
    times = events[0::3].astype(np.int64)
    before = np.concatenate([[0], times])
    after = np.append(times, end_ticks)
    rests = np.maximum(after - before - 1, 0) // MAX_GAP_TICKS
    if not rests.any():
        return events
    place = np.repeat(np.arange(len(after)), rests)
    nth = np.arange(len(place)) - np.repeat(np.cumsum(rests) - rests, rests) + 1
    rows = np.stack(
        [before[place] + nth * MAX_GAP_TICKS, np.full_like(place, DURATION_OFFSET), np.full_like(place, REST)]
    )
    return np.insert(events.reshape(-1, 3), place, rows.T, axis=0).reshape(-1)


def anticipate(events: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weaves controls into (padded) events: each follows the first event that begins 500 ticks before it or later.

    Returns the woven sequence and the controls left over because the events end too early; padding the events to the
    end of the piece leaves none unless the piece has no event and ends within a rest's length.
    """
    # Controls keep their order, so one that comes late holds up those behind it.
    due = np.maximum.accumulate(onsets(controls)) - ANTICIPATION_TICKS
    before = np.concatenate([[0], events[0::3]])[:-1]
    place = np.searchsorted(before, due)
    consumed = int(np.searchsorted(place, len(before)))
    rows = controls.reshape(-1, 3)[:consumed]
    woven = np.insert(events.reshape(-1, 3), place[:consumed], rows, axis=0).reshape(-1)
    return woven, controls[3 * consumed :]


def weave(events: np.ndarray, controls: np.ndarray, end_ticks: int) -> np.ndarray:
    """What stands in a sequence: rests in the gaps up to ``end_ticks``, controls ahead of their time.

    Controls due after the last event or rest are left out. Nothing is a rest before something is heard.
    """
    padded = pad(events, end_ticks)
    due = onsets(controls)
    if not len(due) or due[0] > ANTICIPATION_TICKS:
        heard = padded[2::3] != REST
        padded = padded[3 * int(np.argmax(heard)) :] if heard.any() else padded[:0]
    return anticipate(padded, controls)[0] if len(due) else padded


def split(events: np.ndarray, is_control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Events that stay events, and those marked (bool [n]) as controls."""
    triples = events.reshape(-1, 3)
    return triples[~is_control].reshape(-1), (triples[is_control] + np.int32(CONTROL_OFFSET)).reshape(-1)


def split_instruments(events: np.ndarray, chosen: Collection[int]) -> tuple[np.ndarray, np.ndarray]:
    """All notes of the chosen programs become controls."""
    is_chosen = np.zeros(PROGRAMS, bool)
    is_chosen[list(chosen)] = True
    return split(events, is_chosen[(events[2::3] - NOTE_OFFSET) // PITCHES])


def split_random(events: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Notes become controls one by one, with a probability drawn from .1, .2 ... .9."""
    probability = rng.integers(1, 10) / 10
    return split(events, rng.random(len(events) // 3) < probability)


def split_spans(
    events: np.ndarray,
    rng: np.random.Generator,
    spans_per_second: float = SPANS_PER_SECOND,
    span_ticks: int = SPAN_TICKS,
) -> tuple[np.ndarray, np.ndarray]:
    """All notes within spans of ``span_ticks`` (at least 1) become controls; the time between spans is exponential."""
    times = events[0::3]
    is_control = np.zeros(len(times), bool)
    end = 0
    while end < len(times):
        # The wait is counted from the first note behind the span before.
        wait = int(TICKS_PER_SECOND * rng.exponential(1 / spans_per_second))
        first = int(np.searchsorted(times, times[end] + wait))
        if first == len(times):
            break
        end = int(np.searchsorted(times, times[first] + span_ticks))
        is_control[first:end] = True
    return split(events, is_control)


def augment(events: np.ndarray, kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Events and controls by one of the reference's ten augmentations.

    Kind 0 chooses nothing; 1 chooses spans; 2-5 random notes; 6-9 whole instruments, at least one and not all
    (nothing where there is only one).
    """
    if kind == 1:
        return split_spans(events, rng)
    if 2 <= kind <= 5:
        return split_random(events, rng)
    playing = programs(events)
    if 6 <= kind < AUGMENTATIONS and len(playing) > 1:
        return split_instruments(events, rng.choice(playing, 1 + rng.integers(len(playing) - 1), replace=False))
    return events, events[:0]
