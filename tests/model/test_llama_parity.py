"""The decoder's numbers against transformers' LlamaForCausalLM: layer by layer and in the logits.

Every number of the shape differs from its default (tests/conftest.py), and positions reach far beyond the original
context, where llama3 scaling turns slow frequencies.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from midillm_jax.config import ModelConfig
from midillm_jax.model import attention, hf_write
from midillm_jax.model.llama import INFERENCE, Block, Definition, Execution, Params, head_table, rms_norm
from midillm_jax.text.tokenizer import train_sentencepiece

LENGTH = 250
FP32_TOLERANCE = 2e-5

Layers = list[np.ndarray]
"""Hidden states [B, T, D] after every decoder layer, then after the final norm, then logits [B, T, vocab]."""


@pytest.fixture(params=["tied", "untied"])
def config(request: pytest.FixtureRequest, tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(
        tiny_model, text_vocab_size=300, music_vocab_size=130, tie_embeddings=request.param == "tied"
    )


def stirred(config: ModelConfig) -> Params:
    """Weights of which every one matters: attention is sharp, norms are away from 1, logits are spread over a few nats.

    All are bfloat16 numbers, so that the comparison in bfloat16 is one of arithmetic, not of rounded weights.
    """
    rng = np.random.default_rng(0)

    def one(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        noise = rng.normal(size=leaf.shape)
        values = 1 + 0.3 * noise if "norm" in jax.tree_util.keystr(path) else 0.15 * noise
        return values.astype(ml_dtypes.bfloat16).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, Definition(config, INFERENCE).abstract())


def ours(config: ModelConfig, params: Params, tokens: np.ndarray, dtype: str) -> Layers:
    """The model's own blocks, called one by one on their slices of the stacked weights."""
    run = Execution("float32", dtype, "none")
    params = jax.tree.map(jnp.asarray, params)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    segments = jnp.ones_like(positions)
    block = nnx.eval_shape(lambda: Block(config, run, nnx.Rngs(0)))
    rotation = attention.rotation(positions, config)
    found = []
    with jax.default_matmul_precision("highest"):
        x = params["embedding"][tokens].astype(dtype)
        for layer in range(config.num_layers):
            nnx.update(block, jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["blocks"]))
            x = block(x, rotation, lambda q, k, v: attention.packed(q, k, v, segments))
            found.append(x)
        final = rms_norm(x, params["final_norm"], config.rms_norm_eps)
        # What is compared is the model: its scanned forward pass ends where the blocks one by one do.
        forward = Definition(config, run).forward(params, jnp.asarray(tokens), positions, segments)
        assert jnp.max(jnp.abs(forward - final).astype(jnp.float32)) <= (1e-5 if dtype == "float32" else 0.1)
        logits = jnp.einsum("BTD,VD->BTV", forward, head_table(params).astype(dtype))
    return [np.asarray(each, np.float32) for each in (*found, forward, logits[..., : config.vocab_size])]


def theirs(folder: Path, tokens: np.ndarray, dtype: str) -> Layers:
    """transformers' hidden states, caught as each layer returns them."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    found: list[Any] = []
    for module in (*model.model.layers, model.model.norm):
        module.register_forward_hook(lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        found.append(model(torch.from_numpy(tokens).long()).logits)
    return [each.float().numpy() for each in found]


@pytest.fixture
def case(config: ModelConfig, tmp_path: Path) -> tuple[ModelConfig, Params, Path, np.ndarray]:
    params = stirred(config)
    words = [f"a {colour} {thing} plays" for colour in ("warm", "cold", "bright") for thing in ("drum", "horn", "lute")]
    tokenizer = train_sentencepiece(words, tmp_path / "words.model", config.text_vocab_size)
    folder = hf_write.write_hf(tmp_path / "out", config, params, tokenizer)
    return config, params, folder, np.random.default_rng(1).integers(0, config.vocab_size, (2, LENGTH), dtype=np.int32)


def test_float32_equals_transformers_after_every_layer(case: tuple[ModelConfig, Params, Path, np.ndarray]) -> None:
    config, params, folder, tokens = case
    mine, reference = ours(config, params, tokens, "float32"), theirs(folder, tokens, "float32")
    assert len(mine) == len(reference) == config.num_layers + 2
    assert reference[-1].std() > 0.5, "logits too flat to tell two models apart"
    worst = [float(np.abs(a - b).max()) for a, b in zip(mine, reference, strict=True)]
    assert max(worst) <= FP32_TOLERANCE, worst


@pytest.mark.parametrize("change", ["rope_theta", "rms_norm_eps", "rope_scaling", "far positions"])
def test_the_comparison_would_see_a_wrong_number(
    case: tuple[ModelConfig, Params, Path, np.ndarray], change: str
) -> None:
    """Another theta, eps or no scaling is far outside the tolerance: none of them is at a value that hides it."""
    config, params, _, tokens = case
    wrong = {
        "rope_theta": {"rope_theta": 10_000.0},
        "rms_norm_eps": {"rms_norm_eps": 1e-5},
        "rope_scaling": {"rope_scaling": None},
        "far positions": {"rope_scaling": dataclasses.replace(config.rope_scaling, factor=9.0)},  # type: ignore[type-var]
    }[change]
    right = ours(config, params, tokens, "float32")[-1]
    other = ours(dataclasses.replace(config, **wrong), params, tokens, "float32")[-1]
    assert np.abs(right - other).max() > 50 * FP32_TOLERANCE


def test_bfloat16_errs_no_more_than_transformers(case: tuple[ModelConfig, Params, Path, np.ndarray]) -> None:
    """In bfloat16 each rounding is off by up to 2**-9 of its number; a layer rounds about ten times on the way of a
    number through it, half of them of the whole stream, and independent errors add up as roots. So logits may be off
    by the order of 2**-8 x sqrt(5 x layers + 2) of their size (root mean square), whoever computes them; ours may be
    off by no more than 1.5 x what transformers' are."""
    config, params, folder, tokens = case
    exact = ours(config, params, tokens, "float32")
    mine, reference = ours(config, params, tokens, "bfloat16"), theirs(folder, tokens, "bfloat16")

    def errors(layers: Layers) -> np.ndarray:
        pairs = zip(layers, exact, strict=True)
        return np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])

    np.testing.assert_array_less(errors(mine), 1.5 * errors(reference))
    assert errors(mine)[-1] < 2**-8 * np.sqrt(5 * config.num_layers + 2)
    assert errors(mine)[-1] > 2**-10, "this did not run in bfloat16"
