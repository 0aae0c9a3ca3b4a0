"""Two models' results side by side, in folders as an evaluation leaves them."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from midillm_jax import commands, evaluate
from midillm_jax.errors import UserError
from midillm_jax.evaluation.likelihood import PieceNats, summarize
from midillm_jax.evaluation.paired import compare
from midillm_jax.evaluation.protocol import FORMAT, LIKELIHOOD, RESULTS

INPUTS = {
    "format": FORMAT,
    "model": "of each its own",
    "data": "0a1b",
    "seed": 3,
    "pieces": 12,
    "sampling": {"temperature": 0.9, "top_p": 0.95, "max_notes": 200, "max_seconds": 30.0},
    "prompts": None,
}
PIECES = 12


def piece(number: int, bits: float) -> PieceNats:
    """A piece of 50 notes and more, hard or easy for any model, at so many bits a note more or less."""
    notes = 50 + number
    onset = (10 + number + bits) * notes * math.log(2)
    return PieceNats(f"id{number}", "", notes, (onset, 0.0, 0.0), (onset, 0.0, 0.0), (onset, 0.0, 0.0))


def music(number: int, drums: bool, programs: list[int], **changes: Any) -> dict[str, Any]:
    """Made for a prompt that asks for drums every other time, and describes a piece of piano and bass."""
    asks = number % 2 == 0
    fields = {"prompt": f"prompt {number}", "unseen": True, "asks_for_drums": asks, "has_drums": drums}
    return fields | {"asked_programs": [0, 32], "programs": programs} | changes


def folder(
    place: Path, bits: list[float], made: list[dict[str, Any]], inputs: Mapping[str, Any] = INPUTS, length: int = 2048
) -> Path:
    place.mkdir()
    pieces = [piece(number, each) for number, each in enumerate(bits)]
    results = {
        "inputs": inputs,
        "bits_per_note": summarize(pieces, 0).to_json(),
        "row_length": length,
        "pieces": made,
        "audio_scores": None,
    }
    (place / RESULTS).write_text(json.dumps(results))
    (place / LIKELIHOOD).write_text(json.dumps({"key": "", "pieces": [dataclasses.asdict(each) for each in pieces]}))
    return place


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Never plays drums; always plays the piano alone."""
    return folder(tmp_path / "a", [0.0] * PIECES, [music(number, False, [0]) for number in range(PIECES)])


def by_name(a: Path, b: Path) -> dict[str, Any]:
    return {each.measure: each for each in compare(a, b).differences}


def test_a_small_difference_is_resolved_where_every_piece_has_it(tmp_path: Path, first: Path) -> None:
    """Pieces differ by 11 bits among themselves, the models by a fifth: only pairs can tell."""
    made = [music(number, number % 2 == 0, [0, 32]) for number in range(PIECES)]
    found = by_name(first, folder(tmp_path / "b", [-0.2, -0.3] * 6, made))
    bits = found["bits a note"]
    assert bits.better == "B"
    assert bits.b_better_by.value == pytest.approx(0.25, abs=0.005)
    assert 0.2 <= bits.b_better_by.low < bits.b_better_by.high <= 0.3
    assert bits.a - bits.b == pytest.approx(bits.b_better_by.value)
    assert found["bits for the onset"].b_better_by == bits.b_better_by
    assert found["bits for the note"].better is None, "both paid nothing"
    # A is right for the half of the prompts that want none, B for all.
    drums = found["drums as asked, %"]
    assert (drums.a, drums.b, drums.b_better_by.value, drums.better) == (50, 100, 50, "B")
    # Piano of piano and bass: precision 1, recall 1/2.
    instruments = found["instruments as asked, F1 in %"]
    assert (instruments.a, instruments.b) == pytest.approx((200 / 3, 100))
    assert instruments.better == "B"


def test_turned_round_the_other_is_better_by_the_same(tmp_path: Path, first: Path) -> None:
    made = [music(number, number % 2 == 0, [0, 32]) for number in range(PIECES)]
    second = folder(tmp_path / "b", [-0.2, -0.3] * 6, made)
    here, there = by_name(first, second)["bits a note"], by_name(second, first)["bits a note"]
    assert (here.better, there.better) == ("B", "A")
    assert here.line().partition("B is better ")[2] == there.line().partition("A is better ")[2] != ""


def test_what_the_size_does_not_tell_is_said_so(tmp_path: Path, first: Path) -> None:
    made = [music(number, number == 0, [0]) for number in range(PIECES)]
    comparison = compare(first, folder(tmp_path / "b", [0.5, -0.6] * 6, made))
    assert [each.better for each in comparison.differences] == [None] * 6
    assert all("not resolved at this size" in line for line in comparison.lines())
    assert comparison.differences[4].b_better_by.value == pytest.approx(100 / PIECES)


