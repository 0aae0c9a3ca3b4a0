"""Distances of two evaluations, which are compared only where they were taken in the same way."""

import copy
from pathlib import Path
from typing import Any

import pytest

from midillm_jax.errors import UserError
from midillm_jax.evaluation.paired_audio import compare, matches

PROTOCOL = {"network": "x", "weights": "ab", "pieces": 50, "references": "cd", "rendering": {"loudness": -18.0}}


def scores(value: float, reach: float, **changes: Any) -> dict[str, Any]:
    fad = {"rows": 50, "corrected": {"value": value, "low": value - reach, "high": value + reach}}
    return {"embeddings": [{"name": "x", "protocol": copy.deepcopy(PROTOCOL) | changes, "fad": fad, "matches": []}]}


def matched(words: list[tuple[str, float]], **changes: Any) -> dict[str, Any]:
    protocol = copy.deepcopy(PROTOCOL) | changes
    match = {"name": "tags", "of_prompts": words}
    return {"embeddings": [{"name": "x", "protocol": protocol, "fad": None, "matches": [match]}]}


def differences(first: Any, second: Any) -> Any:
    return compare(Path("a"), first, Path("b"), second)


def test_the_nearer_one_is_better_if_the_reach_allows() -> None:
    (found,), missing = differences(scores(5.0, 0.3), scores(4.0, 0.4))
    assert (found.better, found.b_better_by.value) == ("B", 1.0)
    assert found.b_better_by.low == pytest.approx(0.5)
    assert found.line() == "FAD by x, 50 pieces: A 5 [4.7, 5.3], B 4 [3.6, 4.4]: B is nearer by 1 [0.5, 1.5]"
    assert missing == []
    assert differences(scores(4.0, 0.4), scores(5.0, 0.3))[0][0].better == "A"
    assert differences(scores(5.0, 0.8), scores(4.0, 0.8))[0][0].better is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "zz"}, "FAD by x, weights: 'ab' in a, 'zz' in b"),
        ({"references": "ff"}, "FAD by x, references: 'cd' in a, 'ff' in b"),
        ({"pieces": 60}, "FAD by x, pieces: 50 in a, 60 in b"),
        ({"rendering": {"loudness": -23.0}}, r"FAD by x, rendering\.loudness: -18\.0 in a, -23\.0 in b"),
        ({"more": 1}, "FAD by x, more: nothing in a, 1 in b"),
    ],
)
def test_another_protocol_is_refused_by_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        differences(scores(5.0, 0.3), scores(4.0, 0.3, **changes))


def test_a_distance_that_one_lacks_is_told() -> None:
    assert differences(scores(5.0, 0.3), None) == ([], ["there is no FAD by x in B"])
    assert differences(None, scores(5.0, 0.3)) == ([], ["there is no FAD by x in A"])
    assert differences(None, None) == ([], [])


def test_matches_are_paired_by_prompt_whatever_the_real_music() -> None:
    one = matched([("rock", 5.0), ("jazz", 1.0), ("rock", 6.0), ("only here", 9.0)])
    other = matched([("jazz", 2.0), ("rock", 7.0), ("rock", 8.0)], references="ff", pieces=3)
    ((name, scores),) = matches(Path("a"), one, Path("b"), other)
    assert name == "tags"
    assert scores.tolist() == [[5, 7], [1, 2], [6, 8]]
    assert matches(Path("a"), one, Path("b"), None) == []
    with pytest.raises(UserError, match=r"match by x, weights: 'ab' in a, 'zz' in b"):
        matches(Path("a"), one, Path("b"), matched([("rock", 1.0)], weights="zz"))
