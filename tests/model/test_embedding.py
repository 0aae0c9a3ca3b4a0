import dataclasses

import jax
import numpy as np
import pytest

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model.embedding import resize_embedding as grow
from midillm_jax.model.llama import INFERENCE, Definition


@pytest.fixture
def text_model(tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny_model, music_vocab_size=0, tie_embeddings=False)


@pytest.mark.parametrize("how", ["normal", "mean"])
def test_text_rows_stay_and_music_rows_follow(text_model: ModelConfig, how: str) -> None:
    old = Definition(text_model, INFERENCE).init(jax.random.key(0))
    new = grow(old, text_model, 55_030, how, jax.random.key(1))
    grown = dataclasses.replace(text_model, music_vocab_size=55_030)
    for table in ("embedding", "head"):
        text = np.asarray(old[table][:100])
        assert new[table].shape == (grown.padded_vocab_size, grown.d_model)
        np.testing.assert_array_equal(new[table][:100], text)
        music = np.asarray(new[table][100 : grown.vocab_size])
        if how == "mean":
            np.testing.assert_allclose(music, np.broadcast_to(text.mean(0), music.shape), atol=1e-7)
        else:
            # 55,030 x 48 draws: their deviation is known to 4e-4, that of the 4,800 old numbers is taken as it is.
            assert music.std() == pytest.approx(text.std(), rel=5e-3)
            assert abs(music.mean()) < 1e-4
        assert not new[table][grown.vocab_size :].any()
    assert new["blocks"] is old["blocks"]


def test_the_two_tables_grow_by_different_rows(text_model: ModelConfig) -> None:
    new = grow(
        Definition(text_model, INFERENCE).init(jax.random.key(0)), text_model, 55_030, "normal", jax.random.key(1)
    )
    assert not np.allclose(new["embedding"][100:200], new["head"][100:200])


def test_a_grown_model_is_not_grown_again(tiny_model: ModelConfig) -> None:
    params = Definition(tiny_model, INFERENCE).abstract()
    with pytest.raises(UserError, match="already has 55030 music rows"):
        grow(params, tiny_model, 55_030, "normal", jax.random.key(0))


def test_an_unknown_initialiser_lists_the_valid_ones(text_model: ModelConfig) -> None:
    params = Definition(text_model, INFERENCE).init(jax.random.key(0))
    with pytest.raises(UserError, match="found 'zeros', expected 'normal' or 'mean'"):
        grow(params, text_model, 55_030, "zeros", jax.random.key(0))
