"""Rests, controls, weaving and windows, against the definitions written out as loops."""

import numpy as np
import pytest

from midillm_jax.music import anticipation
from midillm_jax.music.vocab import CONTROL_OFFSET, REST, SEPARATOR


def piece(seed: int, count: int = 60, programs: int = 4) -> np.ndarray:
    """Events with equal onsets, short steps and silences of several seconds."""
    rng = np.random.default_rng(seed)
    onsets = np.cumsum(rng.choice([0, 0, 13, 100, 101, 200, 730], count))
    notes = 128 * rng.integers(0, programs, count) + rng.integers(0, 128, count)
    return np.stack([onsets, 10_000 + rng.integers(0, 1000, count), 11_000 + notes], 1).astype(np.int32).reshape(-1)


def triples(events: np.ndarray) -> list[list[int]]:
    return events.reshape(-1, 3).tolist()


def flat(rows: list) -> np.ndarray:
    return np.array(rows, np.int32).reshape(-1)


EMPTY = flat([])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("beyond", [-50, 0, 100, 101, 777])
def test_pad_leaves_no_gap_over_100_ticks(seed, beyond):
    events = piece(seed)
    end = int(events[-3]) + beyond
    expected, now = [], 0
    for row in [*triples(events), None]:
        while (row[0] if row else end) > now + 100:
            now += 100
            expected.append([now, 10_000, REST])
        if row:
            expected.append(row)
            now = row[0]
    padded = anticipation.pad(events, end)
    assert triples(padded) == expected
    assert padded.dtype == np.int32


def test_pad_of_nothing():
    assert triples(anticipation.pad(EMPTY, 201)) == [[100, 10_000, REST], [200, 10_000, REST]]
    assert triples(anticipation.pad(EMPTY, 100)) == []


@pytest.mark.parametrize("seed", range(8))
def test_controls_stand_where_five_seconds_are_left(seed):
    rng = np.random.default_rng(seed)
    events, controls = anticipation.split(piece(seed), rng.random(60) < 0.4)
    if seed % 2:  # without rests some controls are left over
        events = anticipation.pad(events, int(piece(seed)[-3]))
    expected, waiting, now = [], triples(controls), 0
    for row in triples(events):
        while waiting and waiting[0][0] - CONTROL_OFFSET <= now + 500:
            expected.append(waiting.pop(0))
        expected.append(row)
        now = row[0]
    woven, left = anticipation.anticipate(events, controls)
    assert triples(woven) == expected
    assert triples(left) == waiting
    assert woven.dtype == np.int32


def test_a_control_of_five_seconds_is_woven_in_before_the_first_event():
    event = [3, 10_001, 11_000]
    for onset, place in ((500, 0), (501, 1)):
        row = [CONTROL_OFFSET + onset, CONTROL_OFFSET + 10_001, CONTROL_OFFSET + 11_000]
        woven, _ = anticipation.anticipate(flat([event, [600, 10_001, 11_000]]), flat([row]))
        assert triples(woven).index(row) == place


def test_a_late_control_holds_up_those_behind_it():
    rows = [[CONTROL_OFFSET + onset, 37_514, 38_513] for onset in (900, 10)]
    woven, _ = anticipation.anticipate(
        flat([[0, 10_001, 11_000], [450, 10_001, 11_000], [451, 10_001, 11_000]]), flat(rows)
    )
    assert [row[0] for row in triples(woven)] == [0, 450, CONTROL_OFFSET + 900, CONTROL_OFFSET + 10, 451]


def test_splitting_by_instrument():
    events = piece(0)
    rest, controls = anticipation.split_instruments(events, {0, 2})
    chosen = [row for row in triples(events) if (row[2] - 11_000) // 128 in (0, 2)]
    assert 0 < len(chosen) < 60
    assert triples(controls - CONTROL_OFFSET) == chosen
    assert triples(rest) == [row for row in triples(events) if row not in chosen]


def test_splitting_at_random_takes_tenths_of_the_notes():
    events = piece(0, count=3000)
    shares = {round(len(anticipation.split_random(events, np.random.default_rng(s))[1]) / 9000, 1) for s in range(60)}
    assert shares == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}


