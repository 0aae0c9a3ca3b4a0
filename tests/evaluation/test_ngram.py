"""The 5-gram model, beside its definition written out, and by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from midillm_jax.evaluation.likelihood import PLAIN_WIDTHS, slot_indices
from midillm_jax.evaluation.ngram import (
    BACK_OFF,
    BEGIN,
    FALLBACK_DISCOUNTS,
    Ngram,
    count,
    grams,
    probabilities,
    symbols,
)
from midillm_jax.music.amt import encode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DURATION_OFFSET, NOTE_OFFSET, REST, SEPARATOR

END = [SEPARATOR] * 3
Gram = tuple[int, ...]


def walk(rng: np.random.Generator, triples: int) -> np.ndarray:
    """A window of few onset distances, durations and notes, with rests and the end."""
    onsets = np.cumsum(rng.choice([0, 5, 12, 100], size=triples, p=[0.4, 0.3, 0.2, 0.1]))
    durations = DURATION_OFFSET + rng.choice([3, 6, 24], size=triples)
    notes = NOTE_OFFSET + 60 + rng.choice(8, size=triples, p=np.array([8, 7, 6, 5, 4, 3, 2, 1]) / 36)
    rests = rng.random(triples) < 0.1
    triples_ = np.stack([onsets, np.where(rests, DURATION_OFFSET, durations), np.where(rests, REST, notes)], axis=1)
    return np.concatenate([triples_.reshape(-1), END])


class Definition:
    """The formula for one slot, from the grams of each piece, one dictionary look-up at a time."""

    def __init__(self, pieces: list[list[Gram]], ids: int) -> None:
        self.ids = ids
        self.counts: list[Counter[Gram]] = [Counter() for _ in range(5)]
        self.counts[4] = Counter(gram for piece in pieces for gram in set(piece))
        seen = list(self.counts[4])
        for length in range(4):
            # One for each different longer gram that ends so, however often it occurs.
            self.counts[length] = Counter(gram[-1 - length :] for gram in {each[-2 - length :] for each in seen})
        self.discounts = [self.of_counts(counts) for counts in self.counts]

    @staticmethod
    def of_counts(counts: Counter[Gram]) -> list[float]:
        n1, n2, n3, n4 = (sum(value == number for value in counts.values()) for number in (1, 2, 3, 4))
        if min(n1, n2, n3) == 0:
            return [0.0, *FALLBACK_DISCOUNTS]
        y = n1 / (n1 + 2 * n2)
        found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return [0.0, *(found if min(found) > 0 else FALLBACK_DISCOUNTS)]

    def probability(self, gram: Gram) -> float:
        below = self.probability(gram[1:]) if gram[:-1] else 1 / self.ids
        length = len(gram) - 1
        behind = [value for other, value in self.counts[length].items() if other[:-1] == gram[:-1]]
        if not behind:
            return below
        discounts = self.discounts[length]
        own = self.counts[length][gram]
        taken = sum(discounts[min(value, 3)] for value in behind)
        return (own - discounts[min(own, 3)] + taken * below) / sum(behind)


def test_an_onset_is_read_as_the_distance_from_the_one_before() -> None:
    window = np.array([30, 10_003, 11_060, 30, 10_004, 11_061, 131, 10_000, REST, *END])
    assert symbols(window).tolist() == [[30, 3, 60], [0, 4, 61], [101, 0, 16_512], [10_000, 1_000, 16_513]]


def test_every_onset_id_has_one_symbol_whatever_came_before() -> None:
    """Also one that lies earlier, which no window has: the probabilities of all ids still sum to 1."""
    ids = [*range(10_000), SEPARATOR]
    behind = [symbols(np.array([700, 10_003, 11_060, onset, 10_003, 11_060]))[1, 0] for onset in ids]
    assert sorted(behind) == list(range(10_001))


def test_a_gram_is_a_token_behind_the_four_before_it() -> None:
    window = np.array([30, 10_003, 11_060, 42, 10_004, 11_061])
    flat = [BEGIN] * 4 + [30, 3, 60, 12, 4, 61]
    for slot, rows in enumerate(grams(window)):
        assert sorted(BACK_OFF[slot]) == [1, 2, 3, 4]
        for triple in range(2):
            place = 4 + 3 * triple + slot
            # Farthest first is what the model forgets first.
            assert rows[triple].tolist() == [*(flat[place - back] for back in BACK_OFF[slot][::-1]), flat[place]]


def test_probabilities_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(3)
    train = [[walk(rng, 60), walk(rng, 20)] for _ in range(6)]
    model = Ngram()
    for piece in train:
        model.add(piece)
    asked = walk(rng, 40)
    expected = []
    usual = 0
    for slot, rows in enumerate(grams(asked)):
        pieces = [[tuple(row) for window in piece for row in grams(window)[slot].tolist()] for piece in train]
        definition = Definition(pieces, PLAIN_WIDTHS[slot] + 1)
        usual += sum(discounts[1:] != list(FALLBACK_DISCOUNTS) for discounts in definition.discounts)
        found = probabilities(model.slots[slot], rows, PLAIN_WIDTHS[slot] + 1)
        wanted = [definition.probability(tuple(row)) for row in rows.tolist()]
        assert found == pytest.approx(wanted, rel=1e-12)
        expected.append(-sum(map(math.log, wanted)))
    assert 0 < usual < 15, "both ways to get discounts are compared"
    assert model.nats(asked) == pytest.approx(expected, rel=1e-12)


def test_probabilities_of_a_slot_sum_to_one() -> None:
    """Behind contexts that were seen, seen in part, and new."""
    rng = np.random.default_rng(4)
    model = Ngram()
    for _ in range(5):
        model.add([walk(rng, 50)])
    window = np.concatenate([walk(rng, 20)[:-3], [1_900, 10_777, 11_900, 1_901, 10_003, 11_060]])
    for slot, rows in enumerate(grams(window)):
        ids = PLAIN_WIDTHS[slot] + 1
        for row in rows[[0, 1, 7, 19, 20, 21]]:
            asked = np.tile(row, (ids, 1))
            asked[:, -1] = np.arange(ids)
            chances = probabilities(model.slots[slot], asked, ids)
            assert chances.sum() == pytest.approx(1, abs=1e-9)
            assert chances.min() > 0


def test_two_grams_by_hand() -> None:
    """Behind the same four symbols came 7 in three pieces and 9, twice, in one; all discounts are the fallback's."""
    seen = np.array([[1, 2, 3, 4, 7]] * 3 + [[1, 2, 3, 4, 9]] * 2)
    levels = count(seen, np.array([0, 1, 2, 2, 2]))
    # Each of the four lower levels has two grams that were preceded by one symbol: (1 - 0.5 + 1 * below) / 2.
    seven = 0.1
    for _ in range(4):
        seven = (0.5 + seven) / 2
    # Of the three, 1.5 are kept; 1.5 + 0.5 were taken from the context's four.
    seven = (1.5 + 2 * seven) / 4
    (found,) = probabilities(levels, np.array([[1, 2, 3, 4, 7]]), 10)
    assert found == pytest.approx(seven, rel=1e-12)
    # A symbol nobody saw before: only what the shorter contexts know.
    (new,) = probabilities(levels, np.array([[5, 5, 5, 4, 7]]), 10)
    assert new == pytest.approx((0.5 + (0.5 + 0.1) / 2) / 2, rel=1e-12)


