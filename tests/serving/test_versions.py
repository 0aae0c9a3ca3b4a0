"""Versions of a visit: kept, undone, gone back to; and what no piece can be made of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from midillm_jax.errors import UserError
from midillm_jax.serving.versions import MAX_FILE_BYTES, Visit, Visits, read_piece
from tests.inference.parts import band_files


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in band_files(tmp_path_factory.mktemp("band"), 3)]


@pytest.fixture
def visits() -> Iterator[Visits]:
    with Visits() as visits:
        yield visits


@pytest.fixture
def visit(visits: Visits, pieces: list[bytes]) -> Visit:
    visit = visits.of("a tab")
    for number, piece in enumerate(pieces):
        visit.add(piece, f"step {number}", "")
    return visit


def test_undo_goes_back_the_way_it_came_and_nothing_is_lost(visit: Visit, pieces: list[bytes]) -> None:
    assert [visit.undo(), visit.undo(), visit.undo()] == [visit.versions[1], visit.versions[0], None]
    visit.add(pieces[2], "another way", "")
    assert [version.title for version in visit.versions] == ["step 0", "step 1", "step 2", "another way"]
    assert visit.undo() is visit.versions[0]
    assert visit.go_to(3) is visit.versions[2] is visit.version
    assert [version.midi.read_bytes() for version in visit.versions] == [*pieces, pieces[2]]
    with pytest.raises(UserError, match="There is no version 5"):
        visit.go_to(5)


def test_a_title_becomes_a_file_name_that_stays_in_the_folder(visit: Visit, pieces: list[bytes]) -> None:
    for title in ("../../../etc/passwd", "a/b\\c\0d", "\u202e" * 300, ""):
        path = visit.add(pieces[0], title, "").midi
        assert path.parent == visit.folder
        assert path.is_file()


def test_pieces_outlive_a_closed_tab_for_an_hour(pieces: list[bytes]) -> None:
    now = 0.0
    with Visits(clock=lambda: now) as visits:
        visits.of("one").add(pieces[0], "a", "")
        visits.leave("one")
        now = 3500
        assert visits.of("one").versions, "a laptop that slept finds them again"
        visits.leave("one")
        now = 3500 + 3601
        visits.of("two")
        assert not visits.of("one").versions
        folder = visits.folder
        assert len(list(folder.iterdir())) == 2
    assert not folder.exists()


def test_of_too_many_visits_those_left_first_go(pieces: list[bytes]) -> None:
    now = 0.0
    with Visits(most=3, clock=lambda: now) as visits:
        for name in ("one", "two", "three"):
            visits.of(name).add(pieces[0], "a", "")
        for name in ("two", "one"):
            now += 1
            visits.leave(name)
        visits.of("four")
        assert [len(visits.of(name).versions) for name in ("one", "three", "two")] == [1, 1, 0]


def header(tracks: bytes, ticks: int = 480) -> bytes:
    return b"MThd" + (6).to_bytes(4, "big") + b"\0\0\0\1" + ticks.to_bytes(2, "big") + tracks


def track(events: bytes) -> bytes:
    return b"MTrk" + len(events).to_bytes(4, "big") + events


NOTE = b"\0\x90\x3c\x40\x60\x80\x3c\x40"
LATE = b"\xff\xff\xff\x7f"
"""A wait of 268 million ticks."""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not begin with a MIDI file's header"),
        (b"<script>alert(1)</script>", "does not begin with a MIDI file's header"),
        (header(track(NOTE + b"\0\xff\x2f\0"))[:-6], "ends 6 bytes behind the end of the file"),
        (header(track(b"\0\xff\x2f\0")), "has no notes"),
        (header(track(NOTE * 30_001 + b"\0\xff\x2f\0")), "has 30,001 notes, of which the page takes 30,000"),
        (header(track(NOTE + LATE + b"\xff\x2f\0")), "minutes, of which the page takes 30"),
        (bytes(MAX_FILE_BYTES + 1), "bytes, of which the page takes"),
    ],
)
def test_what_no_piece_can_be_made_of(data: bytes, said: str) -> None:
    with pytest.raises(UserError) as raised:
        read_piece(data, "a.mid")
    assert str(raised.value).startswith("a.mid: ")
    assert said in str(raised.value)


def test_the_sound_is_rendered_once(visit: Visit) -> None:
    version = visit.versions[0]
    if shutil.which("fluidsynth") is None:
        pytest.skip("fluidsynth or a soundfont is not installed")
    first = version.play()
    changed = first.stat().st_mtime_ns
    assert version.play() == first
    assert first.stat().st_mtime_ns == changed
    assert isinstance(first, Path)
