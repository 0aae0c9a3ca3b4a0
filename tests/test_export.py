"""A run's checkpoint becomes a Hugging Face folder: the same numbers, the run's tokenizer, errors by name."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest

from midillm_jax import commands, export
from midillm_jax.config import CheckpointConfig, Config, DataConfig, EvalConfig, ModelConfig, OptimizerConfig, from_json
from midillm_jax.errors import UserError
from midillm_jax.inference import verify
from midillm_jax.model import hf, sharding
from midillm_jax.music import vocab
from midillm_jax.text.tokenizer import load_tokenizer, train_sentencepiece
from midillm_jax.training import checkpoint, run_log, weights
from midillm_jax.training.checkpoint import Progress
from midillm_jax.training.events import Events
from midillm_jax.training.step import init_state, make_training
from tests.model import hub_server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run folder with checkpoints of two steps, whose weights differ."""
    folder = tmp_path_factory.mktemp("run")
    words = ["one two three four five six seven eight nine ten", "do re mi fa sol la ti do"]
    tokenizer = train_sentencepiece(words, folder / "words.model", 290)
    config = Config(
        name="tiny",
        run_dir=str(folder / "run"),
        steps=2,
        model=ModelConfig(
            text_vocab_size=tokenizer.vocab_size,
            d_model=16,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=8,
            d_ff=24,
            context_length=128,
            rope_theta=500.0,
            rms_norm_eps=1e-5,
            tie_embeddings=True,
        ),
        data=DataConfig(tokenizer=str(folder / "words.model"), row_length=64, music_rows=1, text_rows=1, streams=1),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1),
        checkpoint=CheckpointConfig(every_steps=1),
        eval=EvalConfig(every_steps=1, batches=1),
    )
    training = make_training(config, sharding.make_mesh(config.mesh, jax.devices()[:1]))
    checkpoints = checkpoint.Checkpoints(training, Events(Path(config.folder), active=True))
    for step in (1, 2):
        checkpoints.save(step, init_state(training, training.definition.init(jax.random.key(step))), {}, Progress({}))
    checkpoints.close()
    return config


def weights_at(run: Config, step: int) -> np.ndarray:
    return np.asarray(weights.load_params(f"{run.folder}/{step}")[1]["blocks"]["feed_forward"]["up"])


