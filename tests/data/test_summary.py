"""What pieces add up to, against sums done by hand."""

import numpy as np
import pytest

from midillm_jax.data.records import Piece
from midillm_jax.data.summary import MAX_GAP, Music, main_bpm, main_meter, sound
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES

DRUM = DRUM_PROGRAM * PITCHES


def table(notes: list[tuple[int, int, int, int]], **maps: np.ndarray) -> NoteTable:
    """Of (onset, duration, note, velocity)."""
    onsets, durations, numbers, velocities = np.array(notes, np.int32).T
    return NoteTable(onsets, durations, numbers, velocities.astype(np.uint8), **maps)


WALTZ = table(
    [(0, 50, 60, 70), (0, 50, 64, 70), (0, 10, DRUM + 36, 100), (300, 999, 33 * PITCHES + 60, 1), (5300, 0, 60, 127)],
    tempos=np.array([[0, 400_000], [100, 600_000]]),
    meters=np.array([[0, 3, 4], [300, 2, 4]], np.int32),
)
PLAIN = table([(10, 100, 72, 64)])


def test_sums() -> None:
    music = Music()
    music.add(Piece(WALTZ, ("A waltz in C.", "Slow."), "s", "id", "waltz.mid"))
    music.add(Piece(PLAIN, (), "s", "id", "plain.mid"))
    assert music.notes == [5, 1]
    assert music.seconds == pytest.approx([53.0, 1.1])
    assert music.bpm == pytest.approx([100, 120])
    assert music.tempo_changes == 1
    assert dict(music.meters) == {"2/4": 1, "not stated": 1}
    assert {program: int(pieces) for program, pieces in enumerate(music.programs) if pieces} == {0: 2, 33: 1, 128: 1}
    assert music.parts == [3, 1]
    assert music.top_programs(2) == [0, 33]
    assert music.top_programs(9) == [0, 33, DRUM_PROGRAM]
    assert {pitch: int(notes) for pitch, notes in enumerate(music.pitches) if notes} == {60: 3, 64: 1, 72: 1}
    assert {value: int(notes) for value, notes in enumerate(music.velocities) if notes} == {
        1: 1,
        64: 1,
        70: 2,
        100: 1,
        127: 1,
    }
    assert {ticks: int(notes) for ticks, notes in enumerate(music.durations) if notes} == {
        0: 1,
        10: 1,
        50: 2,
        100: 1,
        999: 1,
    }
    assert {ticks: int(notes) for ticks, notes in enumerate(music.gaps) if notes} == {0: 2, 300: 1, MAX_GAP: 1}
    assert (music.captions, music.words) == ([2, 0], [4, 1])


def test_names_of_sounds() -> None:
    assert [sound(0, pitch) for pitch in (0, 60, 61, 127)] == ["C-1", "C4", "C#4", "G9"]
    assert [sound(DRUM_PROGRAM, pitch) for pitch in (36, 3)] == ["Kick", "key 3"]


def test_the_main_tempo_and_meter_are_those_longest_in_force() -> None:
    """Of 1,000 ticks, 3/4 has 200 + 400 and 4/4 has 400; what comes after the last note does not count."""
    meters = np.array([[0, 3, 4], [200, 4, 4], [600, 3, 4], [2_000, 5, 4]], np.int32)
    tempos = np.array([[0, 500_000], [450, 600_000], [1_500, 1_000_000]])
    both = table([(0, 10, 60, 64), (990, 10, 60, 64)], tempos=tempos, meters=meters)
    assert (main_meter(both), main_bpm(both)) == ("3/4", 100)
    assert (main_meter(PLAIN), main_bpm(PLAIN)) == ("", 120)
    nothing = table([(0, 0, 60, 64)], meters=meters)
    assert main_meter(nothing) in ("3/4", "4/4", "5/4")
