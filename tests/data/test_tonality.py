"""Keys found from notes alone: cadences in all keys, what decides between neighbours, and when nothing is clear."""

import numpy as np
import pytest

from midillm_jax.data.tonality import TONICS, Estimate, Key, estimate_key
from midillm_jax.music.midi import NoteTable

PIANO, GUNSHOT, DRUMS = 0, 127, 128
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)
CADENCES = {
    "major": ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)),
    "minor": ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7)),
}


def table(notes: list[tuple[int, int, int, int]]) -> NoteTable:
    """A table of (onset, duration, program, pitch), in ticks of 10 ms."""
    onsets, durations, programs, pitches = np.array(sorted(notes)).T
    return NoteTable(
        onsets.astype(np.int32),
        durations.astype(np.int32),
        (128 * programs + pitches).astype(np.int32),
        np.full(len(notes), 80, np.uint8),
    )


def cadence(tonic: int, mode: str) -> list[tuple[int, int, int, int]]:
    """I IV V I in close chords, a second each."""
    return [(100 * at, 100, PIANO, 48 + tonic + tone) for at, chord in enumerate(CADENCES[mode]) for tone in chord]


def line(pitches: list[int], *, length: int = 50) -> list[tuple[int, int, int, int]]:
    return [(length * at, length, PIANO, pitch) for at, pitch in enumerate(pitches)]


def key_name(notes: list[tuple[int, int, int, int]]) -> str | None:
    estimate = estimate_key(table(notes))
    return estimate.key.name if estimate is not None and estimate.clear else None


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", range(12))
def test_a_cadence_tells_the_key(tonic: int, mode: str) -> None:
    assert estimate_key(table(cadence(tonic, mode))) == Estimate(Key(tonic, mode), clear=True)


@pytest.mark.parametrize(("mode", "scale"), [("major", MAJOR), ("minor", MINOR)])
@pytest.mark.parametrize("tonic", range(12))
def test_a_scale_up_and_down_tells_the_key(tonic: int, mode: str, scale: tuple[int, ...]) -> None:
    up = [60 + tonic + step for step in (*scale, 12)]
    assert estimate_key(table(line([*up, *up[-2::-1]]))) == Estimate(Key(tonic, mode), clear=True)


def test_the_last_bass_tells_relative_keys_apart() -> None:
    """The same pitch classes for the same time: the last chord has C below, or A."""
    chords = [(60, 64, 67), (60, 64, 67), (57, 60, 64), (53, 57, 60), (57, 60, 64)]
    body = [(100 * at, 100, PIANO, pitch) for at, chord in enumerate(chords) for pitch in chord]
    assert key_name([*body, *((500, 100, PIANO, pitch) for pitch in (48, 57, 64))]) == "C major"
    assert key_name([*body, *((500, 100, PIANO, pitch) for pitch in (45, 60, 64))]) == "A minor"


def test_longer_notes_weigh_more() -> None:
    """The same seven notes: what is held decides."""
    held_in_c = [(50 * at, 400 if pitch in (60, 64, 67) else 20, PIANO, pitch) for at, pitch in enumerate(C_SCALE)]
    held_in_a = [(50 * at, 400 if pitch in (57, 60, 64) else 20, PIANO, pitch) for at, pitch in enumerate(A_SCALE)]
    assert key_name(held_in_c) == "C major"
    assert key_name(held_in_a) == "A minor"


C_SCALE = [60, 62, 64, 65, 67, 69, 71]
A_SCALE = [57, 59, 60, 62, 64, 65, 67]


def test_chords_tip_the_scales() -> None:
    """Notes that leave D major and G major near each other are D major under D's chord, G major under G's."""
    notes = table([*line([50, 57, 62, 66, 69, 67, 71, 74, 55, 59, 62, 67, 64, 57])])
    for tonic in (2, 7):
        triads = np.zeros(24)
        triads[tonic] = 1.0
        estimate = estimate_key(notes, triads)
        assert estimate is not None
        assert estimate.key == Key(tonic, "major")


def test_drums_and_noises_have_no_part_in_it() -> None:
    noise = [(at, 400, program, 61) for at in range(0, 400, 100) for program in (DRUMS, GUNSHOT)]
    assert key_name([*cadence(0, "major"), *noise]) == "C major"
    assert estimate_key(table([(at, 100, DRUMS, 36 + at // 100) for at in range(0, 1200, 100)])) is None


def test_nothing_is_named_where_nothing_is_clear() -> None:
    assert estimate_key(table(line([60, 67, 60, 67]))) is None, "two pitch classes are no key"
    assert key_name(line(list(range(60, 72)))) is None, "the chromatic scale"
    assert key_name(line([60, 62, 64, 66, 68, 70])) is None, "the whole-tone scale"
    assert key_name(line([60, 63, 66, 69])) is None, "a diminished seventh"


def test_a_mixolydian_tune_is_not_called_major() -> None:
    """D to D over C natural; the same tune over C sharp is in D major."""
    for seventh, name in ((72, None), (73, "D major")):
        tune = [62, 66, 69, 74, seventh, 69, 66, 64, 67, 71, seventh, 74, 69, 66, 64, seventh - 12, 62, 66, 69, 62]
        assert key_name(line(tune)) == name
    blues = np.zeros(24)
    blues[2] = 1.0
    tune = [62, 66, 69, 74, 72, 69, 66, 64, 67, 71, 72, 74, 69, 66, 64, 60, 62, 66, 69, 62]
    assert estimate_key(table(line(tune)), blues) == Estimate(Key(2, "major"), clear=True)


def test_a_piece_between_two_keys_is_in_neither() -> None:
    """Neither C nor C sharp, much D and G, and E in the end: as much in G major as in D major."""
    pitches = 5 * [62] + 3 * [66] + 4 * [67] + 3 * [69] + [71] + 2 * [64]
    estimate = estimate_key(table(line(pitches)))
    assert estimate is not None
    assert estimate.key in (Key(2, "major"), Key(7, "major"))
    assert not estimate.clear


def test_names_are_those_that_musicians_use() -> None:
    assert TONICS["major"][1] == "Db"
    assert TONICS["minor"][1] == "C#"
    assert Key(10, "major").name == "Bb major"
    assert Key(8, "minor").name == "G# minor"
    assert {tonic: Key(tonic, "minor").name for tonic in (3, 10)} == {3: "Eb minor", 10: "Bb minor"}


def test_transposing_a_piece_transposes_its_key() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        pitches = (48 + rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16], 40)).tolist()
        home = estimate_key(table(line(pitches)))
        for up in range(1, 12):
            moved = estimate_key(table(line([pitch + up for pitch in pitches])))
            assert home is not None
            assert moved is not None
            assert moved.key == Key((home.key.tonic + up) % 12, home.key.mode)
            assert moved.clear == home.clear
