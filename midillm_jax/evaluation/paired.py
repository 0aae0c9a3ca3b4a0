"""Which of two models is better, from the folders that two evaluations left: piece by piece and prompt by prompt.

Both models were asked the same, so that each piece and prompt is its own control: the differences are far steadier than
the scores (Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 8). Intervals are of intervals.py, each
measure by itself; with several measures, one of twenty that do not differ is resolved by chance.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation import paired_audio
from midillm_jax.evaluation.intervals import Interval, bootstrap, is_better
from midillm_jax.evaluation.likelihood import SLOTS, PieceNats
from midillm_jax.evaluation.paired_audio import FadDifference
from midillm_jax.evaluation.protocol import FORMAT, LIKELIHOOD, RESULTS
from midillm_jax.evaluation.symbolic import instrument_matrix

PROTOCOL = ("data", "pieces", "seed", "sampling", "prompts")
"""Of results.json's inputs, what must be the same in two models'; the model, pictures and sound may differ."""
_SHOWN = 60
"""Characters of a value in an error."""

Scores = Callable[[np.ndarray], np.ndarray]
"""Weights float64 [R, items] -> scores of A and of B, float64 [R, 2]."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One measure of two models on the same items."""

    measure: str
    items: int
    """Pieces or prompts."""
    unit: str
    a: float
    b: float
    b_better_by: Interval
    """Above 0 where B is better, whether the measure is better large or small."""
    better: str | None
    """"A", "B", or None where this many items do not tell."""

    def line(self) -> str:
        """The result in one line."""
        gain = -self.b_better_by if self.better == "A" else self.b_better_by
        amount = f"{gain.numbers()} {self.unit}"
        if self.better is None:
            verdict = f"not resolved at this size (B is better by {amount})"
        else:
            verdict = f"{self.better} is better by {amount}"
        return f"{self.measure}, {self.items} items: A {_number(self.a)}, B {_number(self.b)}: {verdict}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All measures that two evaluations share."""

    a: str
    b: str
    """The folders."""
    differences: tuple[Difference | FadDifference, ...]
    notes: tuple[str, ...]
    """What to know beside them, in sentences."""

    def lines(self) -> tuple[str, ...]:
        """The results and notes, a line each."""
        return (*(difference.line() for difference in self.differences), *self.notes)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"lines": self.lines()}


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """What a folder holds."""

    folder: Path
    results: Mapping[str, Any]
    nats: Mapping[str, PieceNats] | None
    """By piece; None of music that was given as files."""


def compare(a: Path, b: Path) -> Comparison:
    """Compares two folders of evaluations.

    Raises:
        UserError: one is no finished evaluation, or they were not asked the same.
    """
    first, second = _read(a), _read(b)
    if first.nats is None or second.nats is None:
        first, second = _by_prompt(first), _by_prompt(second)
    _same_protocol(first, second)
    seed = first.results["inputs"]["seed"]
    differences = [*_bits(first, second, seed), *_drums(first, second, seed), *_instruments(first, second, seed)]
    fads, missing = paired_audio.compare(a, first.results["audio_scores"], b, second.results["audio_scores"])
    differences += [
        _difference(name, "points", _mean(scores), len(scores), seed, sign=1)
        for name, scores in paired_audio.matches(a, first.results["audio_scores"], b, second.results["audio_scores"])
    ]
    if not differences and not fads:
        raise UserError(
            f"{a} and {b}: no measure that both have; expected two models, or prompts that say whether they want "
            "drums; evaluate music with --captions"
        )
    return Comparison(str(a), str(b), (*differences, *fads), (*_notes(first, second), *missing))


def _read(folder: Path) -> _Evaluation:
    results = _document(folder / RESULTS)
    found = results["inputs"]["format"]
    if found != FORMAT:
        raise UserError(
            f"{folder}: {RESULTS} has format {found}; expected {FORMAT}; run `python -m midillm_jax.evaluate` again"
        )
    if results["bits_per_note"] is None:
        return _Evaluation(folder, results, None)
    pieces = [PieceNats(**fields) for fields in _document(folder / LIKELIHOOD)["pieces"]]
    bits = sum(sum(piece.model) for piece in pieces) / math.log(2) / sum(piece.notes for piece in pieces)
    if not math.isclose(bits, results["bits_per_note"]["model"]["value"], rel_tol=1e-9):
        raise UserError(
            f"{folder}: {LIKELIHOOD} is of another evaluation than {RESULTS}, as one that was stopped leaves it; "
            "expected both of one; run `python -m midillm_jax.evaluate` to its end"
        )
    return _Evaluation(folder, results, {piece.piece_id: piece for piece in pieces})


def _document(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"{path.parent}: holds no {path.name} that can be read; expected a folder that `python -m "
            "midillm_jax.evaluate` finished; run it with --out of this name"
        ) from None


def _by_prompt(evaluation: _Evaluation) -> _Evaluation:
    """Files come in the order of their names, a model's music in that of its draw: both are put in the prompts'."""
    pieces = sorted(evaluation.results["pieces"], key=lambda piece: piece["prompt"])
    return dataclasses.replace(evaluation, results={**evaluation.results, "pieces": pieces})


