"""The model as a Hugging Face folder: LlamaForCausalLM that transformers and vLLM load without code of ours.

Weights stream one tensor at a time in either direction, so memory never holds more than the model and its
largest tensor. The table of names is in model/hf_names.py, the meaning of config.json in model/hf_config.py.

File format: https://github.com/huggingface/safetensors#format
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors

import midillm_jax
from midillm_jax.config import Config, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.model import hf_config, hf_folder, hf_names
from midillm_jax.model.hf_names import Params, TreePath
from midillm_jax.model.llama import Definition, Execution
from midillm_jax.text.tokenizer import HuggingFaceTokenizer, Tokenizer

Dtype = Literal["float32", "bfloat16", "float16"]

DTYPES: dict[Dtype, tuple[str, np.dtype[Any]]] = {
    "float32": ("F32", np.dtype(np.float32)),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "float16": ("F16", np.dtype(np.float16)),
}
"""Our name of a dtype -> its name in a safetensors header, and numpy's."""

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class Generation:
    """Sampling defaults that travel in generation_config.json: MIDI-LLM's, 682 notes at most."""

    temperature: float = 1.0
    top_p: float = 0.98
    max_new_tokens: int = 2046


DEFAULTS = Generation()


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# Reading


def load_music_model(folder: str | os.PathLike[str]) -> tuple[Definition, Params]:
    """:func:`load_model` of a model that knows music.

    Raises:
        UserError: as there, or it is one of text alone.
    """
    definition, params = load_model(folder)
    if not definition.config.music_vocab_size:
        raise UserError(f"{folder}: this is a text model without music rows; train it with --init-from {folder} first")
    return definition, params


def load_model(folder: str | os.PathLike[str]) -> tuple[Definition, Params]:
    """A model ready to run: its weights as JAX arrays.

    It computes in the type that its weights are stored in, float16 in float32.

    Raises:
        UserError: the folder is missing or holds no model.
    """
    config, params = read_hf(folder)
    stored = str(params["final_norm"].dtype)
    kind: Literal["float32", "bfloat16"] = "bfloat16" if stored == "bfloat16" else "float32"
    definition = Definition(config, Execution(param_dtype=kind, compute_dtype=kind, remat="none"))
    return definition, jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), params)


def read_hf(
    folder: str | os.PathLike[str],
    *,
    dtype: Dtype | None = None,
    text_vocab_size: int | None = None,
    vocab_multiple: int = ModelConfig.vocab_multiple,
) -> tuple[ModelConfig, Params]:
    """Reads a Llama checkpoint: a text model, MIDI-LLM's, or one of ours.

    Args:
        folder: holds config.json and model.safetensors or its shards; a tokenizer beside them tells text rows
            from music rows where midillm.json does not.
        dtype: of the weights returned; None for the one they are stored in (float32 if they differ).
        text_vocab_size: rows of the text vocabulary, for a folder that cannot say.
        vocab_multiple: the table is padded with rows of zeros to a multiple of this.

    Returns:
        the model's shape (``music_vocab_size`` is 0 for a text model, ``tie_embeddings`` says what the tensors
        are, not only what config.json claims) and its weights as numpy arrays in the tree of model/llama.py.

    Raises:
        UserError: a file, field or tensor is missing, unknown, there twice or of another shape; named.
    """
    root = Path(folder)
    fields = hf_config.read_json(root / "config.json", "a Hugging Face model folder")
    text_rows, music_rows = _vocabularies(root, fields, text_vocab_size)
    config = hf_config.to_model_config(fields, str(root / "config.json"), text_rows, music_rows, vocab_multiple)
    with contextlib.ExitStack() as stack:
        files = _open(root, stack)
        if (
            config.tie_embeddings
            and hf_names.HEAD in files
            and not _equal(files[hf_names.HEAD], hf_names.HEAD, files, "model.embed_tokens.weight")
        ):
            config = dataclasses.replace(config, tie_embeddings=False)
        return config, _load(root, files, config, dtype)


