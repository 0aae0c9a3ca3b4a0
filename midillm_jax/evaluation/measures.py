"""What each measure of music can tell from real music with its captions, found by trying.

Every symbolic measure of the project is taken of real pieces and of the same pieces made worse (degraded.py). A measure
*sees* a set if its score differs from that of the real pieces, piece by piece on the same resamples, by more than
chance (intervals.py), and to the worse side where it has one. What it *claims* to see stands in MEASURES; where no
claim stands, equal scores are no fault. Claims that real music did not bear out were withdrawn: that a tempo within a
bin of the one asked for is not met by noise, that a 5-gram does not play all instruments asked for, and that the
structure of a motif, 3 to 8 seconds, is lost with the order of pitches. docs/evaluation.md has the figures.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from midillm_jax.evaluation import control, quality
from midillm_jax.evaluation.degraded import LADDER, NGRAM, NOISE, OTHER, REAL, SCRAMBLED, SHUFFLED, Outputs
from midillm_jax.evaluation.failed import SIGNS
from midillm_jax.evaluation.intervals import LEAST_ITEMS, Interval, bootstrap
from midillm_jax.evaluation.likelihood import Unigram, cut, sounding
from midillm_jax.evaluation.ngram import Ngram
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.evaluation.prompt_players import asks_for_drums
from midillm_jax.evaluation.symbolic import has_drums, instrument_matrix
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.signatures import signatures

WINDOW = 682
"""Triples of the windows in which pieces are scored: what a row of 2,048 tokens holds."""

Side = Literal["more", "less", "other"]
"""What is better: more, less, or neither, where another value than real music's is all that counts."""
Statistic = Callable[[np.ndarray], np.ndarray]
"""How often each piece is drawn, float64 [R, n] -> the score, float64 [R]."""
Statistics = dict[str, Statistic]


class Measure(NamedTuple):
    """What is known of a measure beforehand."""

    better: Side
    claims: frozenset[str]
    """The sets that it claims to tell from real music."""


_UNASKED = {SHUFFLED, OTHER, NGRAM}
"""Music that was not made for the caption."""
_DISORDER = {SCRAMBLED, NOISE}
"""Notes of which none follows from those before."""
_CONTROL: dict[str, set[str]] = {
    "tempo_bin": {*_UNASKED, NOISE},
    "tempo_bin_near": set(),
    "tempo_bin_octave": {*_UNASKED, NOISE},
    "key": {*_UNASKED, NOISE},
    "key_or_relative": {*_UNASKED, NOISE},
    "drums": {*_UNASKED, NOISE},
    "meter": set(),
    "length": {SHUFFLED, OTHER},
    "instrument_precision": {*_UNASKED, NOISE},
    "instrument_recall": {SHUFFLED, OTHER},
    "instrument_f1": {*_UNASKED, NOISE},
}
_LIKENESS: dict[str, set[str]] = {
    "pitch_class_entropy": {NOISE},
    "scale_consistency": {NOISE},
    "groove_consistency": {NOISE},
    "polyphony": {NOISE},
    "polyphony_rate": set(),
    "empty_share": set(),
    "compression_ratio": {*_DISORDER, NGRAM},
    "structureness_short": {NGRAM},
    "structureness_medium": {*_DISORDER, NGRAM},
    "structureness_long": {*_DISORDER, NGRAM},
}
MEASURES: dict[str, Measure] = {
    **{f"as asked: {name}": Measure("more", frozenset(claims)) for name, claims in _CONTROL.items()},
    "drums by the caption": Measure("more", frozenset({*_UNASKED, NOISE})),
    "instruments of the piece, F1": Measure("more", frozenset({*_UNASKED, NOISE})),
    **{f"overlapped area: {name}": Measure("more", frozenset(claims)) for name, claims in _LIKENESS.items()},
    **{f"mean: {name}": Measure("other", frozenset(claims)) for name, claims in _LIKENESS.items()},
    # Signs are of failures that none of these sets is made to have: benchmarks/signatures.py makes those.
    **{f"share {name}": Measure("less", frozenset()) for name in SIGNS},
    "bits a note, unigram": Measure("less", frozenset({NOISE})),
    "bits a note, 5-gram": Measure("less", frozenset(_DISORDER)),
}


