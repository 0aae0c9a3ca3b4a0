"""What people wrote about their pieces, in words fit for a caption."""

from pathlib import Path

import pytest

from midillm_jax.data.catalogue import Catalogue, read_catalogue
from midillm_jax.errors import UserError


def only_row(tmp_path: Path, **columns: str) -> Catalogue:
    table = tmp_path / "table.tsv"
    table.write_text("\t".join(["path", *columns]) + "\n" + "\t".join(["a.mid", *columns.values()]) + "\n", "utf-8")
    return read_catalogue(table)["a.mid"]


def test_a_row_is_read_whole(tmp_path: Path) -> None:
    row = only_row(
        tmp_path, genre="slow air; lament", mood="dark, calm", composer="Ann Nother", title="Hill", group="g"
    )
    assert row == Catalogue(("slow air", "lament"), ("dark", "calm"), "Ann Nother", "Hill", "g")
    assert only_row(tmp_path) == Catalogue()


def test_a_note_stands_in_for_a_genre_and_only_then(tmp_path: Path) -> None:
    assert only_row(tmp_path, note="jig").genre == ("jig",)
    assert only_row(tmp_path, note="jig", genre="reel").genre == ("reel",)
    assert only_row(tmp_path, note="jig", genre="").genre == ()


@pytest.mark.parametrize(
    ("note", "genre"),
    [
        ("voice and piano song (MusicXML -> MIDI)", ("voice and piano song",)),
        ("jig; key=C:maj", ("jig",)),
        ("tune (reel)", ("tune (reel)",)),
        (" ; ", ()),
    ],
)
def test_what_is_not_about_the_music_is_left_out(tmp_path: Path, note: str, genre: tuple[str, ...]) -> None:
    assert only_row(tmp_path, note=note).genre == genre


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Nother, Ann", "Ann Nother"),
        ("Ann Nother", "Ann Nother"),
        ("BachJS", "J. S. Bach"),
        ("FauréG", "G. Fauré"),
        ("McDonald", "McDonald"),
        ("trad. Irish", ""),
        ("Anonymous", ""),
    ],
)
def test_composers_are_called_by_their_names(tmp_path: Path, written: str, name: str) -> None:
    assert only_row(tmp_path, composer=written).composer == name


@pytest.mark.parametrize(
    ("written", "title"),
    [("3 The Hill", "The Hill"), ("06-Greensleeves", "Greensleeves"), ("mus_e1m1", ""), ("e1m1.mid", "")],
)
def test_titles_are_titles(tmp_path: Path, written: str, title: str) -> None:
    assert only_row(tmp_path, title=written).title == title


def test_a_table_that_is_none_is_told(tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"
    with pytest.raises(UserError, match=r"table\.tsv: cannot be read"):
        read_catalogue(table)
    table.write_bytes(b"path\n\xff\n")
    with pytest.raises(UserError, match="UTF-8"):
        read_catalogue(table)
    table.write_text("file,title\n", encoding="utf-8")
    with pytest.raises(UserError, match='no column "path"'):
        read_catalogue(table)
