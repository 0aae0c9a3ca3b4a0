import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.model import head


def slot_ids(slot: int) -> np.ndarray:
    """The ids a slot can hold, straight from AMT's vocabulary: plain, REST, controls, SEPARATOR."""
    first, size = [(0, 10_000), (10_000, 1_000), (11_000, 16_512)][slot]
    rest = [27_512] if slot == 2 else []
    return np.array([*range(first, first + size), *rest, *range(27_513 + first, 27_513 + first + size), 55_025])


@pytest.mark.parametrize(("slot", "rows"), [(0, 20_001), (1, 2_001), (2, 33_026)])
def test_a_slots_rows_are_its_ids_in_order(slot: int, rows: int) -> None:
    ids = slot_ids(slot)
    assert len(ids) == sum(span.size for span in head.SLOT_SPANS[slot]) == rows
    np.testing.assert_array_equal(head.slot_rows(jnp.asarray(ids), slot), np.arange(rows))
    # A table whose row says its own number: 7 text rows, then the music rows, then padding.
    table = jnp.arange(7 + 55_030 + 3)[:, None]
    np.testing.assert_array_equal(head.span_rows(table, head.slot_spans(slot, 7))[:, 0], 7 + ids)


@pytest.mark.parametrize("chunk", [1, 4, 5, 100])
def test_losses_do_not_depend_on_the_chunk(chunk: int) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    hidden, table = jax.random.normal(keys[0], (2, 10, 8)), jax.random.normal(keys[1], (30, 8))
    targets = jax.random.randint(keys[2], (2, 10), 0, 20)
    _, losses, log_z = head.token_losses(hidden, table, targets, head.first_rows(20), chunk)
    logits = np.asarray(hidden, np.float64) @ np.asarray(table[:20], np.float64).T
    want = np.log(np.exp(logits).sum(-1))
    np.testing.assert_allclose(log_z, want, rtol=1e-5)
    chosen = np.take_along_axis(logits, np.asarray(targets)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, want - chosen, rtol=1e-4, atol=1e-5)


def test_the_whole_logits_are_never_in_memory() -> None:
    length, rows = 256, 4_000

    def loss(hidden: jax.Array, table: jax.Array) -> jax.Array:
        return head.token_losses(hidden, table, jnp.zeros((1, length), int), head.first_rows(rows), 16).objective

    shapes = (jax.ShapeDtypeStruct((1, length, 8), jnp.float32), jax.ShapeDtypeStruct((rows, 8), jnp.float32))
    memory = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile().memory_analysis()
    whole_logits = length * rows * 4
    assert memory.temp_size_in_bytes < whole_logits / 2
