import dataclasses

import jax
import jax.numpy as jnp
import pytest

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    FinetuneConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
)
from midillm_jax.model import finetune, head
from midillm_jax.model.llama import Definition, Execution
from midillm_jax.training.flops import (
    adapter_flops,
    again_flops,
    dot_flops,
    head_rows,
    layer_flops,
    step_flops,
)

LENGTH = 96


def make_config(model: ModelConfig, kind: str) -> Config:
    return Config(
        name="test",
        steps=10,
        model=model,
        data=DataConfig(tokenizer="", row_length=48, music_rows=10, text_rows=6),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
        checkpoint=CheckpointConfig(every_steps=5),
        eval=EvalConfig(every_steps=5, batches=1),
        loss=LossConfig(kind=kind),
        remat="none",
    )


def counted(function: object, *arguments: object) -> float:
    """XLA's own count of a compiled function's FLOPs, on this machine."""
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.fixture
def wide(tiny_model: ModelConfig) -> ModelConfig:
    """Wide enough that products of matrices are nearly all there is to count; one layer, so that no loop hides any."""
    return dataclasses.replace(
        tiny_model, num_layers=1, d_model=384, d_ff=1024, num_heads=12, num_kv_heads=4, head_dim=48, context_length=512
    )


def layers_and_attention(
    model: ModelConfig,
    *,
    backward: bool,
    changes: FinetuneConfig | None = None,
    remat: str = "none",
    length: int = LENGTH,
) -> float:
    definition = Definition(model, Execution("float32", "float32", remat), changes)
    tokens = jnp.full((1, length), model.text_vocab_size)
    embedding = {"embedding": jnp.zeros((model.padded_vocab_size, model.d_model))}

    def forward(trained: object, frozen: object) -> jax.Array:
        weights = {**finetune.join(trained, frozen), **embedding}
        return jnp.sum(definition.forward(weights, tokens, tokens, tokens))

    params = definition.init(jax.random.key(0))
    del params["embedding"]
    return counted(jax.value_and_grad(forward) if backward else forward, *finetune.split(params, changes))


def test_forward_flops_of_a_layer_are_what_xla_counts(wide: ModelConfig) -> None:
    expected = LENGTH * (layer_flops(wide) + dot_flops(wide, LENGTH))
    assert layers_and_attention(wide, backward=False) == pytest.approx(expected, rel=0.03)


def test_a_train_step_is_three_forward_passes(wide: ModelConfig) -> None:
    forward = layers_and_attention(wide, backward=False)
    assert layers_and_attention(wide, backward=True) == pytest.approx(3 * forward, rel=0.03)


@pytest.mark.parametrize("length", [64, 510, 512, 2048])
def test_dot_attention_is_counted_over_the_keys_up_to_a_blocks_end(wide: ModelConfig, length: int) -> None:
    """Whole where there is one block, 36 of 64 blocks of the square where there are eight."""
    square = 4 * wide.num_heads * wide.head_dim * length
    shares = {64: 1.0, 510: 0.5625, 512: 36 / 64, 2048: 36 / 64}
    assert dot_flops(wide, length) == pytest.approx(shares[length] * square, rel=0.002)


@pytest.mark.parametrize("remat", ["none", "dots", "qkv", "attention", "full"])
def test_what_each_policy_computes_again_is_what_xla_counts(wide: ModelConfig, remat: str) -> None:
    # Two layers are a loop, whose body XLA counts once; out of one layer alone it would take what is computed twice.
    model = dataclasses.replace(wide, num_layers=2, d_model=256, d_ff=384, num_heads=16, head_dim=64)
    config = make_config(model, "full")
    config = dataclasses.replace(config, remat=remat, data=dataclasses.replace(config.data, row_length=512))
    layer, attended = layer_flops(model), dot_flops(model, 512)
    assert attended > 0.5 * layer
    matrices_again, attention_again = again_flops(config, splash=False)
    expected = 512 * (3 * (layer + attended) + matrices_again + attention_again * attended)
    assert layers_and_attention(model, backward=True, remat=remat, length=512) == pytest.approx(expected, rel=0.03)


def test_no_gradient_of_a_frozen_weight_is_computed(wide: ModelConfig) -> None:
    # Music rows train, so that the first layer's input has a gradient, as every layer's has in a loop over many.
    changes = FinetuneConfig(lora_rank=16, lora_alpha=16.0)
    config = dataclasses.replace(make_config(wide, "slot"), finetune=changes)
    attended = dot_flops(wide, LENGTH)
    adapters = adapter_flops(config)
    assert adapters > 0.05 * layer_flops(wide)
    forward = layers_and_attention(wide, backward=False, changes=changes)
    assert forward == pytest.approx(LENGTH * (layer_flops(wide) + adapters + attended), rel=0.03)
    expected = LENGTH * (2 * layer_flops(wide) + 3 * (adapters + attended))
    assert layers_and_attention(wide, backward=True, changes=changes) == pytest.approx(expected, rel=0.03)


