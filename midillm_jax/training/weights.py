"""Weights that a run begins with, or that are exported: from the seed, a checkpoint or a Hugging Face folder."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from midillm_jax import config as configs
from midillm_jax.config import Config, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import embedding, hf
from midillm_jax.model.llama import Definition, Execution, Params
from midillm_jax.training.step import State, Training, init_state, state_shardings
from midillm_jax.training.stored import FOLDER, Damaged, read_arrays, read_documents, with_shardings


def fresh_state(training: Training) -> State:
    """The state of a run that has no checkpoint of its own: from ``init_from``, or from the seed."""
    config = training.config
    shardings = state_shardings(training)
    if not config.init_from:
        start = jax.jit(lambda key: init_state(training, training.definition.init(key)), out_shardings=shardings)
        return start(jax.random.key(config.seed))
    source, params = load_weights(config.init_from, config.model.vocab_multiple)
    if not source.music_vocab_size:
        music_rows = config.model.music_vocab_size
        params = embedding.resize_embedding(params, source, music_rows, config.music_init, config.seed)
    wanted = training.definition.abstract()
    _check_shapes(params, wanted, config.init_from)
    _check_numbers(source, config.model, config.init_from)
    params = jax.tree.map(lambda leaf, like: np.asarray(leaf, like.dtype), params, wanted)
    placed = jax.tree.map(_place, params, shardings["params"])
    return jax.jit(lambda params: init_state(training, params), out_shardings=shardings)(placed)


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


def load_params(where: str) -> tuple[Config, Params]:
    """Config and weights (numpy, on the host) of a run.

    Args:
        where: a run folder, for its newest checkpoint, or ``RUN/STEP``.

    Raises:
        UserError: no run or no checkpoint there.
    """
    path = Path(where)
    wanted: int | None = None
    if not (path / FOLDER).is_dir() and path.name.isdigit():
        wanted, path = int(path.name), path.parent
        path = path.parent if path.name == FOLDER else path
    folder = (path / FOLDER).absolute()
    if not folder.is_dir():
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
            abstract = Definition(config.model, Execution(config.param_dtype, "float32", "none")).abstract()
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            target = {"params": with_shardings(abstract, jax.tree.map(lambda _: here, abstract))}
            params = read_arrays(manager, step, target, documents["digests"])["params"]
        except Damaged as error:
            others = ", ".join(str(each) for each in steps if each != step) or "none"
            raise UserError(
                f"{folder / str(step)} {error}; name another step as {where}/STEP (there are {others})."
            ) from error
    return config, jax.tree.map(np.asarray, params)


def _check_shapes(params: Params, wanted: Params, where: str) -> None:
    def flat(tree: Params) -> dict[str, tuple[int, ...]]:
        paths = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in paths}

    found, expected = flat(params), flat(wanted)
    for name in expected.keys() | found.keys():
        if found.get(name) != expected.get(name):
            raise UserError(
                f"init_from {where}: {name} has shape {found.get(name)}, the config's model needs "
                f"{expected.get(name)}; make the model section of the config match the weights."
            )


def _check_numbers(found: ModelConfig, expected: ModelConfig, where: str) -> None:
    """Refuses weights that were trained with other numbers than the config's: shapes would not show it."""
    for name in ("rope_theta", "rope_scaling", "rms_norm_eps"):
        old, new = getattr(found, name), getattr(expected, name)
        # A folder converted from another format may say 9.99999974e-06, the float32 nearest to 1e-5.
        close = isinstance(old, float) and math.isclose(old, new, rel_tol=1e-6)
        if old != new and not close:
            raise UserError(
                f"init_from {where}: was trained with {name} = {old}, the config's model has {new}; make the model "
                "section of the config match the weights."
            )
