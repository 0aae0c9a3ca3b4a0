"""The chords of a piece and the progression that it repeats, from its notes alone.

Every bar is cut into whole beats in a few ways; each part takes the chord whose tones fit best what sounds in it, and
the way that fits best, less a price a part, is kept. This is template matching (T. Fujishima, "Realtime Chord
Recognition of Musical Sound", ICMC 1999) on notes in place of a spectrum.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from midillm_jax.data.beats import Grid
from midillm_jax.data.tonality import Key, tuned
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import PITCHES

QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "dim": (0, 3, 6),
    "m7b5": (0, 3, 6, 10),
    "dim7": (0, 3, 6, 9),
    "aug": (0, 4, 8),
    "sus4": (0, 5, 7),
    "5": (0, 7),
}
"""Semitones above the root, by what a chord's name adds to its root."""
_SUFFIXES = tuple(QUALITIES)
_PRICES = {
    **{"7": 0.02, "m7": 0.04, "maj7": 0.06, "dim": 0.04, "m7b5": 0.04, "dim7": 0.1, "aug": 0.08},
    **{"sus4": 0.06, "5": 0.15},
}
"""What a quality has to fit better by than a major or a minor triad."""
_ROOT_IN_BASS = 0.15
_PART_PRICE = 0.03
"""What every further chord in a bar has to make good."""
_WEAK_BASS = 0.2
"""Weight of the bass of a part's later beats beside its first."""
_LEAST_FIT = 0.75
"""Cosine below which a part has no chord."""
_LEAST_OVERLAP = 0.1
"""Share of a beat that a note must sound to be its bass."""
_PERIODS = (3, 4, 5)
_LEAST_SHARE = 0.5
"""Of the time that must have a chord for the piece to have a progression."""
_LEAST_COVERED = 0.125
"""Share of a piece's chords that a repeated run must make up."""
_NO_CHORD = -1


class Chord(NamedTuple):
    """A chord: its root (pitch class) and what its name adds to the root."""

    root: int
    quality: str

    def name(self, key: Key | None) -> str:
        """ "Bbm7", the root as it is spelled in the key."""
        return _spelled(self, key) + self.quality


_Run = tuple[Chord | None, ...]


@dataclass(frozen=True)
class Progression:
    """Chords that follow one another, each unlike the one before."""

    chords: tuple[Chord, ...]
    occurrences: int
    """How often they do, without overlap."""


@dataclass(frozen=True)
class Harmony:
    """The chords of a piece, in order, each unlike the one before."""

    chords: tuple[Chord | None, ...]
    """None where nothing that sounds is a chord."""
    starts: tuple[float, ...]
    """Ticks of 10 ms."""
    end: float
    """Tick at which the last one ends."""
    share: float
    """Of the time, with a chord."""


def find_harmony(table: NoteTable, grid: Grid) -> Harmony:
    """Chords by the grid's bars and beats."""
    chroma, lowest = _beat_contents(table, grid)
    first, counts = np.unique(grid.bars, return_index=True, return_counts=True)[1:]
    parts = [_cut_bars(chroma, lowest, first[counts == size], int(size)) for size in np.unique(counts)]
    beats, chords = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(beats)
    starts, chords = grid.edges[beats[order]], chords[order]
    lengths = np.diff(starts, append=grid.edges[-1])
    share = float(lengths[chords != _NO_CHORD].sum() / max(lengths.sum(), 1.0))
    changes = np.append(True, chords[1:] != chords[:-1])
    named = tuple(_chord(number) for number in chords[changes].tolist())
    return Harmony(named, tuple(starts[changes].tolist()), float(grid.edges[-1]), share)