def test_a_model_of_nothing_guesses() -> None:
    window = np.array([0, 10_003, 11_060, *END])
    assert Ngram().nats(window) == pytest.approx(2 * np.log(np.array(PLAIN_WIDTHS) + 1))


def test_what_repeats_is_foretold() -> None:
    """A scale that goes round: a unigram needs 3 bits a note at least, the model next to none."""
    scale = np.tile([60, 62, 64, 65, 67, 69, 71, 72], 40)
    window = np.stack([np.arange(320) * 10, np.full(320, 10_010), NOTE_OFFSET + scale], axis=1).reshape(-1)
    model = Ngram()
    model.add([window])
    assert model.nats(window).sum() / 320 / math.log(2) < 0.5
    assert len(np.unique(slot_indices(window)[:, 2])) == 8


def test_what_is_drawn_is_as_frequent_as_it_is_likely() -> None:
    """First onsets of many pieces, among them ids that were never seen, beside the probabilities of all."""
    rng = np.random.default_rng(5)
    model = Ngram()
    for _ in range(8):
        first = int(rng.choice([3, 9, 40]))
        model.add([np.array([first, 10_003, 11_060, first + 5, 10_003, 11_061, first + 5, 10_006, 11_062])])
    ids = PLAIN_WIDTHS[0]
    asked = np.tile([BEGIN] * 4 + [0], (ids, 1))
    asked[:, -1] = np.arange(ids)
    chances = probabilities(model.slots[0], asked, ids + 1)
    chances /= chances.sum()  # the end is drawn again
    draws = 2_000
    drawn = np.array([model.sample(1, rng).onsets[0] for _ in range(draws)])
    common = np.flatnonzero(chances > 0.02)
    assert len(common) >= 3
    for symbol in common:
        share = np.mean(drawn == symbol)
        assert abs(share - chances[symbol]) < 4 * math.sqrt(chances[symbol] * (1 - chances[symbol]) / draws), symbol
    rest = 1 - chances[common].sum()
    share = np.mean(~np.isin(drawn, common))
    assert abs(share - rest) < 4 * math.sqrt(rest * (1 - rest) / draws)


def test_a_sample_is_a_piece_that_the_model_finds_likely() -> None:
    """Of the notes and distances it was taught, in order, as long as was asked, the same for a seed."""
    rng = np.random.default_rng(6)
    model = Ngram()
    for _ in range(30):
        model.add([walk(rng, 60)])
    one, same, other = (model.sample(200, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert len(one) == 200
    assert (np.diff(one.onsets) >= 0).all()
    assert one.onsets.tolist() == same.onsets.tolist()
    assert one.onsets.tolist() != other.onsets.tolist()
    taught = np.isin(one.notes, np.arange(60, 68)) & np.isin(one.durations, [3, 6, 24])
    assert taught.mean() > 0.7, "the others are of the share that smoothing gives to what was never seen"
    noise = NoteTable(one.onsets, rng.integers(0, 1_000, 200), rng.integers(0, 16_512, 200), one.velocities)
    assert model.nats(encode_notes(one)).sum() < 0.5 * model.nats(encode_notes(noise)).sum()