@dataclasses.dataclass(frozen=True)
class Gap:
    """How one set scores beside a better one."""

    worse_by: Interval
    """Above 0 where the set is worse; of measures without a better side, its score minus the other's."""
    seen: bool
    """Whether it is worse, or other, by more than chance."""
    contrary: bool
    """Whether it is better by more than chance."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a measure gives each set."""

    measure: str
    better: Side
    claims: frozenset[str]
    scores: Mapping[str, Interval]
    """By set."""
    gaps: Mapping[str, Gap]
    """Beside the real pieces."""
    steps: Mapping[str, Gap]
    """Beside the set before it in LADDER."""
    asked: Mapping[tuple[str, str], Gap]
    """Of the pairs that were asked for, the second beside the first."""

    @property
    def kept(self) -> bool:
        """Whether all that it claims to see is seen."""
        return all(self.gaps[name].seen for name in self.claims)

    def order(self) -> str:
        """LADDER by small initials: ``r > c = o``; ``<`` where the later set is better, ``#`` where it is other."""
        seen = "#" if self.better == "other" else ">"
        signs = (f" {seen if gap.seen else '<' if gap.contrary else '='} {name[0]}" for name, gap in self.steps.items())
        return REAL[0] + "".join(signs)

    def to_json(self) -> dict[str, Any]:
        asked = {f"{second} beside {first}": dataclasses.asdict(gap) for (first, second), gap in self.asked.items()}
        known = {"claims": sorted(self.claims), "kept": self.kept, "order": self.order(), "asked": asked}
        return dataclasses.asdict(dataclasses.replace(self, asked={})) | known


def count(tables: Sequence[NoteTable]) -> tuple[Unigram, Ngram]:
    """The unigram and the 5-gram of these pieces, each cut into windows from its start on."""
    unigram, ngram = Unigram(), Ngram()
    for table in tables:
        windows = [window.amt_ids for window in cut(table, WINDOW)]
        ngram.add(windows)
        for window in windows:
            unigram.add(window)
    return unigram, ngram


def find(
    sets: Mapping[str, Outputs],
    references: Sequence[NoteTable],
    unigram: Unigram,
    ngram: Ngram,
    seed: int,
    report: Callable[[str], None],
    pairs: Sequence[tuple[str, str]] = (),
) -> list[Finding]:
    """Takes every measure of every set, but for those that fewer than LEAST_ITEMS pieces of one have.

    Args:
        sets: of :func:`~midillm_jax.evaluation.degraded.degrade`, and of what models wrote, if any.
        references: real pieces, none of which is among the sets, that likeness is measured by.
        unigram, ngram: counted on pieces that are not among the sets.
        seed: of the resamples.
        report: called with the name of each set before it is measured.
        pairs: of sets that are to be compared too, the one that should be better first.
    """
    real = [quality.values(quality.measure(table)) for table in references]
    statistics: dict[str, Statistics] = {}
    of_music: dict[tuple[NoteTable, ...], Statistics] = {}
    for name, outputs in sets.items():
        report(name)
        if outputs.tables not in of_music:
            of_music[outputs.tables] = {
                **_likeness(outputs.tables, real),
                **_signs(outputs.tables),
                **_bits(outputs.tables, unigram, ngram),
            }
        statistics[name] = _as_asked(outputs) | of_music[outputs.tables]
    items = len(sets[REAL].tables)
    return [
        _finding(name, measure, {each: statistics[each][name] for each in sets}, items, seed, pairs)
        for name, measure in MEASURES.items()
        if all(name in every for every in statistics.values())
    ]


def _finding(
    name: str, measure: Measure, statistics: Statistics, items: int, seed: int, asked: Sequence[tuple[str, str]]
) -> Finding:
    beside_real = [(REAL, each) for each in statistics if each != REAL]
    pairs = [*beside_real, *itertools.pairwise(LADDER), *asked]
    sign = -1 if measure.better == "more" else 1

    def columns(weights: np.ndarray) -> np.ndarray:
        scores = {each: statistic(weights) for each, statistic in statistics.items()}
        return np.stack([*scores.values(), *(sign * (scores[b] - scores[a]) for a, b in pairs)], axis=1)

    found = bootstrap(columns, items, seed)
    gaps = [_gap(interval, measure.better, items) for interval in found[len(statistics) :]]
    steps, rest = gaps[len(beside_real) :], gaps[len(beside_real) + len(LADDER) - 1 :]
    return Finding(
        measure=name,
        better=measure.better,
        claims=measure.claims,
        scores=dict(zip(statistics, found, strict=False)),
        gaps={pair[1]: gap for pair, gap in zip(beside_real, gaps, strict=False)},
        steps=dict(zip(LADDER[1:], steps, strict=False)),
        asked=dict(zip(asked, rest, strict=True)),
    )


def _gap(worse_by: Interval, better: Side, items: int) -> Gap:
    above, below = (items >= LEAST_ITEMS and beyond for beyond in (worse_by.low > 0, worse_by.high < 0))
    return Gap(worse_by, above or below, False) if better == "other" else Gap(worse_by, above, below)


