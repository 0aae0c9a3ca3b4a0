import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from midillm_jax.config import Config
from midillm_jax.errors import UserError
from midillm_jax.model import hf_write, sharding
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.text.tokenizer import load_tokenizer
from midillm_jax.training.checkpoint import Checkpoints, Evaluation, Progress
from midillm_jax.training.events import Events
from midillm_jax.training.optimizer import MasterState
from midillm_jax.training.step import State, Training, make_training, state_shardings
from midillm_jax.training.weights import fresh_state, load_params

STREAMS = {"0": {"seen": 3}, "1": {"seen": 4}}
PROGRESS = Progress({"objective": 0.1 + 0.2, "tokens": 3.0}, Evaluation(4, 0.1 + 0.7), 4)


def training_of(run: Config) -> Training:
    return make_training(run, sharding.make_mesh(run.mesh, jax.devices()[:1]))


def opened(training: Training) -> Checkpoints:
    return Checkpoints(training, Events(Path(training.config.folder), active=True))


def assert_equal(one: State, other: State) -> None:
    first, second = jax.tree_util.tree_flatten_with_path(one), jax.tree_util.tree_flatten_with_path(other)
    assert [path for path, _ in first[0]] == [path for path, _ in second[0]]
    for (path, a), (_, b) in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.fixture
def saved(run: Config) -> tuple[Config, State]:
    training = training_of(run)
    state = fresh_state(training)
    checkpoints = opened(training)
    checkpoints.save(5, state, STREAMS, PROGRESS)
    checkpoints.close()
    return run, state


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Config]) -> tuple[Config, State]:
    """A run with the checkpoints of steps 4 and 5, and the state of both: that of 5 is one more everywhere."""
    run = run_in(tmp_path_factory.mktemp("two") / "run")
    training = training_of(run)
    state = fresh_state(training)
    checkpoints = opened(training)
    checkpoints.save(4, state, STREAMS, PROGRESS)
    checkpoints.save(5, jax.tree.map(lambda leaf: leaf + 1, state), STREAMS, PROGRESS)
    checkpoints.wait()
    assert checkpoints.good == 5
    checkpoints.close()
    return run, state


def copied(run: Config, folder: Path) -> Config:
    shutil.copytree(run.folder, folder)
    return dataclasses.replace(run, run_dir=str(folder))


