"""Orbax checkpoints: weights, optimiser and the state of every data stream, saved together.

``RUN/checkpoints/STEP/`` holds four items: ``params``, ``optimizer``, ``data`` (JSON: stream id -> state, of all
hosts) and ``config`` (JSON, as in ``RUN/config.json``). Saves are asynchronous; a step's folder appears under its
final name only when it is whole.

Where a run begins, in this order (the first that applies):

1. its own run folder holds a checkpoint: weights, optimiser, step and streams go on from the newest; what a finetuning
   freezes is in none and is read from ``init_from`` again (training/base.py);
2. ``init_from`` names a run folder or a Hugging Face folder: its weights, everything else fresh;
3. fresh weights from ``seed``.
"""

import dataclasses
import json
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from midillm_jax import config as configs
from midillm_jax.config import Config, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import embedding, finetune, hf
from midillm_jax.model.llama import Definition, Execution, Params
from midillm_jax.training import base, hosts
from midillm_jax.training.step import State, Training, init_state, state_shardings

FOLDER = "checkpoints"
MUST_NOT_CHANGE = ("model", "finetune", "seed", "param_dtype", "optimizer.master_weights", "optimizer.moment_dtype")
"""Fields whose change would make a checkpoint of the same run unreadable or its continuation another run."""


class Checkpoints:
    """Saves and restores one run."""

    def __init__(self, training: Training):
        # Orbax reports every step of every save through absl; a run's own lines say what matters.
        absl_logging.set_verbosity(absl_logging.ERROR)
        self._training = training
        self.folder = Path(training.config.folder).absolute() / FOLDER
        self._opened: ocp.CheckpointManager | None = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        # Opening makes the folder: a run that fails before its first save leaves none behind.
        if self._opened is None:
            keep = self._training.config.checkpoint.keep
            options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
            self._opened = ocp.CheckpointManager(self.folder, options=options)
        return self._opened

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint."""
        if not self.folder.is_dir():
            return None
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, state: State, streams: dict[str, Any], figures: dict[str, float]) -> None:
        """Begins saving; weights are copied before this returns, files are written behind.

        Args:
            step: updates done.
            streams: this host's stream states (data.batches.Batches.get_state).
            figures: sums over the steps since the last logged row, so that the next row counts them in.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state["params"]),
                optimizer=ocp.args.StandardSave(state["optimizer"]),
                data=ocp.args.JsonSave(_gather(streams)),
                figures=ocp.args.JsonSave(figures),
                config=ocp.args.JsonSave(dataclasses.asdict(self._training.config)),
            ),
        )

    def restore(self) -> tuple[State, dict[str, Any], dict[str, float], int] | None:
        """The newest checkpoint: state, stream states of all hosts, figures, updates done; None when there is none.

        Raises:
            UserError: it belongs to a run of another shape; old and new values are shown.
        """
        step = self.latest_step()
        if hosts.same_everywhere(-1 if step is None else step) is None:
            newest = "none" if step is None else f"step {step}"
            raise UserError(
                f"{self.folder}: the newest checkpoint here is {newest}, on other hosts another; expected --run-dir to "
                "name a folder that all hosts share, such as a mounted bucket."
            )
        if step is None:
            return None
        saved = self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]
        _check_unchanged(saved, self._training.config, self.folder / str(step))
        shapes = jax.eval_shape(lambda: init_state(self._training, self._training.definition.init(jax.random.key(0))))
        target = _with_shardings(shapes, state_shardings(self._training))
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(target["params"]),
                optimizer=ocp.args.StandardRestore(target["optimizer"]),
                data=ocp.args.JsonRestore(),
                figures=ocp.args.JsonRestore(),
            ),
        )
        frozen = base.frozen(self._training.definition, self._training.config, self.folder.parent)
        state = {
            "params": restored["params"],
            "frozen": _place_frozen(self._training, frozen),
            "optimizer": restored["optimizer"],
        }
        return state, restored["data"], restored["figures"], step

    def wait(self) -> None:
        """Returns when what was begun is written."""
        if self._opened is not None:
            self._opened.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        if self._opened is not None:
            self._opened.close()


def fresh_state(training: Training) -> State:
    """The state of a run that has no checkpoint of its own: from ``init_from``, or from the seed."""
    config = training.config
    shardings = state_shardings(training)
    if not config.init_from:
        start = jax.jit(lambda key: init_state(training, training.definition.init(key)), out_shardings=shardings)
        return start(jax.random.key(config.seed))
    if config.finetune is not None:
        trained, frozen = base.begin(training.definition, config.finetune, config)
        if hosts.is_first():
            base.note(config, frozen)
        return _state(training, trained, frozen)
    source, params = load_weights(config.init_from, config.model.vocab_multiple)
    if not source.music_vocab_size:
        music_rows = config.model.music_vocab_size
        params = embedding.resize_embedding(params, source, music_rows, config.music_init, config.seed)
    wanted = training.definition.abstract()
    base.check_weights(params, wanted, source, config)
    return _state(training, jax.tree.map(lambda leaf, like: np.asarray(leaf, like.dtype), params, wanted), {})