class Waits:
    """Stands for a generator whose exponential draws are known; the mean asked for is kept."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.means: list[float] = []

    def exponential(self, mean: float) -> float:
        self.means.append(mean)
        return self.seconds.pop(0)


def test_spans_last_five_seconds_and_wait_from_the_next_note():
    onsets = [100, 150, 299, 300, 799, 800, 810, 1000, 1309, 1400, 1500, 1501]
    events = flat([[onset, 10_001, 11_000] for onset in onsets])
    # 2 s from 1.00: the span 3.00-8.00. Then 0.059 s from 8.00: 8.10-13.10. Then 1.009 s from 14.00: 15.00 to the end.
    rng = Waits(2.0, 0.059, 1.009)
    rest, controls = anticipation.split_spans(events, rng)
    assert rest[0::3].tolist() == [100, 150, 299, 800, 1400]
    assert (controls[0::3] - CONTROL_OFFSET).tolist() == [300, 799, 810, 1000, 1309, 1500, 1501]
    assert rng.means == [20.0] * 3


def test_spans_of_another_length():
    events = flat([[onset, 10_001, 11_000] for onset in (0, 50, 149, 150, 700)])
    _, controls = anticipation.split_spans(events, Waits(0.5, 0.0, 9.0), span_ticks=100)
    assert (controls[0::3] - CONTROL_OFFSET).tolist() == [50, 149, 150]
    _, controls = anticipation.split_spans(events, Waits(0.5, 9.0), span_ticks=99)
    assert (controls[0::3] - CONTROL_OFFSET).tolist() == [50]


def test_a_span_may_begin_at_once():
    events = flat([[onset, 10_001, 11_000] for onset in (7, 507, 600)])
    _, controls = anticipation.split_spans(events, Waits(0.0, 0.5))
    assert (controls[0::3] - CONTROL_OFFSET).tolist() == [7, 600]


def test_spans_of_an_empty_piece():
    assert [len(part) for part in anticipation.split_spans(EMPTY, np.random.default_rng(0))] == [0, 0]


@pytest.mark.parametrize("kind", range(10))
def test_augmentations_keep_every_note(kind):
    events = piece(3)
    rest, controls = anticipation.augment(events, kind, np.random.default_rng(kind))
    assert sorted(triples(rest) + triples(controls - CONTROL_OFFSET)) == sorted(triples(events))
    by_instrument = set(range(4)) - set(anticipation.programs(rest).tolist())
    if kind == 0:
        assert len(controls) == 0
    elif kind >= 6:
        assert by_instrument == set(anticipation.programs(controls - CONTROL_OFFSET).tolist())
        assert 1 <= len(by_instrument) <= 3
    else:
        assert 0 < len(controls) < len(events)


def test_every_number_of_instruments_but_all_is_chosen():
    events = piece(3)
    counts = {
        len(anticipation.programs(anticipation.augment(events, 6, np.random.default_rng(seed))[0]))
        for seed in range(40)
    }
    assert counts == {1, 2, 3}


def test_one_instrument_is_never_taken_away():
    events = piece(3, programs=1)
    assert len(anticipation.augment(events, 9, np.random.default_rng(0))[1]) == 0


def test_the_same_seed_chooses_the_same_controls():
    events = piece(5)
    for kind in range(1, 10):
        first, second = (anticipation.augment(events, kind, np.random.default_rng(8))[1] for _ in range(2))
        assert first.tolist() == second.tolist()


def test_programs_come_in_order_of_their_first_note():
    events = flat([[0, 10_000, 11_000 + 128 * program] for program in (40, 128, 40, 0)])
    assert anticipation.programs(events).tolist() == [40, 128, 0]


def woven_piece() -> np.ndarray:
    events, controls = anticipation.split_instruments(piece(1, count=200), [1])
    return anticipation.anticipate(anticipation.pad(events, int(piece(1, count=200)[-3])), controls)[0]


def test_translate_moves_onsets_only():
    rows = flat([[5, 10_001, 11_000], [CONTROL_OFFSET + 9, 37_514, 38_513], [SEPARATOR] * 3])
    moved = triples(anticipation.translate(rows, 7))
    assert moved == [[12, 10_001, 11_000], [CONTROL_OFFSET + 16, 37_514, 38_513], [SEPARATOR] * 3]
    assert rows[0] == 5


def test_clip_keeps_what_begins_inside_and_cuts_what_sounds_on():
    rows = flat(
        [[9, 10_500, 11_000], [10, 10_500, 11_000], [CONTROL_OFFSET + 15, 37_513 + 6, 38_513], [20, 10_003, 11_001]]
    )
    clipped = anticipation.clip(rows, 10, 20)
    assert triples(clipped) == [[10, 10_010, 11_000], [CONTROL_OFFSET + 15, 37_513 + 5, 38_513], [20, 10_000, 11_001]]
    assert triples(anticipation.clip(rows, 21, 30)) == []
    assert rows[4] == 10_500


@pytest.mark.parametrize("start", [0, 1, 50, 170])
@pytest.mark.parametrize("length", [1, 20, 10_000])
def test_windows_begin_at_zero_and_fit(start, length):
    whole = woven_piece()
    window = anticipation.window(whole, start, length)
    times, absolute = anticipation.onsets(window), anticipation.onsets(whole)
    count = len(window) // 3
    assert 0 < count <= length
    assert times.min() >= 0
    assert times.max() < 10_000
    assert times.min() == 0 or start == 0
    shift = absolute[start] - times[0]
    assert (start == 0) <= (shift == 0)
    assert window.tolist() == anticipation.translate(whole[3 * start : 3 * (start + count)], -int(shift)).tolist()
    if count < length and start + count < len(absolute):  # ended by the 100 seconds: one more would not fit
        longer = absolute[start : start + count + 1]
        assert longer.max() - (longer.min() if start else 0) >= 10_000


def test_a_window_after_the_end_or_before_a_late_first_note_is_empty():
    late = flat([[10_000, 10_001, 11_000]])
    assert len(anticipation.window(late, 0, 5)) == 0
    assert len(anticipation.window(late, 1, 5)) == 0
    assert triples(anticipation.window(flat([[5, 10_001, 11_000], *triples(late)]), 1, 5)) == [[0, 10_001, 11_000]]
