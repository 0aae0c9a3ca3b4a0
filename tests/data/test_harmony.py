"""Chords and progressions from notes that were put together by hand."""

import numpy as np
import pytest

from midillm_jax.data.beats import beat_grid
from midillm_jax.data.harmony import (
    QUALITIES,
    Chord,
    Harmony,
    Progression,
    find_harmony,
    find_progression,
    triad_shares,
)
from midillm_jax.data.tonality import Key
from midillm_jax.music.midi import NoteTable

PIANO, BASS, FLUTE, DRUMS = 0, 33, 73, 128
BAR = 200
"""Ticks in a bar of four at 120 BPM."""
C, F, G, AM, DM = Chord(0, ""), Chord(5, ""), Chord(7, ""), Chord(9, "m"), Chord(2, "m")
G7, DM7, CM7 = Chord(7, "7"), Chord(2, "m7"), Chord(0, "maj7")

Notes = list[tuple[int, int, int, int]]


def table(notes: Notes, meters: tuple[tuple[int, int, int], ...] = ((0, 4, 4),)) -> NoteTable:
    """A table of (onset, duration, program, pitch), in ticks of 10 ms, at 120 BPM."""
    onsets, durations, programs, pitches = np.array(sorted(notes)).T
    return NoteTable(
        onsets.astype(np.int32),
        durations.astype(np.int32),
        (128 * programs + pitches).astype(np.int32),
        np.full(len(notes), 80, np.uint8),
        meters=np.array(meters, np.int32).reshape(-1, 3),
    )


def block(chord: Chord, at: int, length: int = BAR) -> Notes:
    """The chord in close position from its root up, all notes held."""
    return [(at, length - 1, PIANO, 48 + chord.root + tone) for tone in QUALITIES[chord.quality]]


def blocks(chords: list[Chord]) -> Notes:
    return [note for number, chord in enumerate(chords) for note in block(chord, number * BAR)]


def harmony_of(notes: Notes, meters: tuple[tuple[int, int, int], ...] = ((0, 4, 4),)) -> Harmony:
    piece = table(notes, meters)
    grid = beat_grid(piece)
    assert grid is not None
    return find_harmony(piece, grid)


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("root", range(12))
def test_every_chord_is_known_by_its_notes(root: int, quality: str) -> None:
    assert harmony_of(block(Chord(root, quality), 0)).chords == (Chord(root, quality),)


@pytest.mark.parametrize("quality", ["", "m", "7", "dim"])
def test_a_broken_chord_is_the_same_chord(quality: str) -> None:
    for root in range(12):
        tones = [48 + root + tone for tone in (*QUALITIES[quality], 12)[:4]]
        notes = [(25 * at, 25, PIANO, tones[at % len(tones)]) for at in range(8)]
        assert harmony_of(notes).chords == (Chord(root, quality),)


def test_the_bass_tells_chords_of_the_same_notes_apart() -> None:
    """A, C, E and G are Am7 over A and C6, a C chord, over C; here the voices above are the same."""
    upper = [(0, 199, PIANO, pitch) for pitch in (60, 64, 67, 69)]
    assert harmony_of([*upper, (0, 199, BASS, 33)]).chords == (Chord(9, "m7"),)
    augmented = [(0, 199, PIANO, pitch) for pitch in (60, 64, 68)]
    for bass, root in ((36, 0), (40, 4), (44, 8)):
        assert harmony_of([*augmented, (0, 199, BASS, bass)]).chords == (Chord(root, "aug"),)


def test_an_inversion_keeps_its_name() -> None:
    assert harmony_of([(0, 199, PIANO, pitch) for pitch in (52, 60, 67)]).chords == (C,)
    assert harmony_of([(0, 199, PIANO, pitch) for pitch in (50, 55, 59, 65)]).chords == (G7,)


def test_chords_change_with_the_bar_the_half_bar_and_the_beat() -> None:
    assert harmony_of(blocks([C, F, G, C])).starts == (0, 200, 400, 600)
    halves = [*block(DM7, 0, 100), *block(G7, 100, 100), *block(C, 200)]
    assert (harmony_of(halves).chords, harmony_of(halves).starts) == ((DM7, G7, C), (0, 100, 200))
    beats = [note for at, chord in enumerate((C, F, G, AM)) for note in block(chord, 50 * at, 50)]
    assert harmony_of(beats).chords == (C, F, G, AM)


def test_chords_in_three_four_and_in_six_eight() -> None:
    waltz = [*block(C, 0, 100), *block(G, 100, 50), *block(AM, 150, 150)]
    assert harmony_of(waltz, ((0, 3, 4),)).starts == (0, 100, 150)
    jig = [*block(C, 0, 75), *block(G, 75, 75), *block(C, 150, 150)]
    assert harmony_of(jig, ((0, 6, 8),)).starts == (0, 75, 150)


