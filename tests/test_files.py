from pathlib import Path

import pytest

from midillm_jax.files import put_in_place, write_whole


def test_text_is_utf8_and_bytes_are_kept(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "caf\u00e9\n")
    assert (tmp_path / "text").read_bytes() == b"caf\xc3\xa9\n"
    write_whole(tmp_path / "bytes", b"\x00\xff\r\n")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff\r\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes", "text"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")
    # A folder in the way of the file beside it: writing cannot begin.
    (tmp_path / "a.partial").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for content in ("old", "new"):
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / content).write_text(content)
        put_in_place(tmp_path / "made", tmp_path / "place")
        assert [path.name for path in tmp_path.iterdir()] == ["place"]
        assert [path.name for path in (tmp_path / "place").iterdir()] == [content]
