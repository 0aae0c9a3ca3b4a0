"""The frozen base of a finetuning: where it is read from, and that it is the same one each time."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from midillm_jax.config import Config, FinetuneConfig, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import finetune, hf_names, hf_write, sharding
from midillm_jax.model.llama import INFERENCE, Definition, Params
from midillm_jax.text.tokenizer import load_tokenizer
from midillm_jax.training.checkpoint import Checkpoints, Progress
from midillm_jax.training.events import Events
from midillm_jax.training.step import State, Training, make_training, weights_of
from midillm_jax.training.weights import fresh_state, load_params, load_trained

BOTH = FinetuneConfig(lora_rank=4, lora_alpha=8.0)
ADAPTERS = dataclasses.replace(BOTH, music_rows=False)


def written(run: Config, folder: Path, model: ModelConfig, seed: int = 0) -> Params:
    """A Hugging Face folder of fresh weights, which are returned."""
    params = jax.tree.map(np.asarray, Definition(model, INFERENCE).init(jax.random.key(seed)))
    hf_write.write_hf(folder, model, params, load_tokenizer(run.data.tokenizer))
    return params


@pytest.fixture
def tuned(run: Config, tmp_path: Path) -> Config:
    return dataclasses.replace(run, init_from=str(tmp_path / "base"), finetune=BOTH)


def training_of(run: Config) -> Training:
    return make_training(run, sharding.make_mesh(run.mesh, jax.devices()[:1]))


def opened(training: Training) -> Checkpoints:
    return Checkpoints(training, Events(Path(training.config.folder), active=True))


def saved(training: Training, state: State) -> None:
    checkpoints = opened(training)
    checkpoints.save_whole(5, state, {}, Progress({}))
    checkpoints.close()


def restored(training: Training) -> State:
    checkpoints = opened(training)
    try:
        found = checkpoints.restore()
    finally:
        checkpoints.close()
    assert found is not None
    return found.state


def assert_equal(one: Any, other: Any) -> None:
    left, right = hf_names.flat(one), hf_names.flat(other)
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=".".join(path))


def without_padding(params: Params, run: Config) -> Params:
    return params | {"embedding": np.asarray(params["embedding"])[: run.model.vocab_size]}


@pytest.mark.parametrize("changes", [BOTH, ADAPTERS], ids=["both", "adapters"])
def test_a_finetuning_begins_with_its_base(tuned: Config, tmp_path: Path, changes: FinetuneConfig) -> None:
    base = written(tuned, tmp_path / "base", tuned.model)
    state = fresh_state(training_of(dataclasses.replace(tuned, finetune=changes)))
    begun = finetune.merged(jax.tree.map(np.asarray, weights_of(state)), changes)
    assert_equal(without_padding(begun, tuned), without_padding(base, tuned))


def test_only_what_trains_is_saved_and_the_rest_comes_from_the_base(tuned: Config, tmp_path: Path) -> None:
    written(tuned, tmp_path / "base", tuned.model)
    training = training_of(dataclasses.replace(tuned, compute_dtype="bfloat16"))
    state = fresh_state(training)
    state["params"] = jax.tree.map(lambda leaf: leaf + 0.25, state["params"])
    saved(training, state)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state["params"]))
    stored = sum(file.stat().st_size for file in (Path(tuned.folder) / "checkpoints/5/params").rglob("*"))
    assert stored < 1.1 * size
    again = restored(training)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert jax.tree.map(lambda leaf: leaf.dtype, again) == jax.tree.map(lambda leaf: leaf.dtype, state)
    for part in ("params", "frozen"):
        assert_equal(again[part], state[part])
    assert_equal(load_trained(tuned.folder)[1], state["params"])


def test_weights_of_a_finetuning_are_read_merged(tuned: Config, tmp_path: Path) -> None:
    written(tuned, tmp_path / "base", tuned.model)
    training = training_of(tuned)
    state = fresh_state(training)
    state["params"] = jax.tree.map(lambda leaf: leaf + 0.25, state["params"])
    saved(training, state)
    config, params = load_params(tuned.folder)
    assert config == tuned
    assert_equal(params, finetune.merged(jax.tree.map(np.asarray, weights_of(state)), BOTH))
    # Another run may begin with them.
    whole = dataclasses.replace(tuned, finetune=None, init_from=tuned.folder, run_dir=str(tmp_path / "next"))
    assert_equal(fresh_state(training_of(whole))["params"], params)


def test_a_text_models_new_rows_train_beside_its_own_that_do_not(tuned: Config, tmp_path: Path) -> None:
    text = dataclasses.replace(tuned.model, music_vocab_size=0)
    base = written(tuned, tmp_path / "base", text)
    state = fresh_state(training_of(tuned))
    np.testing.assert_array_equal(state["frozen"]["embedding"], base["embedding"][:600])
    music = np.asarray(state["params"]["music_embedding"])
    assert music.shape == (tuned.model.padded_vocab_size - 600, tuned.model.d_model)
    assert music[:55_030].std() == pytest.approx(base["embedding"][:600].std(), rel=0.05)
    assert not music[55_030:].any()
    # They are in no file but the checkpoint, from which they have to come back.
    training = training_of(tuned)
    saved(training, state)
    assert_equal(restored(training)["params"], state["params"])


def test_a_text_models_rows_cannot_be_frozen(tuned: Config, tmp_path: Path) -> None:
    written(tuned, tmp_path / "base", dataclasses.replace(tuned.model, music_vocab_size=0))
    with pytest.raises(UserError, match=r"is a text model, whose music rows are new.*finetune\.music_rows"):
        fresh_state(training_of(dataclasses.replace(tuned, finetune=ADAPTERS)))


def test_another_base_is_refused_and_the_same_one_elsewhere_is_not(tuned: Config, tmp_path: Path) -> None:
    written(tuned, tmp_path / "base", tuned.model)
    training = training_of(tuned)
    state = fresh_state(training)
    saved(training, state)
    shutil.move(tmp_path / "base", tmp_path / "moved")
    with pytest.raises(UserError, match=r"base: is no Hugging Face folder"):
        restored(training)
    written(tuned, tmp_path / "base", tuned.model, seed=1)
    with pytest.raises(UserError, match=r"holds other weights than the base that .*run began with, which was .*base;"):
        restored(training)
    with pytest.raises(UserError, match="holds other weights"):
        load_params(tuned.folder)
    moved = training_of(dataclasses.replace(tuned, init_from=str(tmp_path / "moved")))
    assert_equal(restored(moved)["frozen"], state["frozen"])
    assert load_params(tuned.folder, str(tmp_path / "moved"))[0].init_from == str(tmp_path / "moved")


def test_a_run_is_no_base_until_it_is_exported(tuned: Config, tmp_path: Path) -> None:
    whole = dataclasses.replace(tuned, finetune=None, init_from="")
    training = training_of(whole)
    saved(training, fresh_state(training))
    other = dataclasses.replace(tuned, init_from=whole.folder, run_dir=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"checkpoints are deleted.*export a run first"):
        fresh_state(training_of(other))
    assert not Path(other.folder).exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"d_ff": 96}, r"blocks\.feed_forward\.\w+ has shape"), ({"rope_theta": 9.0}, "rope_theta = 5000.0")],
)
def test_a_base_that_does_not_fit_the_config_is_named(
    tuned: Config, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    written(tuned, tmp_path / "base", tuned.model)
    other = dataclasses.replace(tuned, model=dataclasses.replace(tuned.model, **changed))
    with pytest.raises(UserError, match=words):
        fresh_state(training_of(other))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dataclasses.replace(BOTH, lora_rank=8), r"finetune\.lora_rank = 4, but the config now says 8"),
        (dataclasses.replace(BOTH, lora_alpha=4.0), r"finetune\.lora_alpha = 8\.0, but the config now says 4\.0"),
        (None, r"finetune = FinetuneConfig\(.*\), but the config now says None"),
    ],
)
def test_what_trains_cannot_change_on_the_way(
    tuned: Config, tmp_path: Path, changes: FinetuneConfig | None, words: str
) -> None:
    written(tuned, tmp_path / "base", tuned.model)
    training = training_of(tuned)
    saved(training, fresh_state(training))
    with pytest.raises(UserError, match=words):
        restored(training_of(dataclasses.replace(tuned, finetune=changes)))


def test_a_run_without_the_note_of_its_base_says_so(tuned: Config, tmp_path: Path) -> None:
    written(tuned, tmp_path / "base", tuned.model)
    training = training_of(tuned)
    saved(training, fresh_state(training))
    note = Path(tuned.folder) / "base.json"
    assert json.loads(note.read_text())["init_from"] == tuned.init_from
    note.unlink()
    with pytest.raises(UserError, match=r"base\.json: no such file; expected the note"):
        restored(training)