def test_passing_notes_do_not_make_another_chord() -> None:
    scale = [(25 * at, 25, FLUTE, pitch) for at, pitch in enumerate((72, 74, 76, 77, 79, 77, 76, 74))]
    assert harmony_of([*block(C, 0), *scale]).chords == (C,)


def test_drums_and_silence_are_no_chords() -> None:
    beat = [(at, 10, DRUMS, 36) for at in range(0, 800, 50)]
    quiet = harmony_of([*beat, *block(C, 400)])
    assert quiet.chords == (None, C, None)
    assert quiet.starts == (0, 400, 600)
    assert quiet.share == pytest.approx(0.25, abs=0.05)
    assert harmony_of(beat).share == 0
    assert find_progression(harmony_of(beat)) is None


def test_a_cluster_is_no_chord() -> None:
    assert harmony_of([(0, 199, PIANO, pitch) for pitch in range(48, 60)]).chords == (None,)


def test_transposing_transposes_the_chords() -> None:
    rng = np.random.default_rng(3)
    notes = [(25 * at, 25, PIANO, int(pitch)) for at in range(64) for pitch in rng.choice(range(40, 80), 3)]
    home = harmony_of(notes)
    for up in range(1, 12):
        moved = harmony_of([(at, length, program, pitch + up) for at, length, program, pitch in notes])
        assert moved.starts == home.starts
        for chord, original in zip(moved.chords, home.chords, strict=True):
            if original is None:
                assert chord is None
            elif original.quality not in ("aug", "dim7"):  # which have several roots
                assert chord == Chord((original.root + up) % 12, original.quality)


def test_shares_of_triads_count_sevenths_along() -> None:
    shares = triad_shares(harmony_of(blocks([C, CM7, DM, Chord(11, "dim")])))
    assert shares.shape == (24,)
    assert shares[0] == pytest.approx(2 / 3, abs=0.01)
    assert shares[12 + 2] == pytest.approx(1 / 3, abs=0.01)
    assert np.count_nonzero(shares) == 2


def progression(chords: list[Chord]) -> Progression | None:
    return find_progression(harmony_of(blocks(chords)))


def test_the_chords_that_come_round_are_the_progression() -> None:
    assert progression([C, AM, F, G] * 4) == Progression((C, AM, F, G), 4)
    assert progression([DM, C, AM, F, G, C, AM, F, G, C, AM, F, G, DM]) == Progression((C, AM, F, G), 3)
    assert progression([C, F, G] * 5) == Progression((C, F, G), 5)


def test_two_chords_alternate() -> None:
    assert progression([C, G] * 6) == Progression((C, G), 6)


def test_a_short_piece_goes_through_its_chords_once() -> None:
    assert progression([DM7, G7, C]) == Progression((DM7, G7, C), 1)
    assert progression([C, F, G, AM, DM, C, G, F]) is None


def test_one_root_is_no_progression() -> None:
    assert progression([C, Chord(0, "m")] * 4) is None
    assert progression([C, C, C]) is None


def test_what_comes_round_for_a_moment_is_not_the_progression() -> None:
    many = [Chord(root, quality) for root in (0, 5, 10, 3, 8, 1, 6, 11, 4, 9, 2, 7) for quality in ("", "m")]
    assert progression([C, F, G, *many, *many[::-1], C, F, G]) is None


def test_a_seventh_now_and_then_belongs_to_the_same_harmony() -> None:
    turns = [C, AM, F, G, C, AM, F, G7, CM7, AM, F, G, C, AM, F, G]
    assert progression(turns) == Progression((C, AM, F, G), 4)


@pytest.mark.parametrize(
    ("key", "chord", "name"),
    [
        (None, Chord(10, "7"), "Bb7"),
        (Key(0, "major"), Chord(10, ""), "Bb"),
        (Key(0, "major"), Chord(6, "m7b5"), "F#m7b5"),
        (Key(4, "major"), Chord(8, "m"), "G#m"),
        (Key(8, "major"), Chord(1, ""), "Db"),
        (Key(9, "minor"), Chord(8, "dim7"), "G#dim7"),
        (Key(9, "minor"), Chord(5, ""), "F"),
        (Key(0, "minor"), Chord(8, "maj7"), "Abmaj7"),
        (Key(3, "minor"), Chord(11, ""), "Cb"),
        (Key(6, "major"), Chord(10, "m"), "A#m"),
        (Key(1, "minor"), Chord(0, "dim"), "B#dim"),
        (Key(1, "minor"), Chord(0, ""), "C"),
        (Key(8, "major"), Chord(4, "7"), "E7"),
    ],
)
def test_chords_are_spelled_in_their_key(key: Key | None, chord: Chord, name: str) -> None:
    assert chord.name(key) == name