def _chord(number: int) -> Chord | None:
    return None if number == _NO_CHORD else Chord(number % 12, _SUFFIXES[number // 12])


def _beat_contents(table: NoteTable, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """float32 [beats, 12], ticks for which each pitch class sounds; int64 [beats], the lowest one, or -1."""
    chosen = tuned(table)
    begins = table.onsets[chosen].astype(np.float64)
    ends = begins + np.maximum(table.durations[chosen], 1)
    pitches = (table.notes[chosen] % PITCHES).astype(np.int64)
    last = len(grid.bars) - 1
    first = np.clip(np.searchsorted(grid.edges, begins, side="right") - 1, 0, last)
    final = np.clip(np.searchsorted(grid.edges, ends, side="left") - 1, first, last)
    spans = final - first + 1
    note = np.repeat(np.arange(len(begins)), spans)
    beat = first[note] + np.arange(len(note)) - np.repeat(np.cumsum(spans) - spans, spans)
    lower, upper = grid.edges[beat], grid.edges[beat + 1]
    overlap = np.maximum(np.minimum(ends[note], upper) - np.maximum(begins[note], lower), 0)
    chroma = np.bincount(12 * beat + pitches[note] % 12, weights=overlap, minlength=12 * (last + 1)).reshape(-1, 12)
    chroma = chroma.astype(np.float32)  # precise enough, and what follows is quicker
    lowest = np.full(last + 1, PITCHES)
    heard = overlap >= _LEAST_OVERLAP * (upper - lower)
    np.minimum.at(lowest, beat[heard], pitches[note][heard])
    return chroma, np.where(lowest < PITCHES, lowest % 12, -1)


def _cut_bars(chroma: np.ndarray, lowest: np.ndarray, first: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the bars that begin at the beats ``first`` and have ``size`` beats: first beats, chord numbers."""
    beats = first[:, None] + np.arange(size)
    bar_chroma = chroma[beats]
    mass = np.maximum(bar_chroma.sum((1, 2)), 1e-9)
    ways = _ways(size)
    totals, numbers = [], []
    for way in ways:
        chords_of_way, fits, masses = _fit(bar_chroma, lowest[beats], way)
        totals.append((fits * masses).sum(1) / mass - _PART_PRICE * (len(way) - 1))
        numbers.append(chords_of_way)
    chosen = np.argmax(totals, axis=0)
    starts, chords = [], []
    for place, way in enumerate(ways):
        mine = chosen == place
        starts.append((first[mine, None] + np.array(way)).ravel())
        chords.append(numbers[place][mine].ravel())
    return np.concatenate(starts), np.concatenate(chords)


def _ways(size: int) -> list[tuple[int, ...]]:
    """Ways to cut a bar of ``size`` beats, each as its parts' first beats."""
    ways: list[tuple[int, ...]] = [(0,)]
    if size % 2 == 0 and size > 2:
        ways.append((0, size // 2))
    if size == 3:
        ways += [(0, 2), (0, 1)]
    if size > 1:
        ways.append(tuple(range(size)))
    return ways


def _fit(chroma: np.ndarray, lowest: np.ndarray, way: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each part [bars, parts]: the number of the chord that fits best, how well, and ticks sounding in it."""
    size = lowest.shape[1]
    sounding = np.add.reduceat(chroma, way, axis=1)
    weights = np.full(size, _WEAK_BASS, np.float32)
    weights[list(way)] = 1.0
    bass = np.add.reduceat((lowest[:, :, None] == np.arange(12)) * weights[:, None], way, axis=1)
    bass /= np.maximum(bass.sum(2, keepdims=True), 1e-9)
    masses = sounding.sum(2)
    shape = np.sqrt(sounding)
    shape /= np.maximum(np.linalg.norm(shape, axis=2, keepdims=True), 1e-9)
    cosines = shape @ _TEMPLATES.T
    scores = cosines - _QUALITY_PRICES
    scores.reshape(*masses.shape, -1, 12)[...] += _ROOT_IN_BASS * bass[:, :, None]
    numbers = scores.argmax(2)
    fits = np.take_along_axis(scores, numbers[..., None], 2)[..., 0]
    cosine = np.take_along_axis(cosines, numbers[..., None], 2)[..., 0]
    enough = (cosine >= _LEAST_FIT) & (np.count_nonzero(sounding, 2) >= 2)
    return np.where(enough, numbers, _NO_CHORD), fits, masses


def _templates() -> np.ndarray:
    """float32 [12 * qualities, 12], each row of length 1; the root turns fastest."""
    rows = np.zeros((len(QUALITIES), 12, 12))
    for number, tones in enumerate(QUALITIES.values()):
        for root in range(12):
            rows[number, root, [(root + tone) % 12 for tone in tones]] = 1 / np.sqrt(len(tones))
    return rows.reshape(-1, 12).astype(np.float32)


_TEMPLATES = _templates()
_QUALITY_PRICES = np.repeat([_PRICES.get(quality, 0.0) for quality in QUALITIES], 12).astype(np.float32)


def triad_shares(harmony: Harmony) -> np.ndarray:
    """float64 [24]: share of the time under each major triad, C upwards, and each minor one, sevenths or none."""
    shares = np.zeros(24)
    for chord, start, end in zip(harmony.chords, harmony.starts, (*harmony.starts[1:], harmony.end), strict=True):
        if chord is not None and _THIRDS[chord.quality] in ("major", "minor"):
            shares[chord.root + 12 * (_THIRDS[chord.quality] == "minor")] += end - start
    return shares / max(shares.sum(), 1.0)


def find_progression(harmony: Harmony) -> Progression | None:
    """The three to five chords that come round most, two where they alternate; all of a piece that has few.

    Of two runs the one that covers more of the piece counts, then the longer, then the earlier. None where chords are
    heard for less than half of the time, or nothing comes round for an eighth of it.
    """
    if harmony.share < _LEAST_SHARE:
        return None
    chords = _settled(harmony)
    counts: dict[_Run, int] = {}
    ends: dict[_Run, int] = {}
    for length in _PERIODS:
        for start in range(len(chords) - length + 1):
            window = chords[start : start + length]
            if start >= ends.get(window, 0):
                counts[window] = counts.get(window, 0) + 1
                ends[window] = start + length
    runs = [run for run, times in counts.items() if times > 1 and _moves(run)]
    run = max(runs, key=lambda run: (counts[run] * len(run), len(run)), default=())
    times = counts.get(run, 0)
    if times < 2:
        few = 2 <= len(harmony.chords) <= max(_PERIODS) and _moves(harmony.chords)
        run, times = (harmony.chords, 1) if few else ((), 0)
    elif times * len(run) < _LEAST_COVERED * len(chords):
        run = ()
    else:
        run = run[: _period(run)]
        times = _occurrences(chords, run)
    known = tuple(chord for chord in run if chord is not None)
    return Progression(known, times) if known else None


def _moves(run: _Run) -> bool:
    """Whether all of a run are chords, and not of one root."""
    return None not in run and len({chord.root for chord in run if chord is not None}) > 1


def _period(run: _Run) -> int:
    """Chords after which a run repeats itself for nearly half of its length, as C F C F and C F G C F do."""
    periods = (at for at in range(2, len(run)) if 2 * at < len(run) + 2 and run[at:] == run[:-at])
    return next(periods, len(run))


def _occurrences(chords: _Run, run: _Run) -> int:
    """How often a run comes, without overlap."""
    count = at = 0
    while at <= len(chords) - len(run):
        found = chords[at : at + len(run)] == run
        count += found
        at += len(run) if found else 1
    return count


def _settled(harmony: Harmony) -> _Run:
    """The chords with one quality for each root and third, that which lasts longest, and equal neighbours as one.

    A melody that touches a seventh now and then does not make another chord of the same harmony. A chord without a
    third goes with those on its root that have one.
    """
    lasting: dict[Chord, float] = {}
    ends = (*harmony.starts[1:], harmony.end)
    for chord, start, end in zip(harmony.chords, harmony.starts, ends, strict=True):
        if chord is not None:
            lasting[chord] = lasting.get(chord, 0.0) + end - start
    longest_first = sorted(lasting, key=lambda chord: -lasting[chord])
    place: dict[Chord | None, Chord | None] = {None: None}
    for chord in longest_first:
        like = [other for other in longest_first if other.root == chord.root and _THIRDS[other.quality]]
        third = _THIRDS[chord.quality] or (_THIRDS[like[0].quality] if like else "")
        place[chord] = next((other for other in like if _THIRDS[other.quality] == third), chord)
    settled = [place[chord] for chord in harmony.chords]
    return tuple(chord for chord, _ in itertools.groupby(settled))


_THIRDS = {
    quality: "diminished" if 6 in tones else "major" if 4 in tones else "minor" if 3 in tones else ""
    for quality, tones in QUALITIES.items()
}
"""What kind of triad a quality has; empty without a third."""

_LETTERS = "FCGDAEB"
_FLATTEST = -7
_SHARPEST = 10
"""Cb and A#: beyond, a chord's other name is the one that people read. Diminished chords go up to B#."""


def _spelled(chord: Chord, key: Key | None) -> str:
    """The root's name within twelve fifths around the key's tonic.

    Those are the flat second to the raised fourth; of diminished chords, which lead upwards, sharper ones.
    """
    tonic = 0 if key is None else _fifths(key)
    flattest, sharpest = tonic - 5, _SHARPEST
    if _THIRDS[chord.quality] == "diminished":
        flattest += 4 if key is None or key.mode == "major" else 1
        sharpest += 2
    place = flattest + (7 * chord.root - flattest) % 12
    place += 12 * ((place < _FLATTEST) - (place > sharpest))
    turn, letter = divmod(place + 1, 7)
    return _LETTERS[letter] + ("#" * turn if turn >= 0 else "b" * -turn)


def _fifths(key: Key) -> int:
    """Where the tonic, as the key's name spells it, stands on the line of fifths; C is 0."""
    name = key.name.split()[0]
    return _LETTERS.index(name[0]) - 1 + 7 * (name.count("#") - name[1:].count("b"))
