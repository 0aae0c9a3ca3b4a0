import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import LossConfig, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import embedding
from midillm_jax.model.embedding import resize_embedding
from midillm_jax.model.head import first_rows, token_losses
from midillm_jax.model.llama import INFERENCE, Definition, Params
from midillm_jax.music import vocab
from midillm_jax.training.loss import Layout, batch_losses

INITIALISERS = ("normal", "mean", "mean_covariance", "zero")


@pytest.fixture
def text_model(tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny_model, music_vocab_size=0, tie_embeddings=False)


@pytest.fixture
def old(text_model: ModelConfig) -> Params:
    """Tables whose columns have means and hang together, as a trained model's do."""
    params = Definition(text_model, INFERENCE).init(jax.random.key(0))
    rng = np.random.default_rng(0)
    for table in embedding.TABLES:
        mixing = rng.normal(size=(text_model.d_model, text_model.d_model))
        rows = rng.normal(size=(text_model.padded_vocab_size, text_model.d_model)) @ mixing + 3 * rng.normal(size=48)
        params[table] = jnp.asarray(rows, jnp.float32)
    return params


@pytest.mark.parametrize("how", INITIALISERS)
@pytest.mark.parametrize("rows", [7, 130, 55_030])
def test_any_number_of_rows_is_added_and_text_rows_stay(
    text_model: ModelConfig, old: Params, how: embedding.Initialiser, rows: int
) -> None:
    new = resize_embedding(old, text_model, rows, how, 1)
    grown = dataclasses.replace(text_model, music_vocab_size=rows)
    shapes = jax.tree.map(lambda leaf: leaf.shape, Definition(grown, INFERENCE).abstract())
    assert jax.tree.map(lambda leaf: leaf.shape, new) == shapes
    for table in embedding.TABLES:
        assert new[table][:100].tobytes() == np.asarray(old[table][:100]).tobytes()
        assert not new[table][grown.vocab_size :].any()
    assert new["blocks"] is old["blocks"]
    # And the grown model runs on its last row.
    tokens = jnp.array([[0, 99, 100, 99 + rows]])
    hidden = Definition(grown, INFERENCE).forward(new, tokens, jnp.arange(4)[None], jnp.ones_like(tokens))
    assert bool(jnp.isfinite(hidden).all())


def music_and_text(text_model: ModelConfig, old: Params, how: embedding.Initialiser, table: str) -> tuple:
    new = resize_embedding(old, text_model, 55_030, how, 1)[table]
    return new[100 : 100 + 55_030].astype(np.float64), np.asarray(old[table][:100], np.float64)


@pytest.mark.parametrize("table", embedding.TABLES)
def test_new_rows_begin_as_their_initialiser_says(text_model: ModelConfig, old: Params, table: str) -> None:
    music, text = music_and_text(text_model, old, "zero", table)
    assert not music.any()

    music, text = music_and_text(text_model, old, "mean", table)
    np.testing.assert_allclose(music, np.broadcast_to(text.mean(axis=0), music.shape), rtol=1e-6, atol=1e-6)

    music, text = music_and_text(text_model, old, "normal", table)
    # 55,030 x 48 draws: their deviation is known to 4e-4, that of the old numbers is taken as it is.
    assert music.std() == pytest.approx(text.std(), rel=5e-3)
    assert abs(music.mean()) < 3e-3 * text.std()

    music, text = music_and_text(text_model, old, "mean_covariance", table)
    deviation = text.std(axis=0)
    # A mean of 55,030 draws is known to 1/235 of their deviation, a covariance to 1/166 of the product of two.
    np.testing.assert_array_less(np.abs(music.mean(axis=0) - text.mean(axis=0)) / deviation, 5 / 235)
    found, expected = np.cov(music.T, bias=True), np.cov(text.T, bias=True)
    np.testing.assert_array_less(np.abs(found - expected) / np.outer(deviation, deviation), 6 / 166)


def test_fewer_old_rows_than_columns_still_have_a_covariance(text_model: ModelConfig, old: Params) -> None:
    few = dataclasses.replace(text_model, text_vocab_size=20)
    params = old | {table: old[table][:20] for table in embedding.TABLES}
    music = resize_embedding(params, few, 1000, "mean_covariance", 1)["head"][20:1020]
    # New rows lie where the old ones do: in the 19 dimensions that 20 points span.
    assert np.linalg.matrix_rank(music - music.mean(axis=0), tol=1e-2) == 19


