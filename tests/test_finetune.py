"""A finetuning by the commands themselves: train, kill, go on, export, load in transformers and PEFT."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax import config as configs
from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    FinetuneConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Source,
)
from midillm_jax.model import hf, hf_write
from midillm_jax.model.llama import INFERENCE, Definition, head_table
from midillm_jax.text.tokenizer import load_tokenizer

ADAPTERS = FinetuneConfig(lora_rank=4, lora_alpha=8.0, music_rows=False)


@pytest.fixture
def run(corpus: Path, tiny_model: ModelConfig, tmp_path: Path) -> Config:
    """Sixteen steps over a base of random weights, saved after every one."""
    model = dataclasses.replace(tiny_model, text_vocab_size=600, num_layers=2)
    tokenizer = load_tokenizer(corpus / "tokenizer.model")
    hf_write.write_hf(tmp_path / "base", model, Definition(model, INFERENCE).init(jax.random.key(0)), tokenizer)
    return Config(
        name="mine",
        run_dir=str(tmp_path / "run"),
        init_from=str(tmp_path / "base"),
        steps=16,
        model=model,
        data=DataConfig(
            tokenizer=str(corpus / "tokenizer.model"),
            row_length=192,
            music_rows=2,
            text_rows=0,
            music=(Source(str(corpus / "pairs")),),
            streams=1,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-2, warmup_steps=1, accumulation_steps=2),
        checkpoint=CheckpointConfig(every_steps=1),
        eval=EvalConfig(every_steps=8, batches=1),
        loss=LossConfig(kind="slot"),
        finetune=ADAPTERS,
        compute_dtype="float32",
        log_every_steps=1,
    )


def command(module: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"midillm_jax.{module}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )


def done(module: str, *arguments: str) -> str:
    process = command(module, *arguments)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def config_file(run: Config, path: Path) -> str:
    path.write_text(
        "from midillm_jax import config\n\n"
        f"def get_config():\n    return config.from_json({configs.to_json(run)!r}, 'test')\n"
    )
    return str(path)


def weights_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix == ".safetensors"}


@pytest.mark.slow
def test_a_killed_finetuning_goes_on_and_is_exported(run: Config, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import peft
    import transformers

    alone = dataclasses.replace(run, run_dir=str(tmp_path / "alone"))
    printed = done("train", "--config", config_file(alone, tmp_path / "alone.py"))
    # Rank 4 times inputs and outputs of q, k, v, o, gate, up and down, in two layers.
    adapters = 2 * 4 * (144 + 80 + 80 + 144 + 3 * 128)
    assert f" parameters, {adapters:,} of them train, from {run.init_from}; " in printed

    file = config_file(run, tmp_path / "run.py")
    process = command("train", "--config", file)
    deadline = time.monotonic() + 300
    while not (Path(run.folder) / "checkpoints" / "4").is_dir() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    printed = done("train", "--config", file)
    assert "resumed at step" in printed

    for name in ("alone", "run"):
        for form in ("model", "peft"):
            done("export", "--checkpoint", str(tmp_path / name), "--out", str(tmp_path / name / form), "--format", form)
    for form in ("model", "peft"):
        assert weights_in(tmp_path / "run" / form) == weights_in(tmp_path / "alone" / form)
        assert json.loads((tmp_path / "run" / form / "midillm.json").read_text())["trained_with"]["init_from"]

    tokens = np.random.default_rng(1).integers(0, run.model.vocab_size, (2, 50), dtype=np.int32)

    def theirs(model: Any) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(tokens).long()).logits.numpy()

    load = transformers.AutoModelForCausalLM.from_pretrained
    merged = theirs(load(tmp_path / "run" / "model", dtype=torch.float32))
    base = load(run.init_from, dtype=torch.float32)
    plain = theirs(base)
    adapted = theirs(peft.PeftModel.from_pretrained(base, str(tmp_path / "run" / "peft")))
    np.testing.assert_allclose(merged, adapted, rtol=0, atol=1e-4)
    assert np.abs(merged - plain).max() > 0.01, "nothing was learnt"

    model, params = hf.read_hf(tmp_path / "run" / "model")
    positions = jnp.tile(jnp.arange(50), (2, 1))
    params = jax.tree.map(jnp.asarray, params)
    hidden = Definition(model, INFERENCE).forward(params, jnp.asarray(tokens), positions, jnp.ones_like(positions))
    ours = np.asarray(hidden @ head_table(params).T)[..., : model.vocab_size]
    np.testing.assert_allclose(merged, ours, rtol=0, atol=1e-4)


def test_an_adapter_needs_no_tokenizer(tmp_path: Path) -> None:
    process = command(
        "export", "--checkpoint", "run", "--out", str(tmp_path / "out"), "--format", "peft", "--tokenizer", "t.model"
    )
    assert process.communicate()[0] == (
        "error: --tokenizer goes with --format model; an adapter uses its base's tokenizer.\n"
    )
    assert process.returncode == 2