def _state(training: Training, trained: Params, frozen: Params) -> State:
    """The state before the first step, of weights that every process has the whole of."""
    shardings = state_shardings(training)
    placed = jax.tree.map(_place, trained, shardings["params"])
    optimizer = jax.jit(training.optimizer.init, out_shardings=shardings["optimizer"])(placed)
    return {"params": placed, "frozen": _place_frozen(training, frozen), "optimizer": optimizer}


def _place_frozen(training: Training, frozen: Params) -> Params:
    """What a finetuning freezes, in the compute dtype."""
    kind = jnp.dtype(training.config.compute_dtype)
    placed = state_shardings(training)["frozen"]
    return jax.tree.map(lambda leaf, target: _place(leaf.astype(kind), target), frozen, placed)


def _place(leaf: np.ndarray, target: jax.sharding.Sharding) -> jax.Array:
    """A global array of which every process has the whole: each gives its own devices their parts."""
    return jax.make_array_from_callback(leaf.shape, target, lambda index: leaf[index])


def load_weights(where: str, vocab_multiple: int) -> tuple[ModelConfig, Params]:
    """Weights of a run folder (newest checkpoint), of ``RUN/STEP`` or of a Hugging Face folder.

    ``vocab_multiple`` is what a Hugging Face table is padded to; a run's own table comes as it was trained.
    """
    if (Path(where) / "config.json").is_file() and not (Path(where) / FOLDER).is_dir():
        return hf.read_hf(Path(where), vocab_multiple=vocab_multiple)
    config, params = load_params(where)
    return config.model, params


def load_params(where: str, base_folder: str = "") -> tuple[Config, Params]:
    """Config and plain weights (numpy, on the host) of a run; those of a finetuning merged into its base.

    Args:
        where: a run folder, for its newest checkpoint, or ``RUN/STEP``.
        base_folder: where the base of a finetuning is now; empty for ``init_from``.

    Raises:
        UserError: no run or no checkpoint there, or the base is missing or another one.
    """
    config, trained, run = _load_saved(where)
    if base_folder:
        config = dataclasses.replace(config, init_from=base_folder)
    params = finetune.join(trained, base.frozen(_definition(config), config, run))
    return config, params if config.finetune is None else finetune.merged(params, config.finetune)


def load_trained(where: str) -> tuple[Config, Params]:
    """Config and those weights (numpy, on the host) that a run trained; ``where`` and errors as for load_params."""
    return _load_saved(where)[:2]


def _definition(config: Config) -> Definition:
    return Definition(config.model, Execution(config.param_dtype, "float32", "none"), config.finetune)


def _load_saved(where: str) -> tuple[Config, Params, Path]:
    """Config and weights of a checkpoint, and the run's folder."""
    path = Path(where)
    wanted: int | None = None
    if not (path / FOLDER).is_dir() and path.name.isdigit():
        wanted, path = int(path.name), path.parent
        path = path.parent if path.name == FOLDER else path
    folder = (path / FOLDER).absolute()
    if not folder.is_dir():
        raise UserError(f"{where}: no checkpoints there; expected the folder of a run, such as runs/NAME, or RUN/STEP.")
    absl_logging.set_verbosity(absl_logging.ERROR)
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(read_only=True)) as manager:
        step = manager.latest_step() if wanted is None else wanted
        if step is None or step not in manager.all_steps():
            saved_steps = ", ".join(map(str, manager.all_steps())) or "none yet"
            raise UserError(f"{folder}: step {step} is not there; saved steps: {saved_steps}.")
        saved = manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]
        config = configs.from_json(json.dumps(saved), f"{folder / str(step)}: config")
        abstract, _ = finetune.split(_definition(config).abstract(), config.finetune)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = _with_shardings(abstract, jax.tree.map(lambda _: here, abstract))
        restored = manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(target)))["params"]
    return config, jax.tree.map(np.asarray, restored), path


def _with_shardings(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), shapes, shardings
    )


def _check_unchanged(saved: dict[str, Any], config: Config, where: Path) -> None:
    before = configs.from_json(json.dumps(saved), f"{where}: config")
    for name in MUST_NOT_CHANGE:
        old, new = (operator.attrgetter(name)(each) for each in (before, config))
        if old != new:
            if dataclasses.is_dataclass(old) and type(old) is type(new):
                fields = [field.name for field in dataclasses.fields(old)]
                changed = next(field for field in fields if getattr(old, field) != getattr(new, field))
                name, old, new = f"{name}.{changed}", getattr(old, changed), getattr(new, changed)
            raise UserError(
                f"{where}: was saved with {name} = {old}, but the config now says {new}; change it back, or start "
                "another run with another --name."
            )


def _gather(streams: dict[str, Any]) -> dict[str, Any]:
    """Stream states of all hosts, on every host."""
    if jax.process_count() == 1:
        return streams
    from jax.experimental import multihost_utils

    mine = np.frombuffer(json.dumps(streams).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(mine.size))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: mine.size] = mine
    everyone = multihost_utils.process_allgather(padded)
    merged: dict[str, Any] = {}
    for row, size in zip(everyone, sizes, strict=True):
        merged |= json.loads(row[: int(size)].tobytes())
    return merged