def test_prompts_that_training_saw_or_that_say_nothing_do_not_count(tmp_path: Path) -> None:
    changes = [{"unseen": False}, {"asks_for_drums": None}, *({} for _ in range(PIECES - 2))]
    made = [music(number, True, [0], **each) for number, each in enumerate(changes)]
    a, b = (folder(tmp_path / name, [0.0] * PIECES, made) for name in "ab")
    found = by_name(a, b)
    assert found["drums as asked, %"].items == PIECES - 2
    assert found["instruments as asked, F1 in %"].items == PIECES - 1


def test_measures_that_one_lacks_are_left_out(tmp_path: Path) -> None:
    """Prompts of a file: no piece that they describe, and none says anything of drums."""
    made = [music(number, True, [0], asked_programs=None, asks_for_drums=None) for number in range(PIECES)]
    inputs = INPUTS | {"prompts": [each["prompt"] for each in made]}
    a, b = (folder(tmp_path / name, [0.0] * PIECES, made, inputs) for name in "ab")
    assert set(by_name(a, b)) == {"bits a note", "bits for the onset", "bits for the duration", "bits for the note"}


def test_other_rows_are_told_and_not_refused(tmp_path: Path, first: Path) -> None:
    made = json.loads((first / RESULTS).read_text())["pieces"]
    lines = compare(first, folder(tmp_path / "b", [0.0] * PIECES, made, length=1024)).lines()
    assert lines[-1].startswith("rows are 2,048 tokens long in A and 1,024 in B")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "ffff"}, 'data: "0a1b" in .*a, "ffff" in .*b; expected the same'),
        ({"seed": 4}, "seed: 3 in .*a, 4 in .*b"),
        ({"pieces": 48}, "pieces: 12 in .*a, 48 in .*b"),
        ({"prompts": ["x"]}, r"prompts: null in .*a, \[\"x\"\] in .*b"),
        ({"sampling": INPUTS["sampling"] | {"top_p": 0.8}}, r"sampling\.top_p: 0\.95 in .*a, 0\.8 in .*b"),
        ({"format": FORMAT - 1}, f"b: results.json has format {FORMAT - 1}; expected {FORMAT}"),
    ],
)
def test_another_protocol_is_refused(tmp_path: Path, first: Path, changes: dict[str, Any], message: str) -> None:
    made = json.loads((first / RESULTS).read_text())["pieces"]
    second = folder(tmp_path / "b", [0.0] * PIECES, made, INPUTS | changes)
    with pytest.raises(UserError, match=message):
        compare(first, second)


def test_other_pieces_and_prompts_are_refused(tmp_path: Path, first: Path) -> None:
    """As where two models' tokenizers pass over different captions."""
    made = json.loads((first / RESULTS).read_text())["pieces"]
    with pytest.raises(UserError, match=r"held-out pieces: 12 of them.* in .*a, 11 of them.* in .*b; "):
        compare(first, folder(tmp_path / "b", [0.0] * (PIECES - 1), made))
    made[1] = music(1, False, [0], prompt="something else")
    with pytest.raises(UserError, match=r'12 of them, number 2 is "prompt 1" in .* number 2 is "something else" in '):
        compare(first, folder(tmp_path / "c", [0.0] * PIECES, made))


def test_a_folder_that_is_not_finished_is_refused(tmp_path: Path, first: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: holds no results\.json"):
        compare(first, tmp_path / "nowhere")
    second = folder(tmp_path / "b", [1.0] * PIECES, [])
    (second / LIKELIHOOD).write_text((first / LIKELIHOOD).read_text())
    with pytest.raises(UserError, match=r"b: likelihood\.json is of another evaluation"):
        compare(first, second)


def test_the_command_prints_a_sentence_a_measure_and_writes_json(
    tmp_path: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = json.loads((first / RESULTS).read_text())["pieces"]
    second = folder(tmp_path / "b", [-1.0] * PIECES, made)
    evaluate.main(["compare", str(first), str(second), "--out", str(tmp_path / "found.json")])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("bits a note, 12 items: A ")
    assert said[0].endswith(": B is better by 1.00 [1.00, 1.00] bits")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["lines"] == said
    assert found["differences"][0]["better"] == "B"
    with pytest.raises(SystemExit) as ended:
        commands.run(evaluate.main, ["compare", str(first), str(tmp_path / "nowhere")])
    assert ended.value.code == 2
