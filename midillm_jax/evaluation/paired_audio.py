"""The audio scores of two evaluations side by side, of those that were taken in the same way."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.audio import numbers
from midillm_jax.evaluation.intervals import Interval

_OF_SETS = ("references", "reference_pieces", "pieces")
"""Fields of a protocol that a match with words does not depend on."""

Scores = Mapping[str, Any] | None
"""``audio_scores`` of results.json."""


@dataclasses.dataclass(frozen=True)
class FadDifference:
    """Two Frechet audio distances from the same real music, corrected for size."""

    measure: str
    a: Interval
    b: Interval
    b_better_by: Interval
    """Above 0 where B is nearer. Its reach is as if the two had nothing in common, which the same real music makes too
    wide rather than too narrow."""
    better: str | None
    """"A", "B", or None where this many pieces do not tell."""

    def line(self) -> str:
        """The result in one line."""
        gain = -self.b_better_by if self.better == "A" else self.b_better_by
        if self.better is None:
            verdict = f"not resolved at this size (B is nearer by {numbers(gain)})"
        else:
            verdict = f"{self.better} is nearer by {numbers(gain)}"
        return f"{self.measure}: A {numbers(self.a)}, B {numbers(self.b)}: {verdict}"


def compare(a: Path, first: Scores, b: Path, second: Scores) -> tuple[list[FadDifference], list[str]]:
    """The distances that both have, and sentences on those that one lacks.

    Raises:
        UserError: two of one network were not taken in the same way; names the field.
    """
    ours, theirs = _fads(first), _fads(second)
    differences = []
    for name, mine in ours.items():
        if name in theirs:
            _same(f"FAD by {name}", a, mine["protocol"], b, theirs[name]["protocol"])
            differences.append(_difference(name, mine["fad"], theirs[name]["fad"]))
    missing = [f"there is no FAD by {name} in B" for name in ours if name not in theirs]
    missing += [f"there is no FAD by {name} in A" for name in theirs if name not in ours]
    return differences, missing


def matches(a: Path, first: Scores, b: Path, second: Scores) -> list[tuple[str, np.ndarray]]:
    """The matches with words that both have: name, and the scores of A and B for the prompts of both, float64 [n, 2].

    Raises:
        UserError: as :func:`compare`; the real music may differ here.
    """
    ours, theirs = (
        {} if scores is None else {each["name"]: each for each in scores["embeddings"]} for scores in (first, second)
    )
    found = []
    for network in [name for name in ours if name in theirs]:
        mine, other = ({match["name"]: match for match in each[network]["matches"]} for each in (ours, theirs))
        if mine.keys() & other.keys():
            protocols = (_heard(each[network]["protocol"]) for each in (ours, theirs))
            _same(f"match by {network}", a, next(protocols), b, next(protocols))
        for name in [name for name in mine if name in other]:
            one, two = (_of_prompts(each[name]["of_prompts"]) for each in (mine, other))
            pairs = [[one[prompt], two[prompt]] for prompt in one if prompt in two]
            if pairs:
                found.append((name, np.array(pairs)))
    return found


def _heard(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in protocol.items() if name not in _OF_SETS}


def _of_prompts(scores: Iterable[tuple[str, float]]) -> dict[tuple[str, int], float]:
    """By prompt and, of prompts that come more than once, how often it came before."""
    seen: Counter[str] = Counter()
    found = {}
    for prompt, score in scores:
        found[prompt, seen[prompt]] = score
        seen[prompt] += 1
    return found


def _fads(scores: Scores) -> dict[str, Any]:
    return {} if scores is None else {each["name"]: each for each in scores["embeddings"] if each["fad"] is not None}


def _same(name: str, a: Path, mine: Mapping[str, Any], b: Path, theirs: Mapping[str, Any]) -> None:
    ours, others = _flat(mine), _flat(theirs)
    for field in dict.fromkeys((*ours, *others)):
        found, other = (repr(each[field]) if field in each else "nothing" for each in (ours, others))
        if found != other:
            raise UserError(
                f"{name}, {field}: {found} in {a}, {other} in {b}; they can be compared only if they were "
                "taken in the same way; evaluate one of them again with the other's options"
            )


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    groups = {name: value for name, value in protocol.items() if isinstance(value, Mapping)}
    inside = {f"{name}.{key}": value for name, group in groups.items() for key, value in group.items()}
    return {name: value for name, value in protocol.items() if name not in groups} | inside


def _difference(name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> FadDifference:
    a, b = (Interval(**each["corrected"]) for each in (mine, theirs))
    reach = ((a.high - a.value) ** 2 + (b.high - b.value) ** 2) ** 0.5
    gain = a.value - b.value
    better = "B" if gain > reach else "A" if -gain > reach else None
    return FadDifference(
        f"FAD by {name}, {mine['rows']} pieces", a, b, Interval(gain, gain - reach, gain + reach), better
    )
