"""Growing a text model's table by the music rows.

Rows of a table [V, D]: the text vocabulary first, unchanged; then 55,030 music rows; then padding rows up to a
multiple that suits TPU tiles and the mesh. Padding rows are never looked up, take part in no softmax and are
not exported.
"""

import dataclasses

import jax
import jax.numpy as jnp

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model.llama import Params

TABLES = ("embedding", "head")


def grow(params: Params, config: ModelConfig, music_vocab_size: int, how: str, key: jax.Array) -> Params:
    """Adds music rows to a text-only model.

    Args:
        params: weights of a model whose config has ``music_vocab_size == 0``.
        config: that model's config.
        music_vocab_size: rows to add.
        how: ``normal`` draws rows with the mean 0 and the standard deviation of the old rows: the first music
            loss is about ln(music_vocab_size), and a tied head gives the new rows a fair share of the text
            softmax. ``mean`` sets every new row to the mean of the old ones: all music ids start equal.
        key: for ``normal``.

    Returns:
        new weights; text rows are bit-equal to the old ones.
    """
    if config.music_vocab_size:
        raise UserError(f"grow: the model already has {config.music_vocab_size} music rows; expected a text-only one.")
    grown = dataclasses.replace(config, music_vocab_size=music_vocab_size)
    params = dict(params)
    for index, name in enumerate(name for name in TABLES if name in params):
        text = params[name][: config.text_vocab_size]
        params[name] = jnp.concatenate(
            [
                text,
                _new_rows(text, music_vocab_size, how, jax.random.fold_in(key, index)),
                jnp.zeros((grown.padded_vocab_size - grown.vocab_size, config.d_model), text.dtype),
            ]
        )
    return params


def _new_rows(text: jax.Array, rows: int, how: str, key: jax.Array) -> jax.Array:
    text32 = text.astype(jnp.float32)
    if how == "normal":
        new = jax.random.normal(key, (rows, text.shape[1]), jnp.float32) * jnp.std(text32)
    elif how == "mean":
        new = jnp.broadcast_to(jnp.mean(text32, axis=0), (rows, text.shape[1]))
    else:
        raise UserError(f"music_init: found {how!r}, expected 'normal' or 'mean'.")
    return new.astype(text.dtype)
