"""What the sampler draws against plain arithmetic: sorted top-p, one row at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.inference import sampler
from midillm_jax.music import grammar
from midillm_jax.music.vocab import VOCAB_SIZE


def plain_choice(logits: np.ndarray, allowed: np.ndarray, noise: np.ndarray, temperature: float, top_p: float) -> int:
    """Sorts, sums, cuts: top-p as everybody writes it, then the Gumbel maximum."""
    logits = np.where(allowed, logits.astype(np.float64), -np.inf)
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    least = probabilities[order[before < top_p]].min()
    return int(np.where(probabilities >= least, logits + noise, -np.inf).argmax())


def test_slot_heads_are_the_rows_of_the_slots_ids() -> None:
    text = 300
    table = np.random.default_rng(0).normal(size=(text + VOCAB_SIZE, 4)).astype(np.float32)
    for slot, head in enumerate(sampler.slot_heads(jnp.asarray(table), text)):
        ids = grammar.slot_ids(np, np.arange(grammar.SLOT_WIDTHS[slot]), slot)
        np.testing.assert_array_equal(head, table[text + ids])


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.98, 1.0])
def test_top_p_without_sorting_is_top_p(top_p: float) -> None:
    rng = np.random.default_rng(0)
    rows, width = 64, 500
    logits = rng.normal(size=(rows, width)) * rng.choice([0.01, 1, 5, 30], size=(rows, 1))
    logits[: rows // 4] = np.round(logits[: rows // 4])  # many ties
    mask = rng.random((rows, width)) < rng.choice([0.02, 0.5, 1], size=(rows, 1))
    mask[:, 7] = True
    noise = rng.gumbel(size=(rows, width))
    temperature = rng.choice([0.5, 1.0, 2.0], size=rows)
    cast = [jnp.asarray(value, jnp.float32) for value in (logits, noise, temperature, np.full(rows, top_p))]
    found = jax.jit(sampler.draw)(cast[0], jnp.asarray(mask), cast[1], cast[2], cast[3])
    as32 = [np.asarray(value, np.float64) for value in cast]
    expected = [
        plain_choice(as32[0][row], mask[row], as32[1][row], float(temperature[row]), top_p) for row in range(rows)
    ]
    assert found.tolist() == expected


def test_draws_follow_the_probabilities() -> None:
    rows = 20_000
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    logits = jnp.tile(jnp.log(jnp.asarray(probabilities, jnp.float32)), (rows, 1))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(rows))
    noise = sampler.gumbel_noise(keys, jnp.full(rows, 3), 4)
    found = jax.jit(sampler.draw)(logits, jnp.ones_like(logits, bool), noise, jnp.ones(rows), jnp.full(rows, 0.9))
    share = np.bincount(np.asarray(found), minlength=4) / rows
    nucleus = probabilities[:3] / probabilities[:3].sum()
    assert share[3] == 0
    np.testing.assert_allclose(share[:3], nucleus, atol=4 * np.sqrt(0.25 / rows))
