"""Does music have the tempo, key, instruments, drums, meter and length that were asked for? Read from its notes alone.

Tempo bin (TB), tempo bin with tolerance (TBT), correct key (CK) and correct key with duplicates (CKD) are the measures
of Text2midi (K. Bhandari et al., AAAI 2025), whose bins are those in which MidiCaps names tempos. Published figures
read the tempo off the file; a model that writes plain notes leaves none there, so that here it is heard
(:mod:`~midillm_jax.music.rhythm`), and a score cannot pass what its estimator reaches on the very pieces that the
columns describe. That ceiling is found by scoring those pieces too; ``benchmarks/control.py`` prints it.
"""

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from midillm_jax.data.tonality import Key, estimate_key
from midillm_jax.evaluation.asked import Asked
from midillm_jax.evaluation.intervals import Interval, bootstrap, is_better
from midillm_jax.evaluation.symbolic import has_drums
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.rhythm import Rhythm, beats_a_quarter, find_rhythm, meter_kind
from midillm_jax.music.vocab import DRUM_PROGRAM, TICKS_PER_SECOND

TEMPO_BINS = (40, 60, 70, 90, 110, 140, 160, 210)
"""Beats a minute that end a bin and are in it: Grave, Largo, Adagio, Andante, Moderato, Allegro, Vivace, Presto, and
Prestissimo above (MidiCaps' pipeline.py, "tempo_marks")."""
LENGTH_FACTOR = 1.25
"""By which a length may miss what was asked for, either way."""
_OCTAVES = (0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True)
class Heard:
    """The facts of a piece."""

    programs: tuple[int, ...]
    """Drums apart."""
    drums: bool
    rhythm: Rhythm | None
    key: Key | None
    """The likeliest, clear or not; chords are not asked, since they need a file's bars."""
    seconds: float
    """From the first onset to the last end."""


def hear(notes: NoteTable) -> Heard:
    """Reads or estimates the facts; an empty piece has none."""
    if not len(notes):
        return Heard((), False, None, None, 0.0)
    estimate = estimate_key(notes)
    return Heard(
        programs=tuple(program for program in notes.programs() if program != DRUM_PROGRAM),
        drums=has_drums(notes),
        rhythm=find_rhythm(notes),
        key=None if estimate is None else estimate.key,
        seconds=notes.seconds() - int(notes.onsets[0]) / TICKS_PER_SECOND,
    )


@dataclasses.dataclass(frozen=True)
class InstrumentCounts:
    """Instruments, told apart by the words that captions have for them, drums left out."""

    wanted: int
    found: int
    """Of those wanted."""
    played: int
    fitting: int
    """Of those played, that any wanted one allows."""

    @property
    def precision(self) -> float:
        return self.fitting / max(self.played, 1)

    @property
    def recall(self) -> float:
        return self.found / max(self.wanted, 1)

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclasses.dataclass(frozen=True)
class Control:
    """Whether a piece does what it was asked to; None where nothing was asked, False where nothing can be heard."""

    tempo_bin: bool | None
    """TB: the heard tempo lies in a bin of the one asked for."""
    tempo_bin_near: bool | None
    """TBT: or in the next bin."""
    tempo_bin_octave: bool | None
    """TB for the heard tempo, its half or its double: estimators and listeners differ by such factors."""
    key: bool | None
    """CK; a key's spelling does not count, so that what some call duplicates, Db major and C# major, are one key."""
    key_or_relative: bool | None
    """CKD: or the relative major or minor."""
    drums: bool | None
    meter: bool | None
    """Duple, triple or compound; None for meters of other kinds."""
    length: bool | None
    """Within a quarter of what was asked for."""
    instruments: InstrumentCounts | None


def score(notes: NoteTable, asked: Asked) -> Control:
    """Holds a piece against what was asked for."""
    return compare(hear(notes), asked)


def compare(heard: Heard, asked: Asked) -> Control:
    """Holds what was heard against what was asked for."""
    near = relative = octave = exact = key = None
    if asked.tempo is not None:
        exact, near, octave = _tempo(heard.rhythm, asked.tempo, beats_a_quarter(asked.meter))
    if asked.key is not None:
        key = heard.key == asked.key
        relative = key or heard.key == relative_key(asked.key)
    kind = None if asked.meter is None else meter_kind(*asked.meter)
    return Control(
        tempo_bin=exact,
        tempo_bin_near=near,
        tempo_bin_octave=octave,
        key=key,
        key_or_relative=relative,
        drums=None if asked.drums is None else heard.drums == asked.drums,
        meter=None if kind is None else heard.rhythm is not None and heard.rhythm.meter == kind,
        length=None if asked.seconds is None else _fits(heard.seconds, asked.seconds),
        instruments=None if asked.instruments is None else _instruments(heard.programs, asked.instruments),
    )


def tempo_bin(bpm: float) -> int:
    """0 (Grave) to 8 (Prestissimo), of the tempo in whole beats a minute, as MidiCaps names it."""
    # A word such as "prestissimo" asks for a tempo without an upper limit.
    return len(TEMPO_BINS) if math.isinf(bpm) else bisect.bisect_left(TEMPO_BINS, round(bpm))


def relative_key(key: Key) -> Key:
    """The minor key of a major key's notes, and the other way round."""
    return Key((key.tonic + 9) % 12, "minor") if key.mode == "major" else Key((key.tonic + 3) % 12, "major")


