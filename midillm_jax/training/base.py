"""The frozen base of a finetuning: read from ``init_from`` when the run begins, and again whenever it goes on.

Checkpoints of a finetuning hold what trains. So that what they are put beside is what they were trained beside,
``RUN/base.json`` keeps the path of the base and a SHA-256 of its frozen weights.
"""

import hashlib
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from midillm_jax.config import Config, FinetuneConfig, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.model import embedding, finetune, hf, hf_config, hf_names, hub
from midillm_jax.model.llama import Definition, Params

FILE = "base.json"


def begin(definition: Definition, changes: FinetuneConfig, config: Config) -> tuple[Params, Params]:
    """What a new finetuning trains, and the base that it freezes; NumPy arrays in the parameters' type.

    Adapters are drawn from the seed; music rows are the base's own, or, of a text model, new (``music_init``).

    Raises:
        UserError: ``init_from`` is no Hugging Face folder, or its weights do not fit the config.
    """
    source, base = _read(changes, config)
    base = grown(base, source, config)
    drawn = jax.jit(lambda key: finetune.split(definition.init(key), changes)[0])(jax.random.key(config.seed))
    tree = finetune.join(jax.device_get(drawn), finetune.from_base(base, config.model, changes))
    return finetune.split(checked(tree, definition.abstract(), source, config), changes)


def frozen(definition: Definition, config: Config, run: Path) -> Params:
    """The base again, for a run that goes on or is exported; NumPy arrays in the parameters' type.

    Without a ``finetune`` section nothing is frozen, and nothing is read.

    Raises:
        UserError: as for :func:`begin`, or it is not the base that the run began with.
    """
    changes = config.finetune
    if changes is None:
        return {}
    source, base = _read(changes, config)
    _, found = finetune.split(finetune.from_base(base, config.model, changes), changes)
    _, wanted = finetune.split(definition.abstract(), changes)
    found = checked(found, wanted, source, config)
    noted = hf_config.read_json(run / FILE, "the note that a finetuning makes of its base")
    if hf_config.required(noted, "sha256", str(run / FILE)) != _sha256(found):
        raise UserError(
            f"init_from {config.init_from}: holds other weights than the base that {run} began with, which was "
            f"{noted['init_from']}; name the folder that holds those."
        )
    return found


def note(config: Config, base: Params) -> None:
    """Writes RUN/base.json."""
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / FILE, json.dumps({"init_from": config.init_from, "sha256": _sha256(base)}, indent=1))


def place(frozen: Params, shardings: Params, config: Config) -> Params:
    """What a finetuning freezes, of which every process has the whole, in the compute dtype and along ``shardings``."""
    kind = jnp.dtype(config.compute_dtype)
    return jax.tree.map(lambda leaf, target: global_array(leaf.astype(kind), target), frozen, shardings)


def global_array(leaf: np.ndarray, target: jax.sharding.Sharding) -> jax.Array:
    """An array of which every process has the whole: each gives its own devices their parts."""
    return jax.make_array_from_callback(leaf.shape, target, lambda index: leaf[index])


def grown(params: Params, source: ModelConfig, config: Config) -> Params:
    """Weights of ``init_from``; those of a text model with the config's music rows, which are new (``music_init``)."""
    if source.music_vocab_size:
        return params
    return embedding.resize_embedding(params, source, config.model.music_vocab_size, config.music_init, config.seed)


def checked(params: Params, wanted: Params, source: ModelConfig, config: Config) -> Params:
    """Weights of ``init_from`` as NumPy arrays in the parameters' type, if they are those of the config's model.

    Args:
        wanted: the same tree, of anything that has a shape.
        source: the model that the weights are of.

    Raises:
        UserError: a weight is missing, unknown or of another shape, or was trained with other numbers than the
            config's.
    """
    _check_shapes(params, wanted, config.init_from)
    _check_numbers(source, config.model, config.init_from)
    kind = jnp.dtype(config.param_dtype)
    return jax.tree.map(lambda leaf: np.asarray(leaf, kind), params)


def _read(changes: FinetuneConfig, config: Config) -> tuple[ModelConfig, Params]:
    folder = hub.local_folder(config.init_from)
    if (folder / "checkpoints").is_dir() or not (folder / "config.json").is_file():
        raise UserError(
            f"init_from {folder}: is no Hugging Face folder; a finetuning reads its base whenever it goes on, and "
            "checkpoints are deleted when newer ones come, so export a run first (python -m midillm_jax.export)."
        )
    source, base = hf.read_hf(folder, vocab_multiple=config.model.vocab_multiple)
    if not source.music_vocab_size and not changes.music_rows:
        raise UserError(
            f"init_from {folder}: is a text model, whose music rows are new and have to train; set "
            "finetune.music_rows to True."
        )
    return source, base


def _sha256(base: Params) -> str:
    digest = hashlib.sha256()
    for path, leaf in sorted(hf_names.flat(base).items()):
        digest.update(f"{'.'.join(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return digest.hexdigest()


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
