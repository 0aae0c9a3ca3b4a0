"""The same music is found whatever its key, tempo, loudness and instruments, and other music is not."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from midillm_jax.data.fingerprints import LEAST_SHINGLES, Index, fingerprint, similarity
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES

THRESHOLD = 0.4
COUNT = 60


def song(seed: int, notes: int = 200) -> NoteTable:
    """A wandering melody (program 73), chords (0), a bass (33) and drums; nothing in common with another seed."""
    rng = np.random.default_rng(seed)
    events = []
    pitch, onset = 70, 0
    for step in range(notes):
        pitch = int(np.clip(pitch + rng.integers(-7, 8), 55, 90))
        onset += int(rng.choice([12, 25, 50]))
        events.append((onset, 73, pitch))
        if step % 4 == 0:
            root = int(rng.integers(40, 52))
            events.append((onset, 33, root))
            events += [
                (onset, 0, root + step) for step in (12, int(rng.integers(15, 17)), 19, int(rng.integers(21, 27)))
            ]
            events.append((onset, DRUM_PROGRAM, 36))
    onsets, programs, pitches = np.array(events).T
    columns = {
        "onsets": onsets,
        "durations": rng.integers(5, 60, len(events)),
        "notes": programs * PITCHES + pitches,
    }
    velocities = rng.integers(40, 110, len(events)).astype(np.uint8)
    return NoteTable(**{name: column.astype(np.int32) for name, column in columns.items()}, velocities=velocities)


def rearranged(table: NoteTable, **columns: np.ndarray) -> NoteTable:
    full = {name: columns.get(name, getattr(table, name)) for name in ("onsets", "durations", "notes", "velocities")}
    order = np.argsort(full["onsets"], kind="stable")
    return dataclasses.replace(
        table, **{name: column[order].astype(getattr(table, name).dtype) for name, column in full.items()}
    )


def some(table: NoteTable, which: np.ndarray) -> NoteTable:
    return NoteTable(*(getattr(table, name)[which] for name in ("onsets", "durations", "notes", "velocities")))


def transposed(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    pitched = table.notes < PITCHES * DRUM_PROGRAM
    return rearranged(table, notes=table.notes + pitched * rng.choice([-5, 4]))


def slower(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    return rearranged(table, onsets=np.rint(table.onsets * rng.choice([0.8, 1.3, 3.1])))


def uneven(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    return rearranged(table, onsets=table.onsets + rng.integers(0, 3, len(table)))


def reinstrumented(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    programs, pitches = np.divmod(table.notes, PITCHES)
    return rearranged(table, notes=np.append(rng.permutation(128), DRUM_PROGRAM)[programs] * PITCHES + pitches)


def piano(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    pitched = table.notes < PITCHES * DRUM_PROGRAM
    return rearranged(table, notes=np.where(pitched, table.notes % PITCHES, table.notes))


def without_chords(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    return some(table, table.notes // PITCHES != 0)


def edited(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    """Three notes in a hundred gone, three in a hundred moved."""
    table = some(table, rng.random(len(table)) > 0.03)
    return rearranged(table, notes=table.notes + (rng.random(len(table)) < 0.03) * rng.choice([-2, 1, 3], len(table)))


def all_at_once(table: NoteTable, rng: np.random.Generator) -> NoteTable:
    for change in (transposed, slower, reinstrumented):
        table = change(table, rng)
    return some(table, rng.random(len(table)) > 0.03)


@pytest.fixture(scope="module")
def songs() -> list[NoteTable]:
    return [song(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def index(songs: list[NoteTable]) -> Index[int]:
    marks = [fingerprint(table) for table in songs]
    made: Index[int] = Index(THRESHOLD, marks.__getitem__)
    for place, mark in enumerate(marks):
        made.add(place, mark)
    return made


# The least of 60: an edit of 6 notes in 100 leaves (0.94 ** 7) of the runs, a similarity of 0.48, at which the index
# compares 94 of 100 pairs; without the chords, or with 3 notes in 100 gone, it compares more than 99.
@pytest.mark.parametrize(
    ("change", "least"),
    [
        (transposed, 60),
        (slower, 60),
        (uneven, 60),
        (reinstrumented, 60),
        (piano, 60),
        (without_chords, 57),
        (edited, 50),
        (all_at_once, 57),
    ],
)
def test_changed_copies_are_found(
    songs: list[NoteTable],
    index: Index[int],
    change: Callable[[NoteTable, np.random.Generator], NoteTable],
    least: int,
) -> None:
    rng = np.random.default_rng(5)
    found = [index.find(fingerprint(change(table, rng))) for table in songs]
    assert all(match is None or match.reason == "near" for match in found)
    assert all(match is None or match.place == place for place, match in enumerate(found))
    assert sum(match is not None for match in found) >= least


def test_what_is_not_heard_leaves_a_piece_the_same(songs: list[NoteTable], index: Index[int]) -> None:
    for place in range(5):
        copy = rearranged(songs[place], onsets=songs[place].onsets + 777, velocities=127 - songs[place].velocities)
        match = index.find(fingerprint(copy))
        assert match is not None
        assert (match.place, match.reason, match.similarity) == (place, "exact", 1.0)


def test_other_music_is_not_found(index: Index[int]) -> None:
    for seed in range(1000, 1100):
        assert index.find(fingerprint(song(seed))) is None


def test_only_the_first_pieces_are_looked_at_when_that_is_asked(songs: list[NoteTable], index: Index[int]) -> None:
    mark = fingerprint(songs[7])
    near = fingerprint(transposed(songs[7], np.random.default_rng(0)))
    assert index.find(mark, 7) is index.find(near, 7) is None
    assert index.find(mark, 8) is not None
    assert index.find(near, 8) is not None


def test_of_several_the_first_is_found(songs: list[NoteTable]) -> None:
    rng = np.random.default_rng(0)
    alike = [transposed(songs[0], rng), slower(songs[0], rng), uneven(songs[0], rng)]
    added = [songs[1], *alike[:1], *songs[2:8], *alike[1:2], *songs[8:20], *alike[2:]]
    for order in (added, added[::-1]):
        marks = [fingerprint(table) for table in order]
        made: Index[int] = Index(THRESHOLD, marks.__getitem__)
        for place, mark in enumerate(marks):
            made.add(place, mark)
        match = made.find(fingerprint(songs[0]))
        assert match is not None
        assert match.place == min(place for place, table in enumerate(order) if any(table is one for one in alike))


def test_similarity_is_the_share_of_shingles_that_both_have() -> None:
    """Counted by hand: 100 notes have 94 shingles; a copy of the first 60 has 54 of them and no other."""
    rng = np.random.default_rng(1)
    zeros = np.zeros(100, np.int32)
    pitches = rng.integers(20, 110, 100).astype(np.int32)
    table = NoteTable(np.arange(100, dtype=np.int32) * 20, zeros + 10, pitches, zeros.astype(np.uint8) + 64)
    whole, part = fingerprint(table), fingerprint(some(table, np.arange(100) < 60))
    assert (len(whole.whole), len(part.whole)) == (94, 54)
    assert similarity(whole, part) == pytest.approx(54 / 94)
    assert similarity(whole, whole) == 1.0
    changed = table.notes.copy()
    changed[50] += 1  # in the middle of seven runs: 87 stay, 7 go, 7 are new
    assert similarity(whole, fingerprint(rearranged(table, notes=changed))) == pytest.approx(87 / 101)


def test_too_short_a_piece_and_drums_alone_are_compared_exactly(index: Index[int]) -> None:
    short = song(0, notes=10)
    mark = fingerprint(short)
    assert 0 < len(mark.whole) < LEAST_SHINGLES
    drums = some(song(0), song(0).notes // PITCHES == DRUM_PROGRAM)
    made: Index[str] = Index(THRESHOLD, {"short": mark, "drums": fingerprint(drums)}.__getitem__)
    made.add("short", mark)
    made.add("drums", fingerprint(drums))
    rng = np.random.default_rng(0)
    assert made.find(fingerprint(transposed(short, rng))) is None
    assert made.find(fingerprint(slower(drums, rng))) is None
    assert made.find(fingerprint(rearranged(short, onsets=short.onsets + 5))).place == "short"  # type: ignore[union-attr]
    assert made.find(fingerprint(drums)).place == "drums"  # type: ignore[union-attr]


def runs(table: NoteTable, programs_apart: bool) -> set[tuple[int, ...]]:
    """Six intervals at a time, the slow and plain way."""
    notes = [(int(n) // PITCHES, int(o), int(n) % PITCHES) for n, o in zip(table.notes, table.onsets, strict=True)]
    pitched = [note for note in notes if note[0] != DRUM_PROGRAM]
    found = set()
    for program in {note[0] for note in pitched} if programs_apart else {None}:
        line = sorted((onset, pitch) for own, onset, pitch in pitched if program in (own, None))
        ordered: list[int] = []
        chord: list[int] = []
        for place, (onset, pitch) in enumerate(line):
            if place and onset - line[place - 1][0] > 2:
                ordered += sorted(chord)
                chord = []
            chord.append(pitch)
        ordered += sorted(chord)
        steps = np.diff(ordered).tolist()
        found |= {tuple(steps[at : at + 6]) for at in range(len(steps) - 5)}
    return found


def test_shingles_are_runs_of_six_intervals(songs: list[NoteTable]) -> None:
    rng = np.random.default_rng(0)
    tables = [uneven(table, rng) for table in songs[:10]]
    for view, apart in (("whole", False), ("by_program", True)):
        sets = [runs(table, apart) for table in tables]
        numbers = [getattr(fingerprint(table), view) for table in tables]
        assert [len(each) for each in numbers] == [len(each) for each in sets]
        # Different runs have different numbers, and the same run has the same one in every piece.
        assert len(np.unique(np.concatenate(numbers))) == len(set().union(*sets))
        assert all((np.diff(each.astype(np.int64)) > 0).all() for each in numbers)


def test_no_notes_and_few_notes_have_a_fingerprint() -> None:
    for count in (1, 6, 7):
        mark = fingerprint(song(0, notes=count))
        assert len(mark.sketches) == 0
    assert len(fingerprint(some(song(0), song(0).notes // PITCHES == DRUM_PROGRAM)).whole) == 0
