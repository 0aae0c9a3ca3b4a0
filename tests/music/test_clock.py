"""Seconds, bars, and places in a file as people write them. Files are written byte by byte."""

import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.clock import bar_lines, bar_map, bars, music_end, place, span, tempo_map
from midillm_jax.music.midi import read_midi
from midillm_jax.music.score import Event, read_score
from tests.music.files import meter, smf, tempo, timed


def test_seconds_follow_the_tempos_of_all_tracks() -> None:
    # Half a second a beat; from beat 2 on a whole one; from beat 4 on a quarter.
    score = read_score(smf(timed((0, meter(4, 4)), (960, tempo(1_000_000))), timed((1920, tempo(250_000)))))
    clock = tempo_map(score)
    ticks = [0, 480, 960, 1440, 1920, 2400]
    assert [clock.seconds(tick) for tick in ticks] == [0, 0.5, 1, 2, 3, 3.25]
    assert [clock.tick(seconds) for seconds in (0, 0.5, 1, 2, 3, 3.25)] == ticks
    assert clock.tick(1.0009) == 960  # 2.08 ms a tick there
    assert all(clock.tick(clock.seconds(tick)) == tick for tick in range(3000))


def test_of_tempos_at_one_tick_the_last_counts_and_none_at_0_is_120_bpm() -> None:
    score = read_score(smf(timed((480, tempo(250_000))), timed((480, tempo(1_000_000)))))
    assert tempo_map(score).seconds(960) == 1.5


def test_time_that_stands_still_has_a_last_tick() -> None:
    clock = tempo_map(read_score(smf(timed((480, tempo(0)), (960, tempo(500_000))))))
    assert (clock.seconds(480), clock.seconds(960), clock.seconds(1440)) == (0.5, 0.5, 1)
    assert clock.tick(0.5) == 960


def test_seconds_are_those_that_the_tokenizer_hears() -> None:
    data = smf(
        timed((0, tempo(123_457)), (777, tempo(654_321))), timed((700, b"\x90\x3c\x64"), (5000, b"\x80\x3c\x00"))
    )
    table = read_midi(data)
    clock = tempo_map(read_score(data))
    assert round(100 * clock.seconds(700)) == table.onsets[0]
    assert round(100 * (clock.seconds(5000) - clock.seconds(700))) == table.durations[0]


def starts(*meters: tuple[int, bytes], last: int = 8) -> dict[int, int]:
    """Bar -> first tick, of bars that a file with these time signatures has."""
    bar = bar_map(read_score(smf(timed(*meters))))
    assert all(bar.bar(bar.start(n)) == n for n in range(bar.numbers[0], last))
    assert all(bar.bar(bar.start(n) - 1) == n - 1 for n in range(bar.numbers[0] + 1, last))
    return {n: bar.start(n) for n in range(bar.numbers[0], last)}


def test_bars_are_of_four_beats_unless_said() -> None:
    assert starts(last=4) == {1: 0, 2: 1920, 3: 3840}


def test_bars_follow_their_meters() -> None:
    changes = (0, meter(3, 4)), (2880, meter(6, 8)), (4320, meter(7, 16)), (5160, meter(2, 2))
    assert starts(*changes, last=7) == {1: 0, 2: 1440, 3: 2880, 4: 4320, 5: 5160, 6: 7080}


def test_a_meter_begins_a_bar_even_in_the_middle_of_one() -> None:
    assert starts((0, meter(4, 4)), (2400, meter(3, 4)), last=5) == {1: 0, 2: 1920, 3: 2400, 4: 3840}


def test_a_meter_said_again_changes_nothing() -> None:
    assert starts((0, meter(4, 4)), (2400, meter(4, 4)), last=4) == {1: 0, 2: 1920, 3: 3840}


@pytest.mark.parametrize(
    "pickup",
    [
        pytest.param(((0, meter(1, 4)), (480, meter(4, 4))), id="a short first bar"),
        pytest.param(((0, meter(4, 4)), (480, meter(3, 4))), id="a first bar cut short"),
    ],
)
def test_a_pickup_is_bar_0(pickup: tuple[tuple[int, bytes], ...]) -> None:
    assert list(starts(*pickup, last=2).items()) == [(0, 0), (1, 480)]


def test_two_bars_of_a_shorter_meter_are_no_pickup() -> None:
    assert starts((0, meter(1, 4)), (960, meter(4, 4)), last=4) == {1: 0, 2: 480, 3: 960}


