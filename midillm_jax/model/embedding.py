"""Growing a text model's tables by the music rows.

Rows of a table [V, D]: the text vocabulary first, unchanged; then the music rows; then padding rows up to a
multiple that suits TPU tiles and the mesh (``vocab_multiple``). Padding rows are never looked up, take part in no
softmax and are not exported.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model.llama import Params

TABLES = ("embedding", "head")

Initialiser = Literal["normal", "mean", "mean_covariance", "zero"]
Rows = np.ndarray[Any, np.dtype[Any]]

BLOCK_ROWS = 8192
"""Rows that are in memory in float32 (or, for the covariance, float64) at one time."""


def resize_embedding(params: Params, config: ModelConfig, music_vocab_size: int, how: Initialiser, seed: int) -> Params:
    """Adds music rows to the tables of a text-only model: to the embedding and, if there is one, to the head.

    How the new rows of a table begin, from its old rows:

    ``normal``
        independent numbers of mean 0 and the standard deviation of all old numbers. New rows are as long as old
        ones, but point anywhere: their logits are 0 on average and as far apart as the hidden states are long, so
        that the largest of 55,030 take much of the softmax.
    ``mean``
        all are the mean of the old rows. Every new logit is the mean of the old ones, so that by Jensen's
        inequality a softmax over both loses at most ln(1 + new/old) nats on text
        (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models"). It is what transformers'
        ``resize_token_embeddings(mean_resizing=True)`` does too: that draws with 1e-9 of the covariance.
    ``mean_covariance``
        drawn from the normal distribution with the mean and the whole covariance of the old rows: new rows look
        like text rows, in length and in direction.
    ``zero``
        zeros. Every new logit is 0, and the norm of the first layer multiplies the gradient of a new input row
        by 1/sqrt(rms_norm_eps) until it has grown.

    What each does to the first losses of SmolLM2-135M (tied, 55,030 new rows; 2026-11-24, nats a token, 2 rows of each
    kind; benchmarks/music_init.py):

    =================  ====================  ====================  ====================
    music_init         text, whole table     music, whole table    music, slot's rows
    =================  ====================  ====================  ====================
    normal             7.57                  28.89                 26.59
    mean               4.76                  15.84                 9.30
    mean_covariance    5.04                  12.97                 10.68
    zero               4.76                  27.04                 9.30
    =================  ====================  ====================  ====================

    Before growing, text costs 4.75, and so it goes on doing in the slot loss, which keeps the vocabularies apart. Which
    of them trains best was not measured.

    Args:
        params: weights (NumPy or JAX arrays) of a model whose config has ``music_vocab_size == 0``.
        config: that model's config.
        music_vocab_size: rows to add.
        seed: for what is drawn; the same rows on every host of one kind.

    Returns:
        new weights, the tables as NumPy arrays; text rows are bit-equal to the old ones. Beside the old and the new
        table, memory holds a block of rows.

    Raises:
        UserError: the model has music rows, or the initialiser is unknown.
    """
    if config.music_vocab_size:
        raise UserError(
            f"resize_embedding: the model already has {config.music_vocab_size} music rows; expected a text-only one."
        )
    if how not in INITIALISERS:
        raise UserError(f"music_init: found {how!r}, expected {' or '.join(map(repr, INITIALISERS))}.")
    grown = dataclasses.replace(config, music_vocab_size=music_vocab_size)
    params = dict(params)
    for index, name in enumerate(TABLES):
        if name not in params:
            continue
        text = np.asarray(params[name])[: config.text_vocab_size]
        table = np.zeros((grown.padded_vocab_size, config.d_model), text.dtype)
        table[: config.text_vocab_size] = text
        draw = INITIALISERS[how](text, np.random.default_rng((seed, index)))
        for block in _blocks(table[config.text_vocab_size : grown.vocab_size]):
            block[...] = draw(len(block))
        params[name] = table
    return params


Draw = Callable[[int], Rows]
"""Number of rows -> that many new rows."""


def _blocks(table: Rows) -> Iterator[Rows]:
    for start in range(0, len(table), BLOCK_ROWS):
        yield table[start : start + BLOCK_ROWS]


def _mean(text: Rows) -> Rows:
    """Mean row, [D] float64."""
    return sum((block.sum(axis=0, dtype=np.float64) for block in _blocks(text)), np.zeros(text.shape[1])) / len(text)


def _draw_normal(text: Rows, rng: np.random.Generator) -> Draw:
    mean = _mean(text).mean()
    squares = sum(float(np.square(block.astype(np.float64) - mean).sum()) for block in _blocks(text))
    deviation = np.float32(np.sqrt(squares / text.size))
    return lambda rows: rng.standard_normal((rows, text.shape[1]), np.float32) * deviation


def _draw_mean(text: Rows, _: np.random.Generator) -> Draw:
    mean = _mean(text)
    return lambda rows: np.broadcast_to(mean, (rows, text.shape[1]))


def _draw_mean_covariance(text: Rows, rng: np.random.Generator) -> Draw:
    width = text.shape[1]
    mean, covariance = _mean(text), np.zeros((width, width))
    for block in _blocks(text):
        centred = block.astype(np.float64) - mean
        covariance += centred.T @ centred
    # A square root that exists even where there are fewer rows than columns, unlike Cholesky's.
    values, vectors = np.linalg.eigh(covariance / len(text))
    root = (vectors * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)
    shift = mean.astype(np.float32)
    return lambda rows: rng.standard_normal((rows, width), np.float32) @ root + shift


def _draw_zero(text: Rows, _: np.random.Generator) -> Draw:
    return lambda rows: np.zeros((rows, text.shape[1]), text.dtype)


INITIALISERS: dict[Initialiser, Callable[[Rows, np.random.Generator], Draw]] = {
    "normal": _draw_normal,
    "mean": _draw_mean,
    "mean_covariance": _draw_mean_covariance,
    "zero": _draw_zero,
}
