"""Weights that a run begins with, or that are exported: from the seed, a checkpoint or a Hugging Face folder.

Checkpoints are read from buckets (gs://) as well: gcsfs reads their lists and documents, TensorStore the arrays.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from midillm_jax import config as configs
from midillm_jax.config import Config, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import finetune, hf, hub
from midillm_jax.model.llama import Definition, Execution, Params
from midillm_jax.training import base, guard, hosts
from midillm_jax.training.step import FROZEN, State, Training, init_state, state_shardings
from midillm_jax.training.stored import (
    BUCKET,
    FOLDER,
    Damaged,
    bucket_told,
    has_checkpoints,
    path_of,
    read_arrays,
    read_documents,
    with_shardings,
)


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
        return _state(training, shardings, trained, frozen)
    source, params = load_weights(config.init_from, config.model.vocab_multiple)
    params = base.checked(base.grown(params, source, config), training.definition.abstract(), source, config)
    return _state(training, shardings, params, {})


def _state(training: Training, shardings: State, trained: Params, frozen: Params) -> State:
    """The state before the first step, of weights that every process has the whole of."""
    placed = jax.tree.map(base.global_array, trained, shardings["params"])
    return {
        "params": placed,
        FROZEN: base.place(frozen, shardings[FROZEN], training.config),
        "optimizer": jax.jit(training.optimizer.init, out_shardings=shardings["optimizer"])(placed),
        "guard": jax.jit(guard.fresh, out_shardings=shardings["guard"])(),
    }


def load_weights(where: str, vocab_multiple: int) -> tuple[ModelConfig, Params]:
    """Weights of a run folder (newest checkpoint), of ``RUN/STEP``, or of a Hugging Face folder or its name on the Hub.

    A run may lie in a bucket. ``vocab_multiple`` is what a Hugging Face table is padded to; a run's own table comes as
    it was trained.
    """
    if not where.startswith(BUCKET):
        folder = hub.local_folder(where)
        if (folder / "config.json").is_file() and not (folder / FOLDER).is_dir():
            return hf.read_hf(folder, vocab_multiple=vocab_multiple)
    config, params = load_params(where)
    return config.model, params


def load_params(where: str, base_folder: str = "") -> tuple[Config, Params]:
    """Config and plain weights (numpy, on the host) of a run; those of a finetuning merged into its base.

    Args:
        where: a run folder, for its newest checkpoint, or ``RUN/STEP``; also in a bucket.
        base_folder: where the base of a finetuning is now; empty for ``init_from``.

    Raises:
        UserError: no run or no checkpoint there, the bucket cannot be read, or the base is missing or another one.
    """
    with bucket_told(where):
        config, trained, run = _load_saved(where)
        if base_folder:
            config = dataclasses.replace(config, init_from=base_folder)
        frozen = base.frozen(_definition(config), config, run)
    return config, finetune.merged(finetune.join(trained, frozen), config.finetune)


def origin(config: Config) -> str:
    """What the first of the runs that lead to this one began with; empty for fresh weights."""
    where = config.init_from
    while where:
        with bucket_told(where):
            run = path_of(where)
            if not (has_checkpoints(where) and (run / "config.json").is_file()):
                break
            where = configs.from_json((run / "config.json").read_text(), f"{where}/config.json").init_from
    return where


def saved_step(where: str) -> tuple[Path, int]:
    """Run folder and step of a checkpoint that :func:`load_params` reads."""
    with bucket_told(where):
        run, step = _named(where)
        if step is None:
            step = max(int(each.name) for each in (run / FOLDER).iterdir() if each.name.isdigit())
        return run, step


def _named(where: str) -> tuple[Path, int | None]:
    """Run folder, and the step where ``RUN/STEP`` names one."""
    path: Path = path_of(where)
    if has_checkpoints(where) or not path.name.isdigit():
        return path, None
    return path.parent.parent if path.parent.name == FOLDER else path.parent, int(path.name)


def load_trained(where: str) -> tuple[Config, Params]:
    """Config and those weights (numpy, on the host) that a run trained; ``where`` and errors as for load_params."""
    with bucket_told(where):
        return _load_saved(where)[:2]


def _definition(config: Config) -> Definition:
    return Definition(config.model, Execution(config.param_dtype, "float32", "none"), config.finetune)


def _load_saved(where: str) -> tuple[Config, Params, Path]:
    """Config and weights of a checkpoint, and the run's folder."""
    path, wanted = _named(where)
    # absolute() would take a bucket's name for a folder here.
    folder = path / FOLDER if where.startswith(BUCKET) else (path / FOLDER).absolute()
    if not has_checkpoints(str(path)):
        raise UserError(f"{where}: no checkpoints there; expected the folder of a run, such as runs/NAME, or RUN/STEP.")
    absl_logging.set_verbosity(absl_logging.FATAL)
    options = ocp.CheckpointManagerOptions(read_only=True, lightweight_initialize=True)
    with ocp.CheckpointManager(folder, options=options) as manager:
        steps = sorted(manager.all_steps())
        step = wanted if wanted is not None else steps[-1] if steps else None
        if step is None or step not in steps:
            saved_steps = ", ".join(map(str, steps)) or "none yet"
            raise UserError(f"{folder}: step {step} is not there; saved steps: {saved_steps}.")
        try:
            documents = read_documents(manager, step)
            config = configs.from_json(json.dumps(documents["config"]), f"{folder / str(step)}: config")
            abstract, _ = finetune.split(_definition(config).abstract(), config.finetune)
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            target = {"params": with_shardings(abstract, jax.tree.map(lambda _: here, abstract))}
            params = read_arrays(manager, step, target, documents["digests"])["params"]
        except Damaged as error:
            others = ", ".join(str(each) for each in steps if each != step) or "none"
            raise UserError(
                f"{folder / str(step)} {error}; name another step as {where}/STEP (there are {others})."
            ) from error
    return config, jax.tree.map(np.asarray, params), path
