"""slseanwu/MIDI-LLM_Llama-3.2-1B, as its authors publish it, at small width: what our commands make of such a folder.

Rows, config fields, dtype, tokenizer and names of the tensors are those of the original; the weights are drawn here.
Whether its head is tied is not known here, so both forms are read and compared, one of them in several files.
"""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mido
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from midillm_jax import config as configs
from midillm_jax import export
from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    OptimizerConfig,
    Source,
)
from midillm_jax.errors import UserError
from midillm_jax.inference import verify
from midillm_jax.model import hf
from midillm_jax.presets import LLAMA_3_2_1B
from tests.model import hub_server
from tests.text import llama3

pytestmark = pytest.mark.slow

NAME = "slseanwu/MIDI-LLM_Llama-3.2-1B"
WINDOW_SECONDS = 100
ROWS = 128_256 + 55_030
SMALL = dataclasses.replace(LLAMA_3_2_1B, d_model=64, num_layers=2, num_heads=4, num_kv_heads=1, head_dim=16, d_ff=96)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": SMALL.head_dim,
    "hidden_act": "silu",
    "hidden_size": SMALL.d_model,
    "initializer_range": 0.02,
    "intermediate_size": SMALL.d_ff,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": SMALL.num_heads,
    "num_hidden_layers": SMALL.num_layers,
    "num_key_value_heads": SMALL.num_kv_heads,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.49.0",
    "use_cache": True,
    "vocab_size": ROWS,
}
"""Llama-3.2-1B's, with the rows that MIDI-LLM added."""
GENERATION = {
    "_from_model_config": True,
    "bos_token_id": 128000,
    "do_sample": True,
    "eos_token_id": 128001,
    "temperature": 0.6,
    "top_p": 0.9,
    "transformers_version": "4.49.0",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Llama 3's files, as transformers saves them."""
    folder = tmp_path_factory.mktemp("llama3")
    llama3.from_ranks(llama3.rank_file()).save(str(folder / "tokenizer.json"))
    begin, end = (
        {"content": f"<|{name}_of_text|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        for name in ("begin", "end")
    )
    plain = {"bos_token": begin["content"], "eos_token": end["content"], "pad_token": "<|eot_id|>"}
    beside = {
        "tokenizer_config.json": plain | {"model_max_length": 131072, "tokenizer_class": "PreTrainedTokenizerFast"},
        "special_tokens_map.json": {"bos_token": begin, "eos_token": end, "pad_token": "<|eot_id|>"},
    }
    files = {"tokenizer.json": (folder / "tokenizer.json").read_bytes()}
    return files | {name: json.dumps(fields).encode() for name, fields in beside.items()}


def tensors(tied: bool) -> dict[str, np.ndarray]:
    """Weights in bfloat16 of which every one matters."""
    rng = np.random.default_rng(0)
    width, heads = SMALL.d_model, SMALL.num_heads * SMALL.head_dim
    keys = SMALL.num_kv_heads * SMALL.head_dim
    shapes = {"model.embed_tokens": (ROWS, width), "model.norm": (width,)}
    for layer in range(SMALL.num_layers):
        shapes |= {
            f"model.layers.{layer}.{name}": shape
            for name, shape in {
                "input_layernorm": (width,),
                "post_attention_layernorm": (width,),
                "self_attn.q_proj": (heads, width),
                "self_attn.k_proj": (keys, width),
                "self_attn.v_proj": (keys, width),
                "self_attn.o_proj": (width, heads),
                "mlp.gate_proj": (SMALL.d_ff, width),
                "mlp.up_proj": (SMALL.d_ff, width),
                "mlp.down_proj": (width, SMALL.d_ff),
            }.items()
        }
    if not tied:
        shapes["lm_head"] = (ROWS, width)

    def drawn(shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape, np.float32)
        return (1 + 0.3 * noise if len(shape) == 1 else 0.25 * noise).astype(ml_dtypes.bfloat16)

    return {f"{name}.weight": drawn(shape) for name, shape in shapes.items()}


def publish(root: Path, tokenizer: dict[str, bytes], tied: bool, files: int) -> Path:
    """The folder, its weights in so many files."""
    root.mkdir()
    fields = CONFIG | {"tie_word_embeddings": tied}
    for name, content in (("config.json", fields), ("generation_config.json", GENERATION)):
        (root / name).write_text(json.dumps(content, indent=2))
    for name, data in tokenizer.items():
        (root / name).write_bytes(data)
    (root / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    weights = tensors(tied)
    if files == 1:
        safetensors.numpy.save_file(weights, root / hf.WEIGHTS_FILE, {"format": "pt"})
        return root
    names = list(weights)
    parts = {f"model-{number + 1:05d}-of-{files:05d}.safetensors": names[number::files] for number in range(files)}
    for file, held in parts.items():
        safetensors.numpy.save_file({name: weights[name] for name in held}, root / file, {"format": "pt"})
    size = sum(weight.nbytes for weight in weights.values())
    places = {name: file for file, held in parts.items() for name in held}
    (root / hf.INDEX_FILE).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))
    return root


@pytest.fixture(scope="module")
def folder(tokenizer: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "tied", tokenizer, tied=True, files=1)


@pytest.fixture(scope="module")
def untied(tokenizer: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "untied", tokenizer, tied=False, files=2)


def done(module: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    finished = subprocess.run(
        [sys.executable, "-m", f"midillm_jax.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | environment,
    )
    assert finished.returncode == 0, finished.stderr
    return finished


def test_it_is_read_as_what_it_is(folder: Path, untied: Path) -> None:
    for each, tied in ((folder, True), (untied, False)):
        found, params = hf.read_hf(each)
        assert found == dataclasses.replace(SMALL, tie_embeddings=tied)
        assert params["embedding"].dtype == ml_dtypes.bfloat16
        assert ("head" in params) != tied


def test_it_writes_music(folder: Path, tmp_path: Path) -> None:
    words = ("--prompt", "A cheerful rock song with bright electric guitars", "--max-notes", 12, "--outputs", 2)
    # No fluidsynth on this path: the sound is not what is looked at.
    printed = done("generate", "--model", folder, "--out", tmp_path / "music", *words, PATH=str(tmp_path)).stdout
    files = sorted((tmp_path / "music").glob("*.mid"))
    assert len(files) == 2
    for file in files:
        notes = sum(message.type == "note_on" for message in mido.MidiFile(file))
        told = re.search(rf"^{re.escape(str(file))}: (\d+) notes, ([\d.]+) s", printed, re.MULTILINE)
        assert told is not None
        assert int(told[1]) == notes
        # It never learned to end a piece, so it fills the room it is given: the notes asked for, or the window.
        assert notes == 12 or float(told[2]) > WINDOW_SECONDS - 1


def test_it_is_held_to_transformers(folder: Path, untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    for each in (folder, untied):
        printed = done("export", "--checkpoint", each, "--verify").stdout
        assert printed.startswith("96 positions of text and music, transformers")
    # Frequencies that are not stretched as Llama 3's are what a reader could miss most easily.
    reader = verify.hf.read_hf

    def misread(*arguments: Any, **options: Any) -> Any:
        config, params = reader(*arguments, **options)
        return dataclasses.replace(config, rope_scaling=None), params

    monkeypatch.setattr(verify.hf, "read_hf", misread)
    with pytest.raises(UserError, match="Do not use this folder"):
        export.main(["--checkpoint", str(folder), "--verify"])


@contextlib.contextmanager
def on_the_hub(folder: Path, home: Path) -> Iterator[dict[str, str]]:
    """Publishes the folder under its name; gives the environment in which the name is found."""
    with hub_server.running({NAME: {path.name: path.read_bytes() for path in folder.iterdir()}}) as hub:
        yield {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}


@pytest.mark.parametrize("by", ["folder", "name"])
def test_a_run_begins_with_it_and_is_exported(folder: Path, corpus: Path, tmp_path: Path, by: str) -> None:
    # Captions are text in the shards, so any tokenizer reads them.
    music = (Source(str(corpus / "pairs")),)
    run = Config(
        name="from_published",
        run_dir=str(tmp_path / "run"),
        steps=2,
        model=SMALL,
        data=DataConfig(tokenizer=str(folder), row_length=192, music_rows=2, text_rows=0, music=music, streams=1),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
        checkpoint=CheckpointConfig(every_steps=2),
        eval=EvalConfig(every_steps=2, batches=1),
        loss=LossConfig(kind="full"),
        compute_dtype="float32",
        log_every_steps=1,
    )
    file = tmp_path / "config.py"
    file.write_text(
        "from midillm_jax import config\n\n"
        f"def get_config():\n    return config.from_json({configs.to_json(run)!r}, 'test')\n"
    )
    base = str(folder) if by == "folder" else NAME
    with on_the_hub(folder, tmp_path / "home") as environment:
        done("train", "--config", file, "--init-from", base, **environment)
    done("export", "--checkpoint", run.folder, "--out", tmp_path / "model", "--dtype", "bfloat16")
    model, trained = hf.read_hf(tmp_path / "model")
    _, before = hf.read_hf(folder)
    assert model == run.model
    moved = np.abs(trained["embedding"].astype(np.float32) - before["embedding"].astype(np.float32)).max()
    # Two steps of at most 1e-3 each, and bfloat16's rounding, of weights that are 0.25 large.
    assert 0 < moved < 0.02
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Built with Llama" in card
    assert f"begun with {base}" in card
    assert (f"base_model: {NAME}" in card) == (by == "name")


def test_its_name_on_the_hub_is_enough(folder: Path, tmp_path: Path) -> None:
    with on_the_hub(folder, tmp_path / "home") as environment:
        fetching = f"{NAME}: fetching {sum(path.stat().st_size for path in folder.iterdir()) / 1e9:.2f} GB"
        words = ("--prompt", "a march", "--max-notes", 4, "--out", tmp_path / "music")
        first = done("generate", "--model", NAME, *words, PATH=str(tmp_path), **environment)
        assert fetching in first.stderr
        assert len(list((tmp_path / "music").glob("*.mid"))) == 1
        pytest.importorskip("torch", reason="torch is not installed")
        second = done("export", "--checkpoint", NAME, "--verify", **environment)
        assert fetching not in second.stderr
        assert second.stdout.startswith("96 positions of text and music, transformers")
