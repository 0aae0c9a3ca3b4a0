import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from midillm_jax.config import Config
from midillm_jax.errors import UserError
from midillm_jax.model import hf, sharding
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.text.tokenizer import load_tokenizer
from midillm_jax.training.checkpoint import Checkpoints, fresh_state, load_params
from midillm_jax.training.optimizer import MasterState
from midillm_jax.training.step import State, Training, make_training, state_shardings

STREAMS = {"0": {"seen": 3}, "1": {"seen": 4}}
FIGURES = {"objective": 0.1 + 0.2, "tokens": 3.0}


def training_of(run: Config) -> Training:
    return make_training(run, sharding.make_mesh(run.mesh, jax.devices()[:1]))


def assert_equal(one: State, other: State) -> None:
    first, second = jax.tree_util.tree_flatten_with_path(one), jax.tree_util.tree_flatten_with_path(other)
    assert [path for path, _ in first[0]] == [path for path, _ in second[0]]
    for (path, a), (_, b) in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.fixture
def saved(run: Config) -> tuple[Config, State]:
    training = training_of(run)
    state = fresh_state(training)
    checkpoints = Checkpoints(training)
    checkpoints.save(5, state, STREAMS, FIGURES)
    checkpoints.close()
    return run, state


def test_a_fresh_run_has_nothing_to_restore(run: Config) -> None:
    checkpoints = Checkpoints(training_of(run))
    assert checkpoints.restore() is None
    checkpoints.close()


def test_everything_saved_comes_back(saved: tuple[Config, State]) -> None:
    run, state = saved
    checkpoints = Checkpoints(training_of(run))
    restored = checkpoints.restore()
    checkpoints.close()
    assert restored is not None
    found, streams, figures, step = restored
    assert step == 5
    assert streams == STREAMS
    assert figures == FIGURES
    assert_equal(found["params"], state["params"])
    assert jax.tree.structure(found["optimizer"]) == jax.tree.structure(state["optimizer"])
    assert_equal(found["optimizer"], state["optimizer"])


@pytest.mark.parametrize("form", ["{run}", "{run}/5", "{run}/checkpoints/5"])
def test_weights_are_read_by_run_or_step(saved: tuple[Config, State], form: str) -> None:
    run, state = saved
    config, params = load_params(form.format(run=run.folder))
    assert config == run
    assert_equal(params, state["params"])