def flip_a_bit(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    place = int(rng.integers(8 * len(content)))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def files_of(step: Path) -> list[Path]:
    return sorted(path.relative_to(step) for path in step.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.slow
def test_no_flipped_bit_goes_unseen(two_steps: tuple[Config, State], tmp_path: Path) -> None:
    """One bit in one file of the newest checkpoint: what is restored is that of step 5 to the bit, or step 4."""
    whole, state = two_steps
    rng = np.random.default_rng(0)
    newest = Path(whole.folder) / "checkpoints" / "5"
    steps: dict[str, int] = {}
    for number, file in enumerate(files_of(newest)):
        run = copied(whole, tmp_path / str(number))
        flip_a_bit(Path(run.folder) / "checkpoints" / "5" / file, rng)
        checkpoints = opened(training_of(run))
        restored = checkpoints.restore()
        checkpoints.close()
        assert restored is not None
        steps[str(file)] = restored.step
        assert_equal(restored.state, jax.tree.map(lambda leaf, by=restored.step - 4: leaf + by, state))
        assert restored.progress == PROGRESS
        assert restored.streams == STREAMS
    # Orbax writes much beside them, but these hold the arrays and the documents themselves.
    held = {file: step for file, step in steps.items() if re.match(r"\w+/(d/|metadata)", file)}
    assert set(held.values()) == {4}, held
    assert len(held) >= 6


@pytest.mark.parametrize("how", ["cut off", "emptied", "missing", "zeroed"])
def test_a_damaged_checkpoint_is_named_and_set_aside(
    two_steps: tuple[Config, State], tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, state = two_steps
    run = copied(whole, tmp_path / "run")
    folder = Path(run.folder) / "checkpoints" / "5"
    largest = max(files_of(folder / "params"), key=lambda path: (folder / "params" / path).stat().st_size)
    file = folder / "params" / largest
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "zeroed":
        file.write_bytes(bytes(len(content)))
    else:
        file.write_bytes(content[: len(content) // 2] if how == "cut off" else b"")
    checkpoints = opened(training_of(run))
    restored = checkpoints.restore()
    assert restored is not None
    assert restored.step == 4
    assert_equal(restored.state, state)
    assert f"warning: {folder}" in capsys.readouterr().err
    assert not folder.exists()
    assert (Path(run.folder) / "damaged" / "5").is_dir()
    events = [json.loads(line) for line in (Path(run.folder) / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [("checkpoint damaged", 5)]
    # The step can be saved again.
    checkpoints.save_whole(5, restored.state, STREAMS, PROGRESS)
    assert checkpoints.good == 5
    checkpoints.close()


def test_a_run_of_damaged_checkpoints_does_not_begin_anew(two_steps: tuple[Config, State], tmp_path: Path) -> None:
    run = copied(two_steps[0], tmp_path / "run")
    folder = Path(run.folder) / "checkpoints"
    for step in ("4", "5"):
        (folder / step / "run" / "metadata").write_text("{")
    checkpoints = opened(training_of(run))
    with pytest.raises(UserError, match=r"no checkpoint there can be used: step 5 .*; step 4 .*Move the folder away"):
        checkpoints.restore()
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["4", "5"]


def test_damaged_weights_are_not_exported(two_steps: tuple[Config, State], tmp_path: Path) -> None:
    run = copied(two_steps[0], tmp_path / "run")
    folder = Path(run.folder) / "checkpoints" / "5" / "params"
    for file in files_of(folder):
        (folder / file).write_bytes(b"")
    with pytest.raises(UserError, match=r"5 cannot be read .*/STEP \(there are 4\)"):
        load_params(run.folder)
    assert_equal(load_params(f"{run.folder}/4")[1], two_steps[1]["params"])


def test_the_newest_the_permanent_and_the_best_are_kept(run: Config) -> None:
    kept = dataclasses.replace(run, checkpoint=dataclasses.replace(run.checkpoint, every_steps=10, keep=1))
    training = training_of(kept)
    state = fresh_state(training)
    checkpoints = opened(training)
    for step, best in ((2, 2), (3, 3), (8, 3), (10, 3), (12, 3), (15, 3)):
        checkpoints.save(step, state, STREAMS, Progress({}, Evaluation(best, 1.0)))
    checkpoints.close()
    names = {path.name for path in (Path(kept.folder) / "checkpoints").iterdir()}
    assert {name for name in names if name.isdigit()} == {"3", "10", "15"}


def test_temporary_checkpoints_are_due_by_the_clock(run: Config) -> None:
    now = [1000.0]
    timed = dataclasses.replace(run, checkpoint=dataclasses.replace(run.checkpoint, every_minutes=5.0))
    training = training_of(timed)
    checkpoints = Checkpoints(training, Events(Path(run.folder), active=True), lambda: now[0])
    now[0] += 299
    assert not checkpoints.due
    now[0] += 2
    assert checkpoints.due
    checkpoints.save_whole(1, fresh_state(training), STREAMS, PROGRESS)
    assert not checkpoints.due
    checkpoints.close()


def test_what_a_killed_save_left_behind_goes(saved: tuple[Config, State]) -> None:
    run, _ = saved
    left = Path(run.folder) / "checkpoints" / "7.orbax-checkpoint-tmp"
    (left / "params").mkdir(parents=True)
    checkpoints = opened(training_of(run))
    restored = checkpoints.restore()
    checkpoints.close()
    assert restored is not None
    assert restored.step == 5
    assert not left.exists()


def test_a_fresh_run_has_nothing_to_restore(run: Config) -> None:
    checkpoints = opened(training_of(run))
    assert checkpoints.restore() is None
    checkpoints.close()


def test_everything_saved_comes_back(saved: tuple[Config, State]) -> None:
    run, state = saved
    checkpoints = opened(training_of(run))
    restored = checkpoints.restore()
    checkpoints.close()
    assert restored is not None
    found, streams, progress, step = restored
    assert step == 5
    assert streams == STREAMS
    assert progress == PROGRESS
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
    checkpoints = opened(training_of(wider))
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
    folder = hf_write.write_hf(tmp_path / "text", text, params, load_tokenizer(run.data.tokenizer))
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
    checkpoints = opened(training)
    checkpoints.save(5, state, STREAMS, PROGRESS)
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
    checkpoints = opened(training_of(without))
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
    checkpoints = opened(training_of(frozen))
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