def _same_protocol(first: _Evaluation, second: _Evaluation) -> None:
    fields = []
    for each in (first, second):
        prompts = {"music's prompts": [piece["prompt"] for piece in each.results["pieces"]]}
        if first.nats is None or second.nats is None:
            fields.append(prompts)
        else:
            pieces = {"held-out pieces": sorted(each.nats or ())}
            fields.append(_flat(each.results["inputs"]) | pieces | prompts)
    ours, theirs = fields
    for field, value in ours.items():
        if value != theirs[field]:
            found, other = _shown(value, theirs[field]), _shown(theirs[field], value)
            raise UserError(
                f"{field}: {found} in {first.folder}, {other} in {second.folder}; expected the same in both; evaluate "
                "one of the models again with the other's options"
            )


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol's fields, those of a group by themselves: ``sampling.top_p``."""
    fields = {name: inputs[name] for name in PROTOCOL}
    groups = [name for name, value in fields.items() if isinstance(value, dict)]
    return fields | {f"{name}.{key}": value for name in groups for key, value in fields.pop(name).items()}


def _shown(value: Any, other: Any) -> str:
    """A value in an error; of a list its length and where it first differs from the other."""
    if isinstance(value, list) and isinstance(other, list):
        place = next((n for n, pair in enumerate(zip(value, other, strict=False)) if pair[0] != pair[1]), None)
        differing = "" if place is None else f", number {place + 1} is {_shown(value[place], None)}"
        return f"{len(value)} of them{differing}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _bits(first: _Evaluation, second: _Evaluation, seed: int) -> list[Difference]:
    if first.nats is None or second.nats is None:
        return []
    both = (first.nats, second.nats)
    names = sorted(first.nats)
    notes = np.array([first.nats[name].notes for name in names], np.float64)
    bits = np.array([[nats[name].model for nats in both] for name in names]) / np.log(2)
    parts = [("bits a note", bits.sum(2)), *((f"bits for the {slot}", bits[:, :, n]) for n, slot in enumerate(SLOTS))]

    def per_note(part: np.ndarray) -> Scores:
        return lambda weights: weights @ part / (weights @ notes)[:, None]

    return [_difference(name, "bits", per_note(part), len(names), seed, sign=-1) for name, part in parts]


def _drums(first: _Evaluation, second: _Evaluation, seed: int) -> list[Difference]:
    pairs = [pair for pair in _unseen(first, second) if pair[0]["asks_for_drums"] is not None]
    if not pairs:
        return []
    agree = np.array([[piece["asks_for_drums"] == piece["has_drums"] for piece in pair] for pair in pairs], np.float64)

    def scores(weights: np.ndarray) -> np.ndarray:
        return 100 * weights @ agree / len(pairs)

    return [_difference("drums as asked, %", "points", scores, len(pairs), seed, sign=1)]


def _instruments(first: _Evaluation, second: _Evaluation, seed: int) -> list[Difference]:
    pairs = _unseen(first, second)
    # Music that was given comes with words alone; what they describe is known of the other's, for the same prompt.
    described = [[piece["asked_programs"] for piece in pair if piece["asked_programs"] is not None] for pair in pairs]
    if not pairs or not all(described):
        return []
    wanted = instrument_matrix([programs[0] for programs in described])
    played = [instrument_matrix([pair[number]["programs"] for pair in pairs]) for number in (0, 1)]
    hits = np.stack([(wanted * each).sum(1) for each in played], axis=1)
    sizes = np.stack([(wanted + each).sum(1) for each in played], axis=1)

    def scores(weights: np.ndarray) -> np.ndarray:
        return 200 * (weights @ hits) / (weights @ sizes)

    return [_difference("instruments as asked, F1 in %", "points", scores, len(pairs), seed, sign=1)]


def _mean(items: np.ndarray) -> Scores:
    """Of A's and B's scores, float64 [items, 2]."""
    return lambda weights: weights @ items / len(items)


def _unseen(first: _Evaluation, second: _Evaluation) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Both models' music for the prompts that training did not see."""
    pieces: Sequence[Sequence[Mapping[str, Any]]] = [each.results["pieces"] for each in (first, second)]
    return [(one, other) for one, other in zip(*pieces, strict=True) if one["unseen"] and other["unseen"]]


def _difference(measure: str, unit: str, scores: Scores, items: int, seed: int, *, sign: int) -> Difference:
    """Takes both scores on the same draws; ``sign`` is 1 where more is better and -1 where less is."""

    def columns(weights: np.ndarray) -> np.ndarray:
        both = scores(weights)
        return np.column_stack([both, sign * (both[:, 1] - both[:, 0])])

    a, b, gain = bootstrap(columns, items, seed)
    better = "B" if is_better(gain, items) else "A" if is_better(-gain, items) else None
    return Difference(measure, items, unit, a.value, b.value, gain, better)


def _notes(first: _Evaluation, second: _Evaluation) -> list[str]:
    if first.nats is None or second.nats is None:
        return []
    lengths = [each.results["row_length"] for each in (first, second)]
    if lengths[0] == lengths[1]:
        return []
    return [
        f"rows are {lengths[0]:,} tokens long in A and {lengths[1]:,} in B: the pieces are the same, but the one with "
        "the longer rows sees more of a piece at once"
    ]


def _number(value: float) -> str:
    """Two places; nothing rounds to -0."""
    return f"{round(value, 2) + 0.0:.2f}"
