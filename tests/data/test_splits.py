"""Which side a record falls on."""

import json
from pathlib import Path

import pytest

from midillm_jax.data.sources import Record
from midillm_jax.data.splits import SplitRule, read_ids, split_of
from midillm_jax.errors import UserError

MD5 = "{}23456789abcdef0123456789abcdef0"


def record(name: str, **fields: object) -> Record:
    return Record("s", name, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["auto", "lakh"])
def test_lakh_by_the_first_hex_digit(by: str) -> None:
    rule = SplitRule(by, 0.0)  # type: ignore[arg-type]
    sides = {digit: rule.side(record(f"lmd_full/{digit}/{MD5.format(digit)}.mid"), "x") for digit in "0123456789abcdef"}
    assert [digit for digit, side in sides.items() if side == "validation"] == ["e"]
    assert [digit for digit, side in sides.items() if side == "test"] == ["f"]
    assert rule.side(record(MD5.format("F")), "x") == "test"  # GigaMIDI's rows have no suffix


def test_auto_goes_by_content_for_other_names_and_by_the_group_that_captions_give() -> None:
    rule = SplitRule("auto", 0.3)
    for i in range(50):
        assert rule.side(record("face.mid"), f"notes {i}") == split_of(f"notes {i}", 0.3)
        named = record(f"{MD5.format('f')}.mid", group=f"group {i}")
        assert rule.side(named, "notes") == split_of(f"group {i}", 0.3)


def test_hash_does_not_look_at_names() -> None:
    rule = SplitRule("hash", 0.3)
    sides = {rule.side(record(f"{MD5.format('f')}.mid"), f"notes {i}") for i in range(50)}
    assert sides == {"train", "validation"}


def test_lakh_refuses_names_without_a_digit() -> None:
    assert SplitRule("lakh").side(record("e-song.mid"), "x") == "validation"
    with pytest.raises(UserError, match=r"songs/waltz\.mid: --split lakh goes by the hex digit"):
        SplitRule("lakh").side(record("songs/waltz.mid"), "x")


def test_midicaps_column_decides() -> None:
    rule = SplitRule("midicaps", 0.3)
    assert rule.side(record(f"{MD5.format('0')}.mid", test=True), "notes 1") == "test"
    assert rule.side(record(f"{MD5.format('f')}.mid"), "notes 1") == split_of("notes 1", 0.3)
    assert SplitRule("hash", 0.0).side(record("a.mid", test=True), "x") == "train"


@pytest.mark.parametrize(
    "text",
    ["lmd_full/f/abc.mid\n  def.v2.MID \n\nghi\n", json.dumps(["abc", "x/def.v2.mid", "ghi"])],
)
def test_ids_from_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids").write_text(text)
    ids = read_ids(str(tmp_path / "ids"))
    assert ids == {"abc", "def.v2", "ghi"}
    rule = SplitRule("hash", 0.0, ids)
    names = ("a/def.v2.mid", "ghi", "def.v1.mid", "def.mid", "abcd")
    assert [rule.side(record(name), "x") for name in names] == ["test", "test", "train", "train", "train"]


def test_ids_of_midicaps_test_set(tmp_path: Path) -> None:
    """Its train.json holds both; a captions.jsonl without the column names all its pieces."""
    rows = [{"location": f"lmd_full/{n}/{MD5.format(n)}.mid", "caption": "x", "test_set": n % 2 == 1} for n in range(4)]
    (tmp_path / "train.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_ids(str(tmp_path / "train.json")) == {MD5.format(1), MD5.format(3)}
    rows = [{name: value for name, value in row.items() if name != "test_set"} for row in rows]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_ids(str(tmp_path / "captions.jsonl"))) == 4
    (tmp_path / "other.json").write_text('{"name": "abc"}\n')
    with pytest.raises(UserError, match='no field "location"'):
        read_ids(str(tmp_path / "other.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("\n", "expected names of pieces, one a line"),
        ("[1, 2]", "expected names of pieces, one a line"),
        ('["a",', "begins like a JSON list but is none"),
    ],
)
def test_a_file_without_ids(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "ids").write_text(text)
    with pytest.raises(UserError, match=f"ids: {message}"):
        read_ids(str(tmp_path / "ids"))


def test_what_a_manifest_says_of_the_rule() -> None:
    rules = [SplitRule(), SplitRule("hash"), SplitRule(validation_share=0.1), SplitRule(test_ids=frozenset("a"))]
    assert len({json.dumps(rule.options()) for rule in rules}) == 4
    assert SplitRule(test_ids=frozenset("ab")).options() == SplitRule(test_ids=frozenset("ba")).options()