def test_the_newest_checkpoint_is_exported(run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    export.main(["--checkpoint", run.folder, "--out", str(out)])
    model, params = hf.read_hf(out)
    assert model == run.model
    assert np.array_equal(params["blocks"]["feed_forward"]["up"], weights_at(run, 2))
    assert not np.array_equal(weights_at(run, 1), weights_at(run, 2))
    # 55,320 rows of 16 and 1 norm, then in each of 2 layers q, o: 16x16; k, v: 16x8; 3 of 16x24; 2 norms.
    count = (290 + vocab.VOCAB_SIZE) * 16 + 16 + 2 * (2 * 256 + 2 * 128 + 3 * 384 + 2 * 16)
    printed = capsys.readouterr().out
    assert f"{count:,} parameters in float32, the head is the embedding table" in printed
    assert all(file.name in printed for file in out.iterdir())


def test_the_folder_carries_what_others_need(run: Config, tmp_path: Path) -> None:
    export.main(["--checkpoint", run.folder, "--out", str(tmp_path / "out")])
    own = json.loads((tmp_path / "out" / "midillm.json").read_text())
    assert own["text_vocab_size"] == run.model.text_vocab_size
    assert from_json(json.dumps(own["trained_with"]), "midillm.json") == run
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"][1] == 290 + vocab.SEPARATOR
    # Rows of 64 tokens were trained on, of which the shortest prompt takes two; the context would hold 128.
    assert generation["max_new_tokens"] == 62
    beside = load_tokenizer(tmp_path / "out")
    assert beside.fingerprint == load_tokenizer(run.data.tokenizer).fingerprint


def test_the_card_tells_the_run_and_its_held_out_figures(run: Config, tmp_path: Path) -> None:
    log = run_log.RunLog(Path(run.folder), 2)
    log.write(1, "validation", {"loss": 9.5, "bits_per_note": 40.0})
    log.write(2, "validation", {"loss": 8.5, "bits_per_note": 36.5, "tokens_per_second": 5.0})
    out = tmp_path / "out"
    export.main(["--checkpoint", run.folder, "--out", str(out)])
    card = (out / "README.md").read_text()
    assert "# tiny" in card
    assert "2 of 2 steps, 2 rows of 64 tokens each: 256 tokens" in card
    assert "- bits per note: 36.5" in card
    assert "tokens per second" not in card
    export.main(["--checkpoint", f"{run.folder}/1", "--out", str(out)])
    assert "- bits per note: 40" in (out / "README.md").read_text()


def test_an_export_is_held_to_transformers(run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    out = tmp_path / "out"
    export.main(["--checkpoint", run.folder, "--out", str(out), "--verify", "--shard-gb", "0.002"])
    assert (out / hf.INDEX_FILE).is_file()
    assert "96 positions of text and music, transformers" in capsys.readouterr().out
    export.main(["--checkpoint", str(out), "--verify"])
    assert "logits differ by" in capsys.readouterr().out
    # Queries and keys of another rotation are what a wrong table of names would give.
    reader = verify.hf.read_hf

    def misread(*arguments: Any, **options: Any) -> Any:
        config, params = reader(*arguments, **options)
        return dataclasses.replace(config, rope_theta=10.0), params

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify.hf, "read_hf", misread)
        with pytest.raises(UserError, match="Do not use this folder"):
            export.main(["--checkpoint", str(out), "--verify"])


def test_what_is_exported_is_uploaded(run: Config, tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    out = tmp_path / "out"
    words = ["-m", "midillm_jax.export", "--checkpoint", run.folder, "--out", str(out), "--dtype", "bfloat16"]
    with hub_server.running({}) as hub:
        settings = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": hub_server.TOKEN,
        }
        more = ["--push-to-hub", "me/music", "--private"]
        done = subprocess.run(
            [sys.executable, *words, *more], capture_output=True, text=True, env=os.environ | settings, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"{hub.endpoint}/me/music"
    assert hub.models == {"me/music": {path.name: path.read_bytes() for path in out.iterdir()}}
    assert hub.private == {"me/music"}
    # Nothing is written where nothing could be sent.
    words[5] = str(tmp_path / "second")
    offline = {**os.environ, **settings, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *words, *more], capture_output=True, text=True, env=offline, check=False)
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE forbids" in done.stderr
    assert not (tmp_path / "second").exists()


def test_a_step_and_a_dtype_can_be_chosen(run: Config, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export.main(["--checkpoint", f"{run.folder}/1", "--out", str(out), "--dtype", "bfloat16"])
    read = hf.read_hf(out)[1]["blocks"]["feed_forward"]["up"]
    assert np.array_equal(read, weights_at(run, 1).astype(read.dtype))
    assert read.dtype == hf.DTYPES["bfloat16"][1]


def test_a_folder_for_llama_cpp(run: Config, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export.main(["--checkpoint", f"{run.folder}/1", "--out", str(out), "--format", "gguf", "--dtype", "float16"])
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(out / "model.gguf").tensors}
    expected = weights_at(run, 1).astype(np.float16)
    for layer in range(2):
        np.testing.assert_array_equal(tensors[f"blk.{layer}.ffn_up.weight"], expected[layer].T)
    assert load_tokenizer(out).fingerprint == load_tokenizer(run.data.tokenizer).fingerprint
    assert "library_name: gguf" in (out / "README.md").read_text()
    assert not list(out.glob("*.safetensors"))
    with pytest.raises(UserError, match=r"holds weights for llama\.cpp alone .*--backend llamacpp"):
        hf.read_hf(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--dtype": "int8", "--format": "peft"}, "--dtype int8 is not for --format peft"),
        ({"--format": "gguf", "--dtype": "bfloat16"}, "choose float32 or float16 or q8_0"),
        ({"--format": "gguf", "--dtype": "q8_0"}, "d_model of this model is 16 wide, q8_0 needs a multiple of 32"),
        ({"--dtype": "q8_0"}, "--dtype q8_0 is not for --format model; choose float32 or bfloat16 or float16 or int8"),
        ({"--checkpoint": "nowhere"}, "nowhere: no checkpoints there"),
        ({"--checkpoint": "{run}/7"}, "step 7 is not there"),
        ({"--tokenizer": "nowhere.model"}, "nowhere.model: no such file"),
        ({"--out": "{run}"}, "holds checkpoints"),
        ({"--tokenizer": "{other}"}, "has 280 ids, the model's text vocabulary 290 rows"),
    ],
)
def test_mistakes_end_in_one_sentence(
    run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    other = tmp_path / "other.model"
    train_sentencepiece(["one two three four five six seven"], other, 280)
    given = {"--checkpoint": run.folder, "--out": str(tmp_path / "out")} | change
    arguments = [part.format(run=run.folder, other=other) for pair in given.items() for part in pair]
    with pytest.raises(SystemExit) as stopped:
        commands.run(export.main, arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [other]
    assert np.isfinite(weights_at(run, 2)).all(), "the run is still there"
