"""Which notes go first."""

import pytest

from midillm_jax.music.clock import bar_map
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import Score
from midillm_jax.music.thinning import superfluous, weakness
from tests.music.files import BEAT, meter, note, song

SIXTEENTH = BEAT // 4


def left(score: Score, percent: float, seed: int = 0) -> list[tuple[int, int]]:
    """(onset in sixteenths, pitch) of the notes that stay."""
    notes = read_notes(score).notes
    gone = superfluous(notes, percent, bar_map(score), score.ticks_per_beat, seed)
    assert len(set(gone)) == len(gone)
    return [(each.onset // SIXTEENTH, each.pitch) for each in notes if each not in gone]


def sixteenths(count: int, length: int = SIXTEENTH) -> Score:
    return song(tuple(event for at in range(count) for event in note(at * SIXTEENTH, at * SIXTEENTH + length)))


@pytest.mark.parametrize(
    ("percent", "onsets"),
    [
        (100, list(range(16))),
        (50, [0, 2, 4, 6, 8, 10, 12, 14]),
        (25, [0, 4, 8, 12]),
        (12.5, [0, 8]),
        (1, [0]),  # what a bar begins with stays
    ],
)
def test_weak_places_go_before_strong_ones(percent: float, onsets: list[int]) -> None:
    assert [onset for onset, _ in left(sixteenths(16), percent)] == onsets


def test_of_equally_weak_places_short_notes_go_first() -> None:
    lengths = (40, 10, 30, 20)
    notes = [note(at * BEAT + 240, at * BEAT + 240 + length) for at, length in enumerate(lengths)]
    music = song((*note(0, BEAT), *(event for each in notes for event in each)))
    assert [onset for onset, _ in left(music, 60)] == [0, 2, 10]


def test_what_a_part_begins_a_bar_with_stays_wherever_it_is() -> None:
    music = song((*note(0, 100), *note(7 * SIXTEENTH + 1920, 3840), *note(8 * SIXTEENTH + 1920, 3840)))
    assert [onset for onset, _ in left(music, 1)] == [0, 23]


def test_every_part_is_thinned_by_itself() -> None:
    eighths = tuple(event for at in range(8) for event in note(at * 240, at * 240 + 240))
    music = song(eighths, note(120, 240, 40, 1))
    assert [pitch for _, pitch in left(music, 50)].count(40) == 1
    assert len(left(music, 50)) == 4 + 1


def test_the_seed_decides_between_equals_and_chords_stay_together() -> None:
    chords = [note(at * SIXTEENTH, at * SIXTEENTH + 60, pitch) for at in range(16) for pitch in (60, 64, 67)]
    music = song(tuple(event for each in chords for event in each))
    kept = {seed: left(music, 75, seed) for seed in range(5)}
    assert left(music, 75, 3) == kept[3]
    assert len({tuple(each) for each in kept.values()}) > 1
    for each in kept.values():
        assert len(each) == 36
        onsets = [onset for onset, _ in each]
        assert all(onsets.count(onset) == 3 for onset in onsets)


@pytest.mark.parametrize(
    ("numerator", "denominator", "ticks", "expected"),
    [
        (4, 4, (0, 960, 480, 240, 120, 60), (0, 1, 2, 3, 4, 5)),
        (3, 4, (0, 480, 720, 960), (0, 2, 3, 2)),
        (6, 8, (0, 720, 240, 480, 120), (0, 1, 3, 3, 4)),
        (12, 8, (0, 1440, 720, 240), (0, 1, 2, 3)),
        (2, 2, (0, 960, 480), (0, 1, 3)),
        (4, 4, (10, 950, 1910), (0, 1, 0)),  # as people play
    ],
)
def test_weak_and_strong_places_of_a_bar(
    numerator: int, denominator: int, ticks: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    music = song(((0, meter(numerator, denominator)), *note(0, 4000)))
    assert tuple(weakness(tick, bar_map(music), BEAT) for tick in ticks) == expected