def test_a_first_bar_that_is_not_shorter_than_the_next_is_no_pickup() -> None:
    assert starts((0, meter(4, 4)), (1920, meter(3, 4)), last=4) == {1: 0, 2: 1920, 3: 3360}
    assert starts((0, meter(6, 8)), (1440, meter(3, 4)), last=4) == {1: 0, 2: 1440, 3: 2880}


def test_bars_that_are_not_whole_ticks_do_not_drift() -> None:
    bar = bar_map(read_score(smf(timed((0, meter(5, 32))), division=1)))  # 0.625 ticks, but never less than one
    assert [bar.start(n) for n in (1, 2, 3)] == [0, 1, 2]
    bar = bar_map(read_score(smf(timed((0, meter(5, 16))), division=10)))  # 12.5 ticks
    assert [bar.start(n) for n in (1, 2, 3, 4, 81)] == [0, 12, 25, 38, 1000]
    assert [bar.bar(tick) for tick in (11, 12, 24, 25, 37, 38, 999, 1000)] == [1, 2, 2, 3, 3, 4, 80, 81]


SONG = read_score(smf(timed((0, meter(4, 4)), (0, tempo(500_000)), (8 * 1920 - 100, b"\x80\x3c\x00"))), "song.mid")
"""Eight bars of two seconds; its last event is in the eighth."""


@pytest.mark.parametrize(
    ("text", "tick"),
    [
        ("0s", 0),
        ("3s", 2880),
        (" 1.5 S ", 1440),
        (".5s", 480),
        ("2 seconds", 1920),
        ("0:03", 2880),
        ("0:03.5", 3360),
        ("bar 1", 0),
        ("Bar 8", 7 * 1920),
        ("bar9", 8 * 1920),
        ("16s", 8 * 1920),
    ],
)
def test_places(text: str, tick: int) -> None:
    assert place(SONG, text) == tick


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("30", "'30' is no place; write seconds"),
        ("", "'' is no place"),
        ("-3s", "is no place"),
        ("0:75", "is no place"),
        ("beat 3", "is no place"),
        ("bar 0", "names bar 0, but the first is bar 1"),
        ("bar 10", "beyond its end; it has bars 1 to 8, which take 16.0 seconds"),
        ("16.1s", "beyond its end"),
        ("99999999999:00", "beyond its end"),
    ],
)
def test_places_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^song\.mid: .*{sentence}"):
        place(SONG, text)


def test_spans() -> None:
    assert span(SONG, "2s", "bar 3") == (1920, 3840)
    assert bars(SONG, "2-3") == bars(SONG, "bars 2 \u2013 3") == (1920, 5760)
    assert bars(SONG, "8") == (7 * 1920, 8 * 1920)
    assert music_end(SONG) == 8 * 1920


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: span(SONG, "3s", "2s"), "between '3s' and '2s' is nothing"),
        (lambda: span(SONG, "2s", "bar 2"), "is nothing"),
        (lambda: bars(SONG, "9-16"), "'9-16' is beyond its end"),
        (lambda: bars(SONG, "7-9"), "beyond its end"),
        (lambda: bars(SONG, "3-2"), "end before they begin"),
        (lambda: bars(SONG, "two"), "names no bars"),
        (lambda: bars(SONG, "0-2"), "the first is bar 1"),
    ],
)
def test_spans_that_are_none(call, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^song\.mid: .*{sentence}"):
        call()


def test_a_file_that_ends_on_a_bar_line_ends_with_the_bar_before() -> None:
    score = read_score(smf(timed((1920, b"\x80\x3c\x00"))))
    assert music_end(score) == 1920
    assert music_end(read_score(smf(timed()))) == 1920  # nothing at all: one bar
    assert score.tracks[0][-1] == Event(1920, b"\xff\x2f\x00")


def test_bar_lines_are_those_of_the_bars_and_the_end_of_the_last() -> None:
    # A bar of 4/4 takes 2 s, one of 3/4 from bar 3 on 1.5 s.
    score = read_score(smf(timed((0, meter(4, 4)), (3840, meter(3, 4)), (3840 + 1440 + 10, b"\x90\x3c\x64"))))
    assert bar_lines(score) == [(1, 0.0), (2, 2.0), (3, 4.0), (4, 5.5), (5, 7.0)]
    many = read_score(smf(timed((0, meter(1, 16)), (480 * 1000, b"\x90\x3c\x64"))))
    assert bar_lines(many) == []
