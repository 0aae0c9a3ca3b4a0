"""A 5-gram model of music: what the four tokens before a token tell, and nothing else.

A harder bar than the unigram of likelihood.py, which knows only how common an id is. Tokens are the ids of windows
(likelihood.cut), read as symbols:

- a token competes only with the ids of its own slot: 10,000 onsets, 1,000 durations or 16,513 notes and REST, and
  SEPARATOR, as the unigram's tokens do;
- an onset is read as its distance in ticks from the onset before it (from 0 in the window's first triple), modulo
  10,000, so that each id of the slot has exactly one symbol whatever came before; a distance says more than the time
  since the window began, and this can only make the bar higher;
- four BEGIN symbols stand in front of every window.

Probabilities are those of modified Kneser-Ney smoothing, interpolated, over each slot by itself (Chen and Goodman 1999,
"An empirical study of smoothing techniques for language modeling", section 3):

    p_k(w | h) = (c_k(h w) - D_k(c_k(h w)) + g_k(h) p_{k-1}(w | h')) / c_k(h)

where h is a context of k symbols, h' the same without the one that is forgotten first, c_4 in how many pieces a gram of
five occurs, c_k below that how many different symbols the forgotten one was, D_k one discount each for counts of 1, 2
and 3 or more, and g_k(h) what the discounts took from h. Behind a context that was never seen p_k is p_{k-1}; below p_0
stands the same share for every id of the slot. So p_k sums to 1 over a slot, and no id has 0.

Counting pieces instead of occurrences departs from the paper: what goes round in one piece says little of another, and
a model that takes it for common foresees other pieces worse (by 0.6 bits a note on the pieces that chose BACK_OFF).

Which symbol is forgotten first is a choice of each slot (BACK_OFF), as in a factored language model (Bilmes and
Kirchhoff 2003, "Factored language models and generalized parallel backoff"): a duration hangs on the last duration more
than on the note that lies between.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from midillm_jax.evaluation.likelihood import PLAIN_WIDTHS, slot_indices
from midillm_jax.music.amt import DEFAULT_VELOCITY
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import MAX_ONSET_TICKS, NOTES

ORDER = 5
"""Tokens of a gram: the one foretold and the four before it."""
BACK_OFF = ((3, 2, 1, 4), (3, 1, 4, 2), (3, 2, 4, 1))
"""By slot (onset, duration, note), how many tokens back the symbols of a context stand: what is forgotten last first.

Each was the best of the 24 on a tenth of the 1,054 training pieces of a corpus of real music, counted by occurrence on
the other nine tenths.
"""
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Where the counts of counts give none, as where each of a few grams occurs often; those of KenLM's lmplz."""
BEGIN = max(PLAIN_WIDTHS) + 1
_BASE = BEGIN + 1
"""Symbols of any slot are below this."""
_COLUMNS = tuple([*(ORDER - 1 - back for back in reversed(order)), ORDER - 1] for order in BACK_OFF)
"""Where a gram's symbols stand in a run of five tokens."""


def symbols(amt_ids: np.ndarray) -> np.ndarray:
    """A window's triples as symbols of their slots, int64 [n, 3]: onsets as distances, SEPARATOR behind the others."""
    rows = slot_indices(amt_ids)
    onsets = rows[:, 0]
    distances = np.diff(onsets, prepend=0) % MAX_ONSET_TICKS
    rows[:, 0] = np.where(onsets < MAX_ONSET_TICKS, distances, onsets)
    return rows


def grams(amt_ids: np.ndarray) -> list[np.ndarray]:
    """By slot, every token of a window behind its context: int64 [n, 5], the symbol that counts least first."""
    flat = np.concatenate([np.full(ORDER - 1, BEGIN), symbols(amt_ids).reshape(-1)])
    runs = np.lib.stride_tricks.sliding_window_view(flat, ORDER)
    return [runs[slot::3][:, columns] for slot, columns in enumerate(_COLUMNS)]


@dataclasses.dataclass(frozen=True)
class Level:
    """What follows k symbols."""

    contexts: np.ndarray
    """Sorted keys of the contexts seen: number of the context that is one symbol shorter, and that symbol."""
    grams: np.ndarray
    """Sorted keys of what was seen: number of the context, and the symbol that follows."""
    counts: np.ndarray
    """c_k(h w) of each gram."""
    discounts: np.ndarray
    """D_k of the counts 0, 1, 2 and 3 or more."""
    totals: np.ndarray
    """c_k(h) of each context."""
    taken: np.ndarray
    """g_k(h) of each context."""


