"""Parts of a file, and instruments, by the names that people give them."""

import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.parts import parts_named, program_named, programs_asked, programs_named
from tests.music.files import BAND


@pytest.mark.parametrize(
    ("words", "tracks"),
    [
        ("piano", {0, 1}),
        ("Right Hand", {1}),
        ("drums", {4}),
        ("kit", {4}),
        ("bass", {2, 3}),  # an instrument, and the track of that name
        ("fretless bass", {2}),
        ("bass, fretless", {2}),  # a track's whole name, comma and all
        ("choir", {3}),
        ("piano, drums and track 3", {0, 1, 2, 4}),
    ],
)
def test_parts_by_instrument_track_name_and_number(words: str, tracks: set[int]) -> None:
    assert {part.track for part in parts_named(BAND, words)} == tracks


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("kazoo", "song.mid: has no 'kazoo'; name some of Acoustic Grand Piano (track 1, 'Left hand'), Acoustic"),
        ("piano, flute", "song.mid: has no 'flute'; name some of"),
        ("track 9", "song.mid: has no 'track 9'"),
        (" , ", "names no instrument; write one or several"),
    ],
)
def test_parts_that_are_not_there(words: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parts_named(BAND, words)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("words", "programs"),
    [
        ("drums", (128,)),
        ("Drum", (128,)),
        ("bass", tuple(range(32, 40))),
        ("piano", tuple(range(8))),
        ("strings", tuple(range(40, 52))),
        ("sax", (64, 65, 66, 67)),
        ("Electric Bass (pick)", (34,)),
        ("synth bass", (38, 39)),
        ("electric guitar", tuple(range(26, 32))),  # as people use it, not one of its sounds alone
        ("horn", (60,)),
        ("upright bass", (32, 43)),
        ("kazoo", ()),
        ("", ()),
    ],
)
def test_programs_by_name(words: str, programs: tuple[int, ...]) -> None:
    assert programs_named(words) == programs


def test_programs_that_are_asked_for() -> None:
    assert programs_asked("drums and flute") == (73, 128)
    with pytest.raises(UserError, match="'kazoo' is no instrument that General MIDI knows; name one or a family"):
        programs_asked("drums, kazoo")


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("piano", 0),
        ("Electric Piano 2", 5),
        ("strings", 48),
        ("horn", 60),
        ("horns", 61),
        ("sax", 65),
        ("rhodes", 4),
        ("upright bass", 32),
        ("drums", 128),
        ("kazoo", None),
    ],
)
def test_the_one_program_of_a_name(words: str, program: int | None) -> None:
    assert program_named(words) == program
