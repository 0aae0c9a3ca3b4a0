"""The whole head, masked, against the slot's rows that the JAX engine computes alone."""

import numpy as np
import pytest

from midillm_jax.inference import whole_head
from midillm_jax.music import grammar, grammar_check
from midillm_jax.music.vocab import (
    ANTICIPATE,
    CONTROL_OFFSET,
    DURATION_OFFSET,
    NOTE_OFFSET,
    SEPARATOR,
    VOCAB_SIZE,
)

TEXT, BEYOND = 50, 6
LIMITS = [
    grammar.Limits(),
    grammar.Limits(programs=(3, 128), end_ticks=700, max_notes=9),
    grammar.Limits(pitch_low=40, pitch_high=60, closes=False, end_ticks=900),
    grammar.Limits(max_notes=4),
]
CONTROLS: list[tuple[int, ...]] = [
    (),
    tuple(
        CONTROL_OFFSET + amt_id
        for onset in (0, 30, 650)
        for amt_id in (onset, DURATION_OFFSET + 5, NOTE_OFFSET + 3 * 128 + 7)
    ),
    (),
    (),
]


def walk(xp: object, arrays: object, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Masked logits float32 [tokens, B, V] and the ids drawn from them [tokens, B]; rows do not stand at one slot:
    each begins a token after the one before it."""
    rng = np.random.default_rng(0)
    limits, controls = grammar.pack_limits(LIMITS), grammar.pack_controls(CONTROLS)
    device = [type(packed)(*(arrays(field) for field in packed)) for packed in (limits, controls)]
    state = grammar.start(len(LIMITS), limits)
    seen, drawn = [], []
    for step in range(tokens):
        logits = rng.normal(size=(len(LIMITS), TEXT + VOCAB_SIZE + BEYOND)).astype(np.float32) * 4
        masked = np.asarray(whole_head.masked_logits(xp, arrays(logits), arrays(state), *device, TEXT), np.float32)
        ids = np.argmax(masked + rng.gumbel(size=masked.shape), axis=1).astype(np.int32) - TEXT
        started = np.arange(len(LIMITS)) <= step
        state = np.where(started[:, None], grammar.advance(np, state, ids, limits), state)
        seen.append(masked)
        drawn.append(np.where(started, ids, -1))
    return np.stack(seen), np.stack(drawn)


@pytest.fixture(scope="module")
def walked() -> tuple[np.ndarray, np.ndarray]:
    return walk(np, np.asarray, 60)


def test_what_is_drawn_is_music_within_the_limits(walked: tuple[np.ndarray, np.ndarray]) -> None:
    for row, limits in enumerate(LIMITS):
        ids = walked[1][row:, row]
        ends = np.flatnonzero(ids == SEPARATOR)
        whole = ids[: ends[0] + 3] if len(ends) else ids[: len(ids) // 3 * 3]
        assert grammar_check.check(whole[: len(whole) // 3 * 3], limits) is None
    controls = [amt_id for amt_id in walked[1][:, 1].tolist() if CONTROL_OFFSET <= amt_id < SEPARATOR]
    assert controls[:6] == list(CONTROLS[1][:6])


def test_probabilities_are_those_of_the_slots_own_rows(walked: tuple[np.ndarray, np.ndarray]) -> None:
    """By the functions that the sampler calls, on the logits of a step in which every row stands at another slot."""
    limits, controls = grammar.pack_limits(LIMITS), grammar.pack_controls(CONTROLS)
    state = np.concatenate([grammar.replay(ids, LIMITS[0])[None] for ids in ([], [], [4, DURATION_OFFSET + 2], [4])])
    logits = np.random.default_rng(1).normal(size=(4, TEXT + VOCAB_SIZE)).astype(np.float32)
    token_ids = np.arange(TEXT + VOCAB_SIZE, dtype=np.int32)
    masked = whole_head.masked_logits(np, logits, state, limits, controls, TEXT)
    # The second request has a control at 0, which comes before any event.
    np.testing.assert_array_equal(masked[1], np.where(token_ids == TEXT + CONTROL_OFFSET, 0, -np.inf))
    for row, slot in ((0, 0), (2, 2), (3, 1)):
        one = type(limits)(*(field[row : row + 1] for field in limits[:-1]), limits.ticks)
        music = logits[row : row + 1, TEXT:]
        begin, end = ((0, 10_000), (DURATION_OFFSET, NOTE_OFFSET), (NOTE_OFFSET, CONTROL_OFFSET))[slot]
        of_slot = music[:, begin:end]
        if slot == 0:
            of_slot = grammar.fold_end(np, np.concatenate((of_slot, music[:, SEPARATOR : SEPARATOR + 1]), 1), one)
        allowed = grammar.allowed(np, state[row : row + 1], slot, one)
        expected = np.full(TEXT + VOCAB_SIZE, -np.inf, np.float32)
        places = TEXT + grammar.slot_ids(np, np.arange(of_slot.shape[1]), slot)
        expected[places] = np.where(allowed, of_slot, -np.inf)[0]
        np.testing.assert_array_equal(masked[row], expected)


def test_torch_masks_alike(walked: tuple[np.ndarray, np.ndarray]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    found = walk(torch, lambda array: torch.from_numpy(np.array(array)), 60)
    np.testing.assert_allclose(found[0], walked[0], rtol=1e-5)
    np.testing.assert_array_equal(found[1], walked[1])


def test_only_slots_that_rows_stand_at_and_in_place_give_the_same() -> None:
    limits, controls = grammar.pack_limits(LIMITS), grammar.pack_controls(CONTROLS)
    state = np.concatenate([grammar.replay(ids, LIMITS[0])[None] for ids in ([], [], [4, DURATION_OFFSET + 2], [])])
    logits = np.random.default_rng(1).normal(size=(4, TEXT + VOCAB_SIZE)).astype(np.float32)
    whole = whole_head.masked_logits(np, logits, state, limits, controls, TEXT)
    changed = logits.copy()
    found = whole_head.masked_logits(np, changed, state, limits, controls, TEXT, standing_at={0, 2}, in_place=True)
    assert found is changed
    np.testing.assert_array_equal(found, whole)
    assert np.isfinite(whole).sum(1).min() >= 1


def test_music_behind_the_flag_of_a_prompt_is_found() -> None:
    prompt = [1, 7, 49, TEXT + ANTICIPATE, TEXT + 5, TEXT + DURATION_OFFSET, TEXT + NOTE_OFFSET]
    assert whole_head.split_prompt(prompt, TEXT).tolist() == [5, DURATION_OFFSET, NOTE_OFFSET]
    assert whole_head.split_prompt(prompt[:4], TEXT).tolist() == []
    assert whole_head.split_prompt([1, 7], TEXT).tolist() == []


def test_without_an_end_inside_nothing_needs_folding() -> None:
    limits = grammar.pack_limits([grammar.Limits(max_notes=9), grammar.Limits(closes=False)])
    controls = grammar.pack_controls([(), ()])
    state = np.stack([grammar.replay([30, DURATION_OFFSET, NOTE_OFFSET], grammar.Limits())] * 2)
    logits = np.random.default_rng(4).normal(size=(2, TEXT + VOCAB_SIZE)).astype(np.float32)
    whole = whole_head.masked_logits(np, logits, state, limits, controls, TEXT)
    found = whole_head.masked_logits(np, logits, state, limits, controls, TEXT, ends_inside=False)
    np.testing.assert_array_equal(found, whole)
    assert np.isfinite(whole[0, TEXT + SEPARATOR])