def _tempo(rhythm: Rhythm | None, asked: tuple[float, float], beats: float) -> tuple[bool, bool, bool]:
    """TB, TBT and TB in any octave, in ``beats`` heard a quarter note."""
    if rhythm is None:
        return False, False, False
    first, last = (tempo_bin(beats * bpm) for bpm in asked)
    heard = tempo_bin(rhythm.bpm)
    octave = any(first <= tempo_bin(factor * rhythm.bpm) <= last for factor in _OCTAVES)
    return first <= heard <= last, first - 1 <= heard <= last + 1, octave


def _fits(seconds: float, asked: tuple[float, float]) -> bool:
    return asked[0] / LENGTH_FACTOR <= seconds <= asked[1] * LENGTH_FACTOR


def _instruments(programs: Sequence[int], asked: Sequence[frozenset[int]]) -> InstrumentCounts:
    allowed = frozenset().union(*asked)
    return InstrumentCounts(
        wanted=len(asked),
        found=sum(not wanted.isdisjoint(programs) for wanted in asked),
        played=len({CAPTION_WORDS[program] for program in programs}),
        fitting=len({CAPTION_WORDS[program] for program in programs if program in allowed}),
    )


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure over many outputs."""

    name: str
    prompts: int
    """Those that ask for it; the others are left out."""
    share: Interval
    shuffled: Interval
    """The same outputs held against each other's asks: the mean over all orders."""
    better_by: Interval
    wins: bool


_SHARES = (
    *("tempo_bin", "tempo_bin_near", "tempo_bin_octave", "key", "key_or_relative"),
    *("drums", "meter", "length"),
)
_INSTRUMENTS = ("instrument_precision", "instrument_recall", "instrument_f1")
MEASURES = (*_SHARES, *_INSTRUMENTS)


@dataclasses.dataclass(frozen=True)
class ControlSummary:
    """The measures that any prompt asks for."""

    outputs: int
    measures: tuple[Measure, ...]

    def __getitem__(self, name: str) -> Measure:
        return next(measure for measure in self.measures if measure.name == name)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def summary(heard: Sequence[Heard], asked: Sequence[Asked], seed: int) -> ControlSummary:
    """Shares over outputs, each beside that of shuffled asks, as in :mod:`~midillm_jax.evaluation.symbolic`.

    Counts of instruments are added up over outputs before shares are taken. The work grows with the square of the
    number of outputs.

    Args:
        heard: of each output (:func:`hear`).
        asked: of each output's prompt.
        seed: of the resamples.
    """
    if len(heard) != len(asked):
        raise ValueError(f"{len(heard)} outputs and {len(asked)} asks")
    pairs = [[compare(output, ask) for ask in asked] for output in heard]
    measures: list[Measure] = []
    for name in _SHARES:
        hits = _matrix([[getattr(control, name) for control in row] for row in pairs])
        said = ~np.isnan(np.diagonal(hits))
        hits = hits[np.ix_(said, said)]
        measures += _measures((name,), [hits], [np.ones_like(hits)], lambda shares: shares, seed)
    counts = [[control.instruments for control in row] for row in pairs]
    found, wanted, fitting, played = (
        _matrix([[None if count is None else getattr(count, field) for count in row] for row in counts])
        for field in ("found", "wanted", "fitting", "played")
    )
    said = ~np.isnan(np.diagonal(found))
    said_pairs = np.ix_(said, said)
    parts, wholes = [fitting[said_pairs], found[said_pairs]], [played[said_pairs], wanted[said_pairs]]
    measures += _measures(_INSTRUMENTS, parts, wholes, _with_f1, seed)
    return ControlSummary(len(heard), tuple(measures))


def _matrix(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """float64 [outputs, asks], NaN where nothing is asked."""
    return np.array(rows, np.float64).reshape(len(rows), len(rows))


def _with_f1(shares: np.ndarray) -> np.ndarray:
    """[R, 2], precision and recall -> [R, 3]."""
    precision, recall = shares.T
    return np.stack([precision, recall, _ratio(2 * precision * recall, precision + recall)], axis=1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is nothing of which it could be a part."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _measures(
    names: Sequence[str],
    parts: Sequence[np.ndarray],
    wholes: Sequence[np.ndarray],
    finish: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> list[Measure]:
    """Measures that are ratios of sums over outputs, of parts [n, n] and wholes [n, n], own ones on the diagonal."""
    items = len(parts[0])
    if not items:
        return []

    def shares(weights: np.ndarray) -> np.ndarray:
        own = [_ratio(weights @ np.diagonal(a), weights @ np.diagonal(b)) for a, b in zip(parts, wholes, strict=True)]
        dealt = [
            _ratio(((weights @ a) * weights).sum(1), ((weights @ b) * weights).sum(1))
            for a, b in zip(parts, wholes, strict=True)
        ]
        own_shares, dealt_shares = finish(np.stack(own, axis=1)), finish(np.stack(dealt, axis=1))
        return np.concatenate([own_shares, dealt_shares, own_shares - dealt_shares], axis=1)

    found = bootstrap(shares, items, seed)
    count = len(names)
    return [
        Measure(name, items, own, shuffled, better_by, is_better(better_by, items))
        for name, own, shuffled, better_by in zip(
            names, found[:count], found[count : 2 * count], found[2 * count :], strict=True
        )
    ]