@pytest.mark.parametrize(
    ("name", "words"), [("elsewhere", "no checkpoints there"), ("run/7", r"step 7 is not there; saved steps: 5")]
)
def test_a_missing_checkpoint_says_what_is_there(saved: tuple[Config, State], name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_params(str(Path(saved[0].folder).parent / name))


def test_another_shape_shows_old_and_new(saved: tuple[Config, State]) -> None:
    run, _ = saved
    wider = dataclasses.replace(run, model=dataclasses.replace(run.model, d_ff=96))
    checkpoints = Checkpoints(training_of(wider))
    with pytest.raises(UserError, match=r"saved with model\.d_ff = 80, but the config now says 96"):
        checkpoints.restore()
    checkpoints.close()


def test_a_run_begins_with_the_weights_of_another(saved: tuple[Config, State], tmp_path: Path) -> None:
    run, state = saved
    second = dataclasses.replace(run, run_dir=str(tmp_path / "second"), init_from=run.folder, seed=1)
    begun = fresh_state(training_of(second))
    assert_equal(begun["params"], state["params"])


def test_a_text_model_is_grown_by_music_rows(run: Config, tmp_path: Path) -> None:
    text = dataclasses.replace(run.model, music_vocab_size=0)
    params = Definition(text, INFERENCE).init(jax.random.key(3))
    folder = hf.write_hf(tmp_path / "text", text, params, load_tokenizer(run.data.tokenizer))
    begun = fresh_state(training_of(dataclasses.replace(run, init_from=str(folder))))["params"]
    np.testing.assert_array_equal(begun["embedding"][:600], params["embedding"][:600])
    assert begun["embedding"].shape == (run.model.padded_vocab_size, run.model.d_model)
    music = np.asarray(begun["embedding"][600 : run.model.vocab_size])
    assert music.std() == pytest.approx(np.asarray(params["embedding"][:600]).std(), rel=0.05)
    np.testing.assert_array_equal(begun["final_norm"], params["final_norm"])


def test_weights_of_another_shape_are_named(saved: tuple[Config, State], tmp_path: Path) -> None:
    run, _ = saved
    wider = dataclasses.replace(
        run,
        run_dir=str(tmp_path / "second"),
        init_from=run.folder,
        model=dataclasses.replace(run.model, d_ff=96),
    )
    with pytest.raises(UserError, match=r"blocks.feed_forward.\w+ has shape \(2, .*make the model section"):
        fresh_state(training_of(wider))


def test_a_float32_master_is_saved_with_bfloat16_weights(run: Config) -> None:
    low = dataclasses.replace(
        run, param_dtype="bfloat16", optimizer=dataclasses.replace(run.optimizer, moment_dtype="bfloat16")
    )
    training = training_of(low)
    state = fresh_state(training)
    assert isinstance(state["optimizer"], MasterState)
    # What no bfloat16 number can hold has to come back too.
    master = jax.tree.map(lambda leaf: leaf + 1e-6, state["optimizer"].master)
    state["optimizer"] = state["optimizer"]._replace(master=master)
    checkpoints = Checkpoints(training)
    checkpoints.save(5, state, STREAMS, FIGURES)
    restored = checkpoints.restore()
    assert restored is not None
    checkpoints.close()
    found = restored[0]
    assert jax.tree.structure(found["optimizer"]) == jax.tree.structure(state["optimizer"])
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert {leaf.dtype for leaf in jax.tree.leaves(found["params"])} == {np.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(found["optimizer"].master)} == {np.dtype("float32")}
    assert_equal(found["params"], state["params"])
    assert_equal(found["optimizer"], state["optimizer"])
    params = load_params(low.folder)[1]
    assert params["final_norm"].dtype == "bfloat16"

    without = dataclasses.replace(low, optimizer=dataclasses.replace(low.optimizer, master_weights=False))
    checkpoints = Checkpoints(training_of(without))
    with pytest.raises(UserError, match=r"saved with optimizer\.master_weights = True, but the config now says False"):
        checkpoints.restore()
    checkpoints.close()


def test_the_master_lies_where_its_weights_lie(run: Config) -> None:
    low = dataclasses.replace(run, param_dtype="bfloat16")
    placed = state_shardings(make_training(low, sharding.make_mesh(low.mesh)))
    assert placed["optimizer"].master == placed["params"]
    assert placed["params"]["embedding"].spec[0] == "tensor"


def test_a_run_goes_on_with_another_share_for_text_rows(saved: tuple[Config, State]) -> None:
    run, state = saved
    frozen = dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, text_rows_learning_rate_share=0.0))
    checkpoints = Checkpoints(training_of(frozen))
    restored = checkpoints.restore()
    checkpoints.close()
    assert restored is not None
    assert_equal(restored[0]["optimizer"], state["optimizer"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rope_theta": 10_000.0}, "rope_theta = 5000.0, the config's model has 10000.0"),
        ({"rms_norm_eps": 1e-5}, "eps"),
    ],
)
def test_weights_trained_with_other_numbers_are_refused(
    saved: tuple[Config, State], tmp_path: Path, changed: dict[str, float], words: str
) -> None:
    run, _ = saved
    model = dataclasses.replace(run.model, **changed)  # type: ignore[arg-type]
    other = dataclasses.replace(run, run_dir=str(tmp_path / "second"), init_from=run.folder, model=model)
    with pytest.raises(UserError, match=words):
        fresh_state(training_of(other))