def test_the_order_of_a_large_tables_blocks_changes_no_statistics(
    text_model: ModelConfig, old: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for how in ("normal", "mean", "mean_covariance"):
        whole = resize_embedding(old, text_model, 130, how, 1)["head"]
        with monkeypatch.context() as patch:
            patch.setattr(embedding, "BLOCK_ROWS", 7)
            # The square root of a covariance has signs of its own choice; what it makes is the same to rounding
            # only where the matrix is, so that the draws are compared by what they add up to.
            cut = resize_embedding(old, text_model, 130, how, 1)["head"]
        assert cut.shape == whole.shape
        if how != "mean_covariance":
            np.testing.assert_allclose(cut, whole, rtol=1e-5)


@pytest.mark.parametrize("how", ["normal", "mean_covariance"])
def test_draws_differ_between_tables_and_seeds_and_repeat(
    text_model: ModelConfig, old: Params, how: embedding.Initialiser
) -> None:
    same = old | {"head": old["embedding"]}
    first, again, other = (resize_embedding(same, text_model, 130, how, seed) for seed in (1, 1, 2))
    assert not np.isclose(first["embedding"][100:230], first["head"][100:230]).all(axis=1).any()
    np.testing.assert_array_equal(first["head"], again["head"])
    assert not np.isclose(first["head"][100:230], other["head"][100:230]).all(axis=1).any()


def test_mean_rows_cost_text_no_more_than_jensen_says(text_model: ModelConfig, old: Params) -> None:
    """ln(1 + new/old) nats at most, for any hidden state (Hewitt's note)."""
    hidden = jax.random.normal(jax.random.key(2), (1, 40, text_model.d_model))
    targets = jax.random.randint(jax.random.key(3), (1, 40), 0, 100)
    before = token_losses(hidden, old["head"][:100], targets, first_rows(100), 64).losses
    grown = resize_embedding(old, text_model, 300, "mean", 1)["head"]
    after = token_losses(hidden, jnp.asarray(grown), targets, first_rows(400), 64).losses
    assert 0 < float(jnp.max(after - before)) <= np.log(4) + 1e-4


def test_bfloat16_tables_stay_bfloat16(text_model: ModelConfig, old: Params) -> None:
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), old)
    new = resize_embedding(low, text_model, 7, "mean_covariance", 1)
    assert new["head"].dtype == jnp.bfloat16
    assert new["head"][:100].tobytes() == np.asarray(low["head"][:100]).tobytes()


@pytest.mark.parametrize("kind", ["full", "slot"])
def test_padding_rows_take_no_part_in_the_loss(tiny_model: ModelConfig, kind: str) -> None:
    assert tiny_model.padded_vocab_size > tiny_model.vocab_size
    hidden = jax.random.normal(jax.random.key(0), (2, 6, tiny_model.d_model))
    table = 0.1 * jax.random.normal(jax.random.key(1), (tiny_model.padded_vocab_size, tiny_model.d_model))
    music = [vocab.ONSET_OFFSET + 5, vocab.DURATION_OFFSET + 7, vocab.NOTE_OFFSET + 9] * 2
    tokens = jnp.array([[1, 2, 3, 4, 5, 6], [100 + each for each in music]])
    batch = {"tokens": tokens, "segment_ids": jnp.ones_like(tokens), "loss_weights": jnp.ones(tokens.shape)}
    layout = Layout(shards=1, text_rows=1, music_rows=1)

    def losses(table: jax.Array) -> tuple[jax.Array, jax.Array]:
        return batch_losses(hidden, table, batch, tiny_model, LossConfig(kind=kind), layout)  # type: ignore[arg-type]

    loud = table.at[tiny_model.vocab_size :].set(1e3)
    np.testing.assert_array_equal(losses(loud)[1], losses(table)[1])
    gradient = jax.grad(lambda table: losses(table)[0])(loud)
    assert not gradient[tiny_model.vocab_size :].any()
    assert gradient[: tiny_model.text_vocab_size].any()


def test_a_grown_model_is_not_grown_again(tiny_model: ModelConfig) -> None:
    params = Definition(tiny_model, INFERENCE).abstract()
    with pytest.raises(UserError, match="already has 55030 music rows"):
        resize_embedding(params, tiny_model, 55_030, "normal", 0)


def test_an_unknown_initialiser_lists_the_valid_ones(text_model: ModelConfig, old: Params) -> None:
    with pytest.raises(UserError, match="found 'zeros', expected 'normal' or 'mean' or 'mean_covariance' or 'zero'"):
        resize_embedding(old, text_model, 55_030, "zeros", 0)  # type: ignore[arg-type]