def _vocabularies(root: Path, fields: dict[str, Any], text_vocab_size: int | None) -> tuple[int, int]:
    """Text rows and music rows of the table."""
    rows = int(hf_config.required(fields, "vocab_size", str(root / "config.json")))
    music = ModelConfig.music_vocab_size
    if text_vocab_size is None:
        text_vocab_size = hf_config.own_text_vocab_size(root)
    if text_vocab_size is None:
        text_vocab_size = hf_config.tokenizer_size(root)
    if text_vocab_size is None:
        raise UserError(
            f"{root}: neither midillm.json nor a tokenizer is there to say which of the {rows} rows are text; "
            "put the tokenizer that belongs to the model beside it."
        )
    if rows - text_vocab_size not in (0, music):
        raise UserError(
            f"{root}: config.json has vocab_size {rows}, expected the {text_vocab_size} ids of the text tokenizer, "
            f"or {text_vocab_size + music} with the music rows; check that the tokenizer belongs to the model."
        )
    return text_vocab_size, rows - text_vocab_size


def _open(root: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Tensor name -> the open safetensors file that holds it."""
    if (root / WEIGHTS_FILE).is_file():
        paths, indexed = [root / WEIGHTS_FILE], None
    elif (root / INDEX_FILE).is_file():
        index = hf_config.read_json(root / INDEX_FILE, "the index of a sharded checkpoint")
        indexed = dict(hf_config.required(index, "weight_map", str(root / INDEX_FILE)))
        paths = [root / name for name in sorted(set(indexed.values()))]
    elif (root / hf_folder.GGUF_FILE).is_file():
        raise UserError(
            f"{root}: holds weights for llama.cpp alone ({hf_folder.GGUF_FILE}); use --backend llamacpp, or export "
            "the checkpoint again without --format gguf."
        )
    else:
        found = _some(path.name for path in root.iterdir())
        raise UserError(
            f"{root}: neither {WEIGHTS_FILE} nor {INDEX_FILE} is there (found: {found}); pickled weights are not "
            "read: save the model with transformers' save_pretrained first."
        )
    files: dict[str, Any] = {}
    for path in paths:
        try:
            file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
        except FileNotFoundError:
            raise UserError(f"{path}: this shard is named in {INDEX_FILE} but is not there; fetch it again.") from None
        except safetensors.SafetensorError as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or export it again.") from None
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if name in files:
                raise UserError(f"{path}: tensor {name} is in another shard of the folder too; expected it once.")
            if indexed is not None and indexed.pop(name, path.name) != path.name:
                raise UserError(f"{path}: holds tensor {name}, which {INDEX_FILE} says is in another shard.")
            files[name] = file
    if indexed:
        raise UserError(f"{root}: {INDEX_FILE} names tensors that its shards do not hold: {_some(indexed)}.")
    return files


def _equal(file: Any, name: str, files: dict[str, Any], other: str, rows: int = 4096) -> bool:
    """Whether two tensors of a checkpoint hold the same, read a few rows at a time."""
    if other not in files:
        return False
    ours, theirs = file.get_slice(name), files[other].get_slice(other)
    if ours.get_shape() != theirs.get_shape() or ours.get_dtype() != theirs.get_dtype():
        return False
    total = ours.get_shape()[0]
    parts = [slice(start, min(start + rows, total)) for start in range(0, total, rows)]
    return all(np.array_equal(ours[part], theirs[part]) for part in parts)


def _load(root: Path, files: dict[str, Any], config: ModelConfig, dtype: Dtype | None) -> Params:
    expected = {name: weight for name, weight, _ in hf_names.tensors(config)}
    allowed = set(expected) | ({hf_names.HEAD} if config.tie_embeddings else set())
    if missing := set(expected) - set(files):
        raise UserError(f"{root}: tensors missing: {_some(missing)}; expected a whole {config.num_layers}-layer Llama.")
    if unknown := set(files) - allowed:
        raise UserError(
            f"{root}: unknown tensors: {_some(unknown)}; expected those of LlamaForCausalLM without biases."
        )
    sizes = hf_names.sizes(config)
    stored = set()
    for name, weight in expected.items():
        view = files[name].get_slice(name)
        if tuple(view.get_shape()) != weight.shape(sizes):
            raise UserError(
                f"{root}: tensor {name} has shape {tuple(view.get_shape())}, "
                f"expected {weight.shape(sizes)} from config.json."
            )
        stored.add(view.get_dtype())
        if view.get_dtype() not in {short for short, _ in DTYPES.values()}:
            raise UserError(f"{root}: tensor {name} is stored as {view.get_dtype()}; expected F32, BF16 or F16.")
    # float32 is the first of the table, so it is what a mixture becomes.
    own = (ours for ours, (short, _) in DTYPES.items() if stored == {short} or len(stored) > 1)
    kept: Dtype = next(own) if dtype is None else dtype
    flat = {path: np.zeros(shape, DTYPES[kept][1]) for path, shape in hf_names.our_shapes(config).items()}
    for name, weight, layer in hf_names.tensors(config):
        target = flat[weight.path]
        # A table's target has padding rows at its end, which stay zero.
        target = target[: config.vocab_size] if layer is None else target[layer]
        target[...] = weight.to_ours(files[name].get_tensor(name), sizes)
    return hf_names.nested(flat)


# Writing


def write_hf(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    *,
    dtype: Dtype = "float32",
    shard_bytes: int | None = None,
    generation: Generation = DEFAULTS,
    trained_with: Config | None = None,
    documents: Mapping[str, str | bytes] = {},
) -> Path:
    """Writes a model folder: weights as safetensors, and the files of :func:`write_folder`.

    Args:
        folder: to be made.
        config: the model's shape.
        params: its weights in the tree of model/llama.py, in any floating dtype.
        tokenizer: the text tokenizer the model was trained with; its files go along.
        dtype: of the stored weights.
        shard_bytes: weights beyond so many go into several files with an index; None for one file. A tensor is never
            cut, so a file may be as large as the largest.
        generation: sampling defaults.
        trained_with: the resolved config of the run, kept in midillm.json.
        documents: further files by name, such as README.md and a licence.

    Returns:
        the folder.

    Raises:
        UserError: as :func:`write_folder`, or a weight is missing, unknown, misshapen or not finite.
    """
    flat = checked(config, params)
    with write_folder(
        folder, config, tokenizer, dtype=dtype, generation=generation, trained_with=trained_with, documents=documents
    ) as partial:
        _write_weights(partial, config, flat, dtype, shard_bytes)
    return Path(folder)


@contextlib.contextmanager
def write_folder(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    dtype: Dtype,
    generation: Generation,
    trained_with: Config | None,
    documents: Mapping[str, str | bytes],
) -> Iterator[Path]:
    """A model folder to put weights into: config.json, generation_config.json, tokenizer files, midillm.json.

    Padding rows of the table are not for it. The folder is written beside and renamed; an export that was there
    (it has a midillm.json) is replaced, anything else is left alone: a run, a downloaded model, files of one's own.

    Args:
        folder, config, tokenizer, generation, trained_with, documents: as for :func:`write_hf`.
        dtype: that config.json names.

    Yields:
        the folder while it stands beside.

    Raises:
        UserError: the tokenizer has another size, or the folder holds something else.
    """
    target = Path(folder)
    if tokenizer.vocab_size != config.text_vocab_size:
        raise UserError(
            f"{tokenizer.files[0]}: this tokenizer has {tokenizer.vocab_size} ids, the model's text vocabulary "
            f"{config.text_vocab_size} rows; expected the tokenizer that the model was trained with."
        )
    hf_folder.check_replaceable(target)
    with hf_folder.beside(target) as partial:
        hf_folder.write_json(
            partial / "config.json", hf_config.from_model_config(config, tokenizer.bos_id, tokenizer.eos_id, dtype)
        )
        hf_folder.write_json(
            partial / "generation_config.json",
            hf_config.generation_config(config, tokenizer.bos_id, tokenizer.eos_id, **dataclasses.asdict(generation)),
        )
        hf_folder.write_json(
            partial / hf_config.OWN_FILE,
            {
                "written_by": f"midillm_jax {midillm_jax.__version__}",
                "text_vocab_size": config.text_vocab_size,
                "trained_with": None if trained_with is None else dataclasses.asdict(trained_with),
            },
        )
        for file in tokenizer.files:
            # Whatever the tokenizer's own file was called at home, this is the name that readers look for.
            own = "tokenizer.json" if isinstance(tokenizer, HuggingFaceTokenizer) else "tokenizer.model"
            shutil.copyfile(file, partial / (own if file == tokenizer.files[0] else file.name))
        for name, content in documents.items():
            write_whole(partial / name, content)
        yield partial


def checked(config: ModelConfig, params: Params) -> dict[TreePath, Any]:
    """The weights by their paths.

    Raises:
        UserError: one is missing, unknown or misshapen.
    """
    flat, expected = hf_names.flat(params), hf_names.our_shapes(config)
    if missing := set(expected) - set(flat):
        raise UserError(f"weights: missing: {_some(map('.'.join, missing))}; expected those of the model's config.")
    if unknown := set(flat) - set(expected):
        raise UserError(f"weights: unknown: {_some(map('.'.join, unknown))}; expected those of the model's config.")
    for path, shape in expected.items():
        if tuple(flat[path].shape) != shape:
            raise UserError(f"weights: {'.'.join(path)} has shape {tuple(flat[path].shape)}, expected {shape}.")
    return flat


_Tensors = list[tuple[str, hf_names.Weight, int | None]]


def _write_weights(
    folder: Path, config: ModelConfig, flat: dict[TreePath, Any], dtype: Dtype, shard_bytes: int | None
) -> None:
    """One file of weights, or several and their index."""
    sizes, itemsize = hf_names.sizes(config), DTYPES[dtype][1].itemsize
    files: list[_Tensors] = []
    total, room = 0, 0.0
    for name, weight, layer in hf_names.tensors(config):
        length = math.prod(weight.shape(sizes)) * itemsize
        if not files or room < length:
            files.append([])
            room = math.inf if shard_bytes is None else shard_bytes
        files[-1].append((name, weight, layer))
        total, room = total + length, room - length
    if len(files) == 1:
        _write_file(folder / WEIGHTS_FILE, config, flat, dtype, files[0])
        return
    names = [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    for name, tensors in zip(names, files, strict=True):
        _write_file(folder / name, config, flat, dtype, tensors)
    placed = {tensor: name for name, tensors in zip(names, files, strict=True) for tensor, _, _ in tensors}
    hf_folder.write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": placed})


def _write_file(path: Path, config: ModelConfig, flat: dict[TreePath, Any], dtype: Dtype, tensors: _Tensors) -> None:
    """Writes the header, then each tensor as it is converted; the library's own writer wants all at once."""
    short, kind = DTYPES[dtype]
    sizes = hf_names.sizes(config)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight, _ in tensors:
        start, end = end, end + math.prod(weight.shape(sizes)) * kind.itemsize
        header[name] = {"dtype": short, "shape": weight.shape(sizes), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, weight, layer in tensors:
            tensor = convert(flat[weight.path], config, name, weight, layer, kind)
            file.write(tensor.view(np.uint8).data)


def convert(
    leaf: Any, config: ModelConfig, name: str, weight: hf_names.Weight, layer: int | None, kind: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    """One tensor as Hugging Face has it, without padding rows.

    Raises:
        UserError: it holds values that are not finite, if only because ``kind`` has no room for them.
    """
    array = np.asarray(leaf)[: config.vocab_size] if layer is None else np.asarray(leaf[layer])
    with np.errstate(over="ignore"):  # reported below, with the tensor's name
        tensor = np.ascontiguousarray(weight.to_theirs(array, hf_names.sizes(config)).astype(kind, copy=False))
    if not np.isfinite(tensor).all():
        raise UserError(f"{name}: holds values that are not finite as {kind.name}; nothing was written.")
    return tensor
