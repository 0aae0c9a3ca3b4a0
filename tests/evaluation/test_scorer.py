"""The model's nats, beside a softmax written out token by token and beside what training computes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import LossConfig, ModelConfig
from midillm_jax.data.packing import empty_batch
from midillm_jax.evaluation.likelihood import Window
from midillm_jax.evaluation.scorer import Scorer
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table
from midillm_jax.music.vocab import CONTROL_OFFSET, NO_SLOT, REST, SEPARATOR
from midillm_jax.text.prompt import Segment, lead
from midillm_jax.training import loss as losses

TEXT = 100
END = [SEPARATOR] * 3
WINDOWS = (
    Window(np.array([0, 10_050, 11_060, 30, 10_100, 27_511, *END]), True),
    Window(np.array([5, 10_999, 11_000, 105, 10_000, REST, 9_999, 10_001, 20_000]), False),
    Window(np.array([0, 10_000, 11_061]), False),
    Window(np.tile([7, 10_008, 11_070], 20), False),
    Window(np.array([400, 10_300, 26_000, *END]), True),
)
PROMPTS = ([1], [1, 9, 8], [1, 4], [1, 2, 3, 4, 5], [1, 50, 60, 70])

# What each slot can hold, written out: plain ids, the same as controls (there is no control REST), SEPARATOR.
NOTES = list(range(11_000, 27_512))
SLOT_IDS = [
    [*range(10_000), *range(CONTROL_OFFSET, CONTROL_OFFSET + 10_000), SEPARATOR],
    [*range(10_000, 11_000), *range(CONTROL_OFFSET + 10_000, CONTROL_OFFSET + 11_000), SEPARATOR],
    [*NOTES, REST, *(note + CONTROL_OFFSET for note in NOTES), SEPARATOR],
]


@pytest.fixture
def definition(tiny_model: ModelConfig) -> Definition:
    return Definition(dataclasses.replace(tiny_model, num_layers=2), INFERENCE)


@pytest.fixture
def params(definition: Definition) -> Params:
    # Large enough that the predictions are far from uniform.
    return jax.tree.map(lambda leaf: leaf * 4, definition.init(jax.random.key(3)))


@pytest.fixture
def segments() -> list[Segment]:
    return [window.segment(prompt, TEXT) for window, prompt in zip(WINDOWS, PROMPTS, strict=True)]


def test_nats_are_those_of_a_softmax_over_each_slots_ids(
    definition: Definition, params: Params, segments: list[Segment]
) -> None:
    """More windows than fit in a batch, of different lengths: neither padding nor neighbours change a number."""
    forward = jax.jit(definition.forward)
    table = np.asarray(head_table(params), np.float64)
    expected = np.zeros((len(segments), 3))
    for row, segment in enumerate(segments):
        # One length for all, so that it is compiled once; causal attention does not look at what stands behind.
        tokens = np.zeros((1, 72), np.int32)
        tokens[0, : len(segment)] = segment.tokens
        hidden = np.asarray(forward(params, tokens, np.arange(72)[None], np.ones((1, 72), np.int32))[0], np.float64)
        for place in range(len(segment)):
            slot = int(segment.slot[place])
            if slot == NO_SLOT:
                continue
            ids = np.array(SLOT_IDS[slot])
            logits = table[ids + TEXT] @ hidden[place - 1]
            chosen = logits[ids == segment.tokens[place] - TEXT]
            expected[row, slot] += np.log(np.sum(np.exp(logits - logits.max()))) + logits.max() - chosen.item()
    done: list[int] = []
    found = Scorer(definition, params).nats(segments, done.append)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert found.std(axis=0).min() > 1, "the windows are meant to differ"
    assert done == sorted(done)
    assert done[-1] == len(segments)


def test_nats_are_those_of_training(definition: Definition, params: Params, segments: list[Segment]) -> None:
    batch = empty_batch(len(segments), 75)
    for row, segment in enumerate(segments):
        place = slice(lead(segment), lead(segment) + len(segment))
        batch["tokens"][row, place] = segment.tokens
        batch["segment_ids"][row, place] = 1
        batch["positions"][row, place] = np.arange(len(segment))
        batch["loss_weights"][row, place] = segment.loss_weights
        batch["slot"][row, place] = segment.slot
    fields = {name: jnp.asarray(field) for name, field in batch.items() if name != "record_ids"}

    @jax.jit
    def sums(params: Params, fields: losses.Batch) -> dict[str, jax.Array]:
        hidden = definition.forward(params, fields["tokens"], fields["positions"], fields["segment_ids"])
        loss, layout = LossConfig(kind="slot"), losses.Layout(1, 0, len(segments))
        parts = losses.batch_losses(hidden, head_table(params), fields, definition.config, loss, layout)
        return losses.sums(*parts, fields, definition.config)

    expected = sums(params, fields)
    found = Scorer(definition, params).nats(segments).sum(0)
    names = ("onset_nats", "duration_nats", "note_nats")
    np.testing.assert_allclose(found, [float(expected[name]) for name in names], rtol=1e-5)
