import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import LossConfig, ModelConfig
from midillm_jax.music import vocab
from midillm_jax.training import loss as losses

TEXT = 100


def amt_row(rng: np.random.Generator, triples: int) -> list[int]:
    """Random triples of plain events, controls, rests, and the closing separators."""
    row = []
    for kind in rng.integers(0, 3, triples):
        onset, duration = rng.integers(vocab.MAX_ONSET_TICKS), vocab.DURATION_OFFSET + rng.integers(1000)
        note = vocab.NOTE_OFFSET + rng.integers(vocab.NOTES)
        shift = vocab.CONTROL_OFFSET if kind == 1 else 0
        row += [onset, 10_000, vocab.REST] if kind == 2 else [onset + shift, duration + shift, note + shift]
    return [*row, *[vocab.SEPARATOR] * 3]


def make_batch(seed: int = 0) -> losses.Batch:
    """Two text rows and two music rows of 18: five given tokens, a pad, then triples from index 6 on."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, TEXT, (4, 18))
    slot = np.full((4, 18), vocab.NO_SLOT)
    weights = np.ones((4, 18), np.float32)
    weights[:, 0] = 0
    for row in (2, 3):
        tokens[row, 6:] = TEXT + np.array(amt_row(rng, 3))
        slot[row, 6:] = np.arange(12) % 3
        weights[row, :6] = 0
    weights[1, 4] = 0.5
    return {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "slot": jnp.asarray(slot, jnp.int8),
        "loss_weights": jnp.asarray(weights),
    }


def slot_ids(slot: int) -> np.ndarray:
    """The ids a slot can hold, straight from the vocabulary's definition."""
    first, size = [(0, 10_000), (10_000, 1_000), (11_000, 16_512)][slot]
    rest = [27_512] if slot == 2 else []
    return np.array([*range(first, first + size), *rest, *range(27_513 + first, 27_513 + first + size), 55_025])


def naive(hidden: jax.Array, table: jax.Array, batch: losses.Batch, kind: str) -> jax.Array:
    """Token by token, whole logits in float64."""
    logits = np.asarray(hidden, np.float64) @ np.asarray(table, np.float64).T
    out = np.zeros(batch["tokens"].shape)
    for row, index in np.ndindex(out.shape):
        if index == 0 or not batch["loss_weights"][row, index]:
            continue
        slot, target = int(batch["slot"][row, index]), int(batch["tokens"][row, index])
        if kind == "full":
            ids = np.arange(TEXT + vocab.VOCAB_SIZE)
        else:
            ids = np.arange(TEXT) if slot == vocab.NO_SLOT else TEXT + slot_ids(slot)
        scores = logits[row, index - 1]
        out[row, index] = np.log(np.exp(scores[ids]).sum()) - scores[target]
    return out


@pytest.fixture
def model(tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny_model, d_model=16)


@pytest.fixture
def states(model: ModelConfig) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0))
    # Logits of about the size that a trained head gives; far larger ones drown the comparison in rounding.
    hidden = jax.random.normal(keys[0], (4, 18, model.d_model))
    return hidden, 0.3 * jax.random.normal(keys[1], (model.padded_vocab_size, model.d_model))


@pytest.mark.parametrize("kind", ["full", "slot"])
@pytest.mark.parametrize("chunk_tokens", [12, 1000])
def test_losses_equal_whole_logits(
    model: ModelConfig, states: tuple[jax.Array, jax.Array], kind: str, chunk_tokens: int
) -> None:
    batch, (hidden, table) = make_batch(), states
    config = LossConfig(kind=kind, chunk_tokens=chunk_tokens)
    _, got = losses.batch_losses(hidden, table, batch, model, config, losses.Layout(1, 2, 2))
    counted = np.asarray(batch["loss_weights"]) > 0
    np.testing.assert_allclose(np.asarray(got)[counted], naive(hidden, table, batch, kind)[counted], atol=2e-4)


@pytest.mark.parametrize("kind", ["full", "slot"])
def test_the_chunked_gradient_equals_the_plain_one(
    model: ModelConfig, states: tuple[jax.Array, jax.Array], kind: str
) -> None:
    batch, layout = make_batch(), losses.Layout(1, 2, 2)

    def objective(hidden: jax.Array, table: jax.Array, chunk: int) -> jax.Array:
        config = LossConfig(kind=kind, chunk_tokens=chunk, z_loss=0.01)
        return losses.batch_losses(hidden, table, batch, model, config, layout)[0]

    def plain(hidden: jax.Array, table: jax.Array) -> jax.Array:
        total = 0.0
        previous = hidden[:, :-1]
        for row, index in zip(*np.nonzero(np.asarray(batch["loss_weights"])), strict=True):
            slot = int(batch["slot"][row, index])
            if kind == "full":
                ids = np.arange(model.vocab_size)
            else:
                ids = np.arange(TEXT) if slot == vocab.NO_SLOT else TEXT + slot_ids(slot)
            scores = table @ previous[row, index - 1]
            log_z = jax.nn.logsumexp(scores[ids])
            weight = batch["loss_weights"][row, index]
            total += weight * (log_z - scores[batch["tokens"][row, index]] + 0.01 * log_z**2)
        return total

    want = jax.grad(plain, (0, 1))(*states)
    got = jax.grad(objective, (0, 1))(*states, 12)
    for ours, theirs in zip(got, want, strict=True):
        assert jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs) < 1e-5
    padding = got[1][model.vocab_size :]
    assert not padding.any()


def test_layout_splits_and_joins() -> None:
    layout = losses.Layout(shards=2, text_rows=2, music_rows=4)
    # Each of two shards: one text row, then two music rows.
    rows = jnp.array([[1], [10], [11], [2], [12], [13]])
    text, music = layout.split(rows)
    assert text.ravel().tolist() == [1, 2]
    assert music.ravel().tolist() == [10, 11, 12, 13]
    np.testing.assert_array_equal(layout.join(text, music), rows)


def test_sums_count_sounding_notes_and_weighted_tokens(model: ModelConfig) -> None:
    row = [7, 10_001, 11_000, 20, 10_000, vocab.REST, 27_513 + 30, 37_513, 38_513, *[vocab.SEPARATOR] * 3]
    batch = {
        "tokens": jnp.array([[5, 6, 7, *[TEXT + each for each in row]]]),
        "slot": jnp.array([[-1, -1, -1, *[0, 1, 2] * 4]]),
        "loss_weights": jnp.array([[0.0, 0.5, 0.0, *[1.0] * 12]]),
    }
    nats = jnp.arange(15.0)[None]
    # What a token of no weight lost must not reach any sum.
    nats = nats.at[0, 0].set(jnp.inf).at[0, 2].set(jnp.nan)
    sums = losses.sums(jnp.float32(3.5), nats, batch, model)
    assert float(sums["weight"]) == 12.5
    assert float(sums["text_nats"]) == 1.0
    assert float(sums["text_tokens"]) == 1.0
    assert float(sums["onset_nats"]) == 3 + 6 + 9 + 12
    assert float(sums["note_nats"]) == 5 + 8 + 11 + 14
    # One plain note and one control; the rest and the separator do not sound.
    assert float(sums["notes"]) == 2
    assert float(sums["objective"]) == 3.5
