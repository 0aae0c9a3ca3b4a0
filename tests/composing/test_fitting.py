"""A tempo and a key as options."""

import numpy as np
import pytest

from midillm_jax.composing.fitting import at_tempo, in_key, key_named
from midillm_jax.data.tonality import Key, estimate_key
from midillm_jax.errors import UserError
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.timing import find_pulse, played
from tests.music.grooves import groove


def table(pitches: list[int], program: int = 0) -> NoteTable:
    n = len(pitches)
    onsets, lengths = 50 * np.arange(n, dtype=np.int32), np.full(n, 50, np.int32)
    return NoteTable(onsets, lengths, 128 * program + np.array(pitches, np.int32), np.full(n, 72, np.uint8))


C_MAJOR = [60, 64, 67, 72, 65, 69, 72, 67, 71, 74, 62, 64, 60, 67, 64, 60]


@pytest.mark.parametrize(
    ("beat", "bpm", "scale"), [(50, 100, 1.2), (50, 150, 0.8), (50, 230, 120 / 115), (60, 52, 50 / 52)]
)
def test_the_nearest_octave_of_the_beat_gets_the_tempo(beat: float, bpm: float, scale: float) -> None:
    before = groove(beat, 4)
    after, told = at_tempo(before, bpm)
    assert told.endswith(f"to {bpm:g} bpm")
    np.testing.assert_allclose(after.onsets[-1] / before.onsets[-1], scale, rtol=0.01)
    np.testing.assert_array_equal(after.notes, before.notes)
    pulse = find_pulse(after)
    assert pulse is not None
    heard = 60e6 / pulse.microseconds
    assert min(abs(np.log2(heard / bpm) - octave) for octave in (-1, 0, 1)) < 0.02


def test_the_file_says_the_very_tempo() -> None:
    after, _ = at_tempo(groove(49.7, 4), 117)
    assert played(after, 0, 117).tempos.tolist() == [[0, round(60e6 / 117)]]


def test_music_without_a_beat_is_left() -> None:
    rng = np.random.default_rng(0)
    free = table([60] * 300)
    free = NoteTable(np.sort(rng.integers(0, 6000, 300)).astype(np.int32), free.durations, free.notes, free.velocities)
    after, told = at_tempo(free, 100)
    assert after is free
    assert "no beat is heard" in told


@pytest.mark.parametrize(
    ("name", "semitones"), [("C major", 0), ("D major", 2), ("Bb major", -2), ("A minor", 0), ("B minor", 2)]
)
def test_pitches_move_to_the_key_or_its_relative(name: str, semitones: int) -> None:
    after, told = in_key(table(C_MAJOR), key_named(name))
    np.testing.assert_array_equal(after.notes - np.array(C_MAJOR), semitones)
    assert ("relative" in told) == ("minor" in name)
    assert f"{semitones:+d} semitones, from C major" in told
    found = estimate_key(after)
    assert found is not None
    if "major" in name:
        assert found.key == key_named(name)


def test_drums_stay_and_nothing_leaves_the_keyboard() -> None:
    high = table([pitch + 52 for pitch in C_MAJOR])
    drums = table(C_MAJOR, program=128)
    both = NoteTable(
        np.concatenate([high.onsets, drums.onsets]),
        np.concatenate([high.durations, drums.durations]),
        np.concatenate([high.notes, drums.notes]),
        np.concatenate([high.velocities, drums.velocities]),
    )
    after, _ = in_key(both, Key(9, "major"))  # from E, up
    np.testing.assert_array_equal(after.notes[len(C_MAJOR) :], drums.notes)
    pitches = after.notes[: len(C_MAJOR)]
    assert pitches.max() < 128
    assert set((pitches - high.notes[: len(C_MAJOR)]).tolist()) <= {5, -7}


def test_a_name_that_is_no_key_is_refused() -> None:
    with pytest.raises(UserError, match="'H major' is no key"):
        key_named("H major")


def test_no_notes() -> None:
    nothing = table([])
    assert at_tempo(nothing, 100)[0] is nothing
    assert in_key(nothing, Key(0, "major"))[0] is nothing
