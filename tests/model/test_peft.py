"""Adapters as a folder that the PEFT library loads over the base."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
)
from midillm_jax.errors import UserError
from midillm_jax.model import finetune, hf_write
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table
from midillm_jax.model.peft import write_peft
from midillm_jax.text.tokenizer import Tokenizer, train_sentencepiece

TEXT_ROWS = 290
ADAPTERS = FinetuneConfig(lora_rank=4, lora_alpha=6.0, music_rows=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_sentencepiece(
        ["do re mi fa sol la ti do"], tmp_path_factory.mktemp("words") / "words.model", TEXT_ROWS
    )


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def run(request: pytest.FixtureRequest, tiny_model: ModelConfig, tmp_path: Path) -> Config:
    return Config(
        name="mine",
        steps=1,
        init_from=str(tmp_path / "base"),
        model=dataclasses.replace(tiny_model, text_vocab_size=TEXT_ROWS, tie_embeddings=request.param),
        data=DataConfig(tokenizer="", row_length=64, music_rows=1, text_rows=0),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
        checkpoint=CheckpointConfig(every_steps=1),
        eval=EvalConfig(every_steps=1, batches=1),
        finetune=ADAPTERS,
    )


def weights(config: Config) -> Params:
    """Weights of which every one matters, adapters and norms included."""
    rng = np.random.default_rng(3)

    def stir(path: Any, leaf: Any) -> np.ndarray:
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return 1 + 0.3 * noise if "norm" in jax.tree_util.keystr(path) else 0.15 * noise

    return jax.tree_util.tree_map_with_path(stir, Definition(config.model, INFERENCE, config.finetune).abstract())


@pytest.mark.parametrize("projections", [ADAPTERS.lora_projections, ("query", "output", "down")], ids=["all", "some"])
def test_peft_gives_the_logits_of_the_adapted_model(
    run: Config, tokenizer: Tokenizer, tmp_path: Path, projections: Any
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import peft
    import transformers

    run = dataclasses.replace(run, finetune=dataclasses.replace(ADAPTERS, lora_projections=projections))
    params = weights(run)
    trained, base = finetune.split(params, run.finetune)
    hf_write.write_hf(tmp_path / "base", run.model, base, tokenizer)
    write_peft(tmp_path / "adapter", trained, run)

    def theirs(model: Any) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(tokens).long()).logits.numpy()

    tokens = np.random.default_rng(1).integers(0, run.model.vocab_size, (2, 60), dtype=np.int32)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    plain = theirs(model)
    adapted = theirs(peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter")))
    positions = jnp.tile(jnp.arange(60), (2, 1))
    with jax.default_matmul_precision("highest"):
        definition = Definition(run.model, INFERENCE, run.finetune)
        hidden = definition.forward(params, jnp.asarray(tokens), positions, jnp.ones_like(positions))
        ours = np.asarray(hidden @ head_table(params).T)[..., : run.model.vocab_size]
    # As tests/model/test_hf.py allows for the base alone.
    np.testing.assert_allclose(adapted, ours, rtol=0, atol=1e-4)
    assert np.abs(adapted - plain).max() > 0.1, "the adapter does nothing"
    # The base is found by the adapter's own word.
    again = peft.AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter"), dtype=torch.float32)
    np.testing.assert_array_equal(theirs(again), adapted)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (None, "mine: this run trained every weight, .*without --format peft"),
        (dataclasses.replace(ADAPTERS, music_rows=True), "the music rows of its tables.*music_rows = False"),
    ],
)
def test_what_is_no_adapter_is_refused(run: Config, tmp_path: Path, changes: FinetuneConfig | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        write_peft(tmp_path / "adapter", {}, dataclasses.replace(run, finetune=changes))
    assert not (tmp_path / "adapter").exists()


def test_numbers_that_are_not_finite_are_named_and_nothing_is_written(run: Config, tmp_path: Path) -> None:
    trained, _ = finetune.split(weights(run), run.finetune)
    trained["blocks"]["feed_forward"]["adapters"]["up"]["b"][1, 0, 0] = 1e6
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.lora_B\.weight: .*not finite as float16"):
        write_peft(tmp_path / "adapter", trained, run, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_adapter_is_replaced_and_other_folders_are_left_alone(run: Config, tmp_path: Path) -> None:
    trained, _ = finetune.split(weights(run), run.finetune)
    for dtype in ("float32", "bfloat16"):
        write_peft(tmp_path / "adapter", trained, run, dtype=dtype)
        tensors = safetensors.numpy.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        assert {str(tensor.dtype) for tensor in tensors.values()} == {dtype}
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already and is not an export"):
        write_peft(tmp_path / "mine", trained, run)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