def test_a_frozen_heads_rows_have_no_gradient() -> None:
    hidden, table = jnp.ones((1, LENGTH, 256)), jnp.ones((700, 256))
    targets = jnp.zeros((1, LENGTH), jnp.int32)

    def objective(hidden: jax.Array) -> jax.Array:
        # In chunks, as in training: the rows' gradient is what a loop adds up.
        return head.token_losses(hidden, table, targets, head.first_rows(700), LENGTH // 4).objective

    # A loop's body is counted once.
    product = 2 * LENGTH * 256 * 700 / 4
    assert counted(jax.value_and_grad(objective), hidden) == pytest.approx(2 * product, rel=0.03)


@pytest.mark.parametrize("rows", [700, 1000])
def test_head_flops_are_what_xla_counts(rows: int) -> None:
    """The gradient takes two products more, and no logit is computed a second time."""
    hidden, table = jnp.ones((1, LENGTH, 256)), jnp.ones((rows, 256))
    targets = jnp.zeros((1, LENGTH), jnp.int32)

    def objective(hidden: jax.Array, table: jax.Array) -> jax.Array:
        return head.token_losses(hidden, table, targets, head.first_rows(rows), LENGTH).objective

    product = 2 * LENGTH * 256 * rows
    assert counted(objective, hidden, table) == pytest.approx(product, rel=0.03)
    assert counted(jax.value_and_grad(objective, (0, 1)), hidden, table) == pytest.approx(3 * product, rel=0.03)


def test_totals_are_the_parts(wide: ModelConfig) -> None:
    config = make_config(wide, "full")
    tokens = 16 * config.data.row_length
    found = step_flops(config)
    assert found.layers == tokens * layer_flops(wide)
    assert found.head == 2 * tokens * wide.d_model * wide.padded_vocab_size
    assert found.model == 3 * (found.layers + found.attention + found.head)
    # No remat: only the kernel's scores are computed again.
    again = found.hardware - found.model
    assert again == pytest.approx(1.5 * found.attention)
    full = step_flops(dataclasses.replace(config, remat="full"))
    assert full.model == found.model
    assert full.hardware - found.hardware == pytest.approx(found.layers + found.attention)


def test_dot_attention_has_its_own_hardware_flops(wide: ModelConfig) -> None:
    config = dataclasses.replace(make_config(wide, "full"), remat="full")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, row_length=512))
    splash, dot = step_flops(config), step_flops(config, splash=False)
    assert (dot.model, dot.attention) == (splash.model, splash.attention)
    # Splash: forward, 3.5 backward, forward again over half the square. Dot: 1 + 2 + 1 over 36/64 of it.
    square = 2 * splash.attention * 512 / 513
    assert splash.hardware - dot.hardware == pytest.approx(square * (5.5 * 513 / 1024 - 4 * 36 / 64))


def test_the_slot_loss_counts_each_kind_of_row_over_its_own_rows(wide: ModelConfig) -> None:
    """CONTRACTS of the slots: 20,001, 2,001 and 33,026 rows."""
    config = make_config(wide, "slot")
    text, music = head_rows(config)
    assert text == wide.text_vocab_size
    assert music == pytest.approx((20_001 + 2_001 + 33_026) / 3)
    data = config.data
    tokens = data.row_length * (data.text_rows * text + data.music_rows * music)
    assert step_flops(config).head == pytest.approx(2 * wide.d_model * tokens)


def test_totals_of_a_finetuning_leave_out_what_is_frozen(wide: ModelConfig) -> None:
    whole = step_flops(make_config(wide, "slot"))
    rows = dataclasses.replace(make_config(wide, "slot"), finetune=FinetuneConfig(lora_rank=0, lora_alpha=1.0))
    found = step_flops(rows)
    assert (found.layers, found.attention, found.head, found.adapters) == (whole.layers, whole.attention, whole.head, 0)
    data, text = rows.data, head_rows(rows)[0]
    of_text = 2 * wide.d_model * data.row_length * data.text_rows * text
    # Frozen: the layers' weights and the head's text rows.
    assert whole.model - found.model == pytest.approx(found.layers + of_text)
    assert whole.hardware - found.hardware == pytest.approx(found.layers + of_text)

    both = dataclasses.replace(rows, finetune=FinetuneConfig(lora_rank=8, lora_alpha=8.0))
    adapters = step_flops(both).adapters
    assert adapters == 16 * data.row_length * adapter_flops(both)
    assert step_flops(both).model - found.model == pytest.approx(3 * adapters)

    alone = dataclasses.replace(rows, finetune=FinetuneConfig(lora_rank=8, lora_alpha=8.0, music_rows=False))
    of_music = found.head - of_text
    assert step_flops(both).model - step_flops(alone).model == pytest.approx(of_music)

    # The full head's gradient comes from one product, of which the text rows' part is of no use.
    full = dataclasses.replace(rows, loss=LossConfig(kind="full"))
    wasted = step_flops(full).head * wide.text_vocab_size / wide.padded_vocab_size
    useful = step_flops(full).model - 2 * step_flops(full).layers - 3 * step_flops(full).attention
    assert useful == pytest.approx(3 * step_flops(full).head - wasted)