def _ratio(parts: Sequence[float | None], wholes: Sequence[float | None] | None = None) -> Statistic | None:
    """A sum over a sum, of pieces that have both; of parts alone their mean. None where too few pieces have any."""
    part = np.array(parts, np.float64)
    whole = np.ones_like(part) if wholes is None else np.array(wholes, np.float64)
    has = ~np.isnan(part)
    if has.sum() < LEAST_ITEMS:
        return None
    part, whole = (np.where(has, each, 0) for each in (part, whole))
    return lambda weights: _divided(weights @ part, weights @ whole)


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where no piece that was drawn has any."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _given(statistics: Mapping[str, Statistic | None]) -> Statistics:
    return {name: statistic for name, statistic in statistics.items() if statistic is not None}


def _as_asked(outputs: Outputs) -> Statistics:
    """What prompts ask for, read from their words, and the programs of the piece that a caption describes."""
    found = [
        control.score(table, read_prompt(caption))
        for table, caption in zip(outputs.tables, outputs.captions, strict=True)
    ]
    counts = [each.instruments for each in found]
    fitting, played, hits, wanted = (
        [None if count is None else getattr(count, field) for count in counts]
        for field in ("fitting", "played", "found", "wanted")
    )
    precision, recall = _ratio(fitting, played), _ratio(hits, wanted)
    drums = [asks_for_drums(caption) for caption in outputs.captions]
    has = [has_drums(table) for table in outputs.tables]
    agree = [None if ask is None else float(ask == plays) for ask, plays in zip(drums, has, strict=True)]
    asked, plays = (
        instrument_matrix(programs) for programs in (outputs.wanted, [table.programs() for table in outputs.tables])
    )
    statistics = {
        f"as asked: {name}": _ratio([getattr(each, name) for each in found])
        for name in control.MEASURES
        if not name.startswith("instrument")
    }
    statistics |= {
        "as asked: instrument_precision": precision,
        "as asked: instrument_recall": recall,
        "drums by the caption": _ratio(agree),
        "instruments of the piece, F1": _ratio((2 * asked * plays).sum(1).tolist(), (asked + plays).sum(1).tolist()),
    }
    if precision is not None and recall is not None:
        statistics["as asked: instrument_f1"] = _harmonic(precision, recall)
    return _given(statistics)


def _harmonic(precision: Statistic, recall: Statistic) -> Statistic:
    def f1(weights: np.ndarray) -> np.ndarray:
        both = precision(weights), recall(weights)
        return _divided(2 * both[0] * both[1], both[0] + both[1])

    return f1


def _likeness(tables: Sequence[NoteTable], references: Sequence[Mapping[str, float]]) -> Statistics:
    mine = [quality.values(quality.measure(table)) for table in tables]
    statistics: dict[str, Statistic | None] = {}
    for name in _LIKENESS:
        column = [each.get(name) for each in mine]
        theirs = np.array([each[name] for each in references if name in each])
        statistics[f"mean: {name}"] = _ratio(column)
        if len(theirs) and statistics[f"mean: {name}"] is not None:
            statistics[f"overlapped area: {name}"] = _overlap(np.array(column, np.float64), theirs)
    return _given(statistics)


def _overlap(mine: np.ndarray, theirs: np.ndarray) -> Statistic:
    """Of the pieces that have the measure."""
    has = ~np.isnan(mine)
    overlap = quality.resampled_overlap(mine[has], theirs)

    def drawn(weights: np.ndarray) -> np.ndarray:
        some = weights[:, has]
        # A draw that has none of them, of which there is one in thousands, counts each once.
        return overlap(np.where(some.any(1, keepdims=True), some, 1.0))

    return drawn


def _signs(tables: Sequence[NoteTable]) -> Statistics:
    found = [signatures(table) for table in tables]
    columns = {sign: [float(getattr(each, sign)) for each in found] for sign in SIGNS}
    return _given({f"share {sign}": _ratio(column) for sign, column in columns.items()})


def _bits(tables: Sequence[NoteTable], unigram: Unigram, ngram: Ngram) -> Statistics:
    windows = [[window.amt_ids for window in cut(table, WINDOW)] for table in tables]
    notes = [float(sum(map(sounding, ids))) for ids in windows]
    statistics: dict[str, Statistic | None] = {}
    for name, model in (("unigram", unigram), ("5-gram", ngram)):
        bits = [float(sum(model.nats(window).sum() for window in ids) / np.log(2)) for ids in windows]
        statistics[f"bits a note, {name}"] = _ratio(bits, notes)
    return _given(statistics)