class Ngram:
    """The 5-gram model of the pieces that were added; it counts them when it is first asked."""

    def __init__(self) -> None:
        self._pieces: list[list[np.ndarray]] = []

    def add(self, windows: Sequence[np.ndarray]) -> None:
        """Takes a piece's windows to count; what is added after the first question is not counted."""
        self._pieces.append(list(windows))

    def nats(self, amt_ids: np.ndarray) -> np.ndarray:
        """Negative log-likelihood of a window by slot, float64 [3]."""
        return np.array(
            [
                -np.log(probabilities(levels, asked, width + 1)).sum()
                for levels, asked, width in zip(self.slots, grams(amt_ids), PLAIN_WIDTHS, strict=True)
            ]
        )

    def sample(self, notes: int, rng: np.random.Generator) -> NoteTable:
        """Draws a piece of that many notes, token by token, each behind the four before it.

        Symbols that would end the piece are drawn again, so that the length is the caller's; rests are left out of
        the table but stay in the context. A piece may go on for longer than a window.
        """
        history = [BEGIN] * (ORDER - 1)
        onset = 0
        rows: list[tuple[int, int, int]] = []
        while len(rows) < notes:
            for slot, width in enumerate(PLAIN_WIDTHS):
                history.append(_draw(self.slots[slot], [history[-back] for back in BACK_OFF[slot]], width, rng))
            distance, duration, note = history[-len(PLAIN_WIDTHS) :]
            onset += distance
            if note < NOTES:
                rows.append((onset, duration, note))
        onsets, durations, played = np.array(rows, np.int32).reshape(-1, 3).T
        return NoteTable(onsets, durations, played, np.full(len(rows), DEFAULT_VELOCITY, np.uint8))

    @functools.cached_property
    def slots(self) -> list[list[Level]]:
        """By slot and length of the context."""
        windows = [window for piece in self._pieces for window in piece]
        triples = [sum(map(len, piece)) // 3 for piece in self._pieces]
        of = np.repeat(np.arange(len(triples)), triples)
        none = [np.zeros((0, ORDER), np.int64)] * len(PLAIN_WIDTHS)
        by_slot = zip(none, *map(grams, windows), strict=True)
        return [count(np.concatenate(parts), of) for parts in by_slot]


def count(seen: np.ndarray, pieces: np.ndarray) -> list[Level]:
    """The levels k = 0 ... 4 of the grams of one slot, int64 [n, 5], each in the piece of that number, int64 [n]."""
    keys = []
    number = np.zeros(len(seen), np.int64)
    for length in range(ORDER):
        contexts, number = np.unique(number * _BASE + _older(seen, length), return_inverse=True)
        found, gram = np.unique(number * _BASE + seen[:, -1], return_inverse=True)
        keys.append((contexts, found))
    levels = []
    for (contexts, found), (longer_contexts, longer) in itertools.pairwise(keys):
        shorter = longer_contexts[longer // _BASE] // _BASE * _BASE + longer % _BASE
        levels.append(_level(contexts, found, np.bincount(np.searchsorted(found, shorter), minlength=len(found))))
    # Each pair of a gram and a piece once.
    most = pieces.max(initial=0) + 1
    counts = np.bincount(np.unique(gram * most + pieces) // most, minlength=len(found))
    return [*levels, _level(*keys[-1], counts)]


def _level(contexts: np.ndarray, found: np.ndarray, counts: np.ndarray) -> Level:
    discounts = _discounts(counts)
    context = found // _BASE
    totals = np.bincount(context, counts, len(contexts))
    taken = np.bincount(context, discounts[np.minimum(counts, 3)], len(contexts))
    return Level(contexts, found, counts, discounts, totals, taken)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Of the counts 0, 1, 2 and 3 or more, float64 [4], from how many grams have the counts 1, 2, 3 and 4."""
    once, twice, thrice, four = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if min(once, twice, thrice) > 0:
        share = once / (once + 2 * twice)
        found = (1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice)
        if min(found) > 0:
            return np.array([0.0, *found])
    return np.array([0.0, *FALLBACK_DISCOUNTS])


def probabilities(levels: list[Level], asked: np.ndarray, ids: int) -> np.ndarray:
    """How likely the last symbols of grams of one slot are behind the others.

    Args:
        levels: of the slot.
        asked: int64 [n, 5].
        ids: that the slot can hold.

    Returns:
        float64 [n].
    """
    chances = np.full(len(asked), 1 / ids)
    number = np.zeros(len(asked), np.int64)
    known = np.ones(len(asked), bool)
    for length, level in enumerate(levels):
        if not len(level.contexts):
            break
        number, is_there = _find(level.contexts, number * _BASE + _older(asked, length))
        known &= is_there
        gram, is_there = _find(level.grams, number * _BASE + asked[:, -1])
        counts = np.where(is_there, level.counts[gram], 0)
        kept = counts - level.discounts[np.minimum(counts, 3)]
        chances = np.where(known, (kept + level.taken[number] * chances) / level.totals[number], chances)
    return chances


def _draw(levels: list[Level], context: Sequence[int], width: int, rng: np.random.Generator) -> int:
    """A symbol below ``width`` behind its context, the symbol that counts most first.

    What a level keeps after its discounts is drawn there, what they took in the level below, at last any id of the
    slot alike: that is the mixture whose probabilities are :func:`probabilities`.
    """
    numbers = []
    number = 0
    for level, older in zip(levels, (0, *context), strict=True):
        if not len(level.contexts):
            break
        places, there = _find(level.contexts, np.array([number * _BASE + older]))
        if not there[0]:
            break
        number = int(places[0])
        numbers.append(number)
    while True:
        symbol = _drawn_from(levels, numbers, width + 1, rng)
        if symbol < width:
            return symbol


def _drawn_from(levels: list[Level], numbers: Sequence[int], ids: int, rng: np.random.Generator) -> int:
    """A symbol, end included, behind the contexts that are known, of each length one."""
    for level, number in reversed(list(zip(levels, numbers, strict=False))):
        first, last = np.searchsorted(level.grams, [number * _BASE, (number + 1) * _BASE])
        counts = level.counts[first:last]
        kept = np.cumsum(counts - level.discounts[np.minimum(counts, 3)])
        drawn = rng.random() * level.totals[number]
        if drawn < kept[-1]:
            return int(level.grams[first + np.searchsorted(kept, drawn, side="right")] % _BASE)
    return int(rng.integers(ids))


def _older(rows: np.ndarray, length: int) -> np.ndarray:
    """What makes a context of ``length`` symbols from one a symbol shorter; 0 for the empty one."""
    return rows[:, -1 - length] if length else np.zeros(len(rows), np.int64)


def _find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where keys stand among sorted ones, and whether they do; where not, any place."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted
