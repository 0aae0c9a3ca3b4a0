"""Repetition, where it is known how much there is."""

import numpy as np
import pytest

from midillm_jax.evaluation.structure import fitness, seconds_chroma, similarity, structureness
from midillm_jax.music.midi import NoteTable


def seconds(pitches: list[int]) -> NoteTable:
    """One piano note a second."""
    count = len(pitches)
    columns = np.arange(count) * 100, np.full(count, 100), np.array(pitches, int)
    return NoteTable(*(column.astype(np.int32) for column in columns), np.full(count, 80, np.uint8))


def by_hand(similarities: np.ndarray, start: int, length: int) -> float:
    """Fitness of one segment by the recurrence as it is printed, cell by cell."""
    total = len(similarities)
    dead = (-np.inf, 0, 0)
    table = {(n, m): dead for n in range(-2, total) for m in range(length)}
    waiting = (0.0, 0, 0)
    for n in range(total):
        waiting = max(waiting, table[n - 1, length - 1], key=lambda state: state[0])
        for m in range(length):
            gain = similarities[n, start + m]
            if m == 0:
                options = [(waiting, 1)]
            else:
                options = [(table[n - 1, m - 1], 1), (table[n - 2, m - 1], 2)]
                options += [(table[n - 1, m - 2], 1)] if m > 1 else []
            (score, cells, rows), step = max(options, key=lambda option: option[0][0])
            table[n, m] = (score + gain, cells + 1, rows + step)
    score, cells, rows = max(waiting, table[total - 1, length - 1], key=lambda state: state[0])
    normalised, covered = max(score - length, 0) / max(cells, 1), max(rows - length, 0) / total
    return 2 * normalised * covered / (normalised + covered) if normalised + covered else 0.0


def test_dynamic_programming_is_the_printed_recurrence() -> None:
    rng = np.random.default_rng(0)
    similarities = similarity(np.abs(rng.normal(size=(14, 3))) / 2)
    best = fitness(similarities)
    assert len(best) == 7
    expected = [max(by_hand(similarities, start, length) for start in range(15 - length)) for length in range(1, 8)]
    assert best == pytest.approx(np.array(expected))
    assert best.max() > 0.1


@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_segment_played_several_times(times: int) -> None:
    """Ten seconds, each of another pitch class: all but one playing is explained, so (times - 1) / times."""
    found = structureness(seconds(list(range(60, 70)) * times))
    assert found is not None
    assert found.medium == pytest.approx((times - 1) / times)


def test_nothing_comes_back() -> None:
    found = structureness(seconds([*range(60, 72)]))
    assert found is not None
    assert found.short == pytest.approx(0)
    assert found.medium is None


def test_seconds_in_another_order_have_less_structure() -> None:
    phrase = [60, 64, 67, 65, 69, 72, 71, 62, 66, 70]
    order = np.random.default_rng(1).permutation(4 * phrase).tolist()
    played, shuffled = structureness(seconds(4 * phrase)), structureness(seconds(order))
    assert played is not None
    assert shuffled is not None
    assert played.medium is not None
    assert shuffled.medium is not None
    assert played.medium > shuffled.medium + 0.3


def test_chroma_of_a_second() -> None:
    """C for a whole second over a G for half of it, an octave apart; then silence, then C and what reaches past it."""
    columns = [0, 0, 200], [100, 50, 100], [60, 79, 48]
    table = NoteTable(*(np.array(column, np.int32) for column in columns), np.full(3, 80, np.uint8))
    chroma = seconds_chroma(table)
    assert chroma.shape == (3, 12)
    assert chroma[0, [0, 7]] == pytest.approx(np.array([2, 1]) / np.sqrt(5))
    assert not chroma[1].any()
    assert chroma[2, 0] == 1


def test_drums_alone_have_none() -> None:
    table = seconds([60] * 20)
    drums = NoteTable(table.onsets, table.durations, table.notes + 128 * 128, table.velocities)
    assert structureness(drums) is None
    assert structureness(seconds([60, 62])) is None
