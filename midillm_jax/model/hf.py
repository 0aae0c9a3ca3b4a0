"""Reading a Hugging Face folder: LlamaForCausalLM, one of ours or anybody's. model/hf_write.py writes one.

Weights stream one tensor at a time in either direction, so memory never holds more than the model and its
largest tensor. The table of names is in model/hf_names.py, the meaning of config.json in model/hf_config.py.

File format: https://github.com/huggingface/safetensors#format
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import hf_config, hf_folder, hf_names
from midillm_jax.model.hf_names import Params
from midillm_jax.model.llama import Definition, Execution

Dtype = Literal["float32", "bfloat16", "float16"]

DTYPES: dict[Dtype, tuple[str, np.dtype[Any]]] = {
    "float32": ("F32", np.dtype(np.float32)),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "float16": ("F16", np.dtype(np.float16)),
}
"""Our name of a dtype -> its name in a safetensors header, and numpy's."""

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def some(names: Iterable[str]) -> str:
    """A few of the names, for a message."""
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


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
        found = some(path.name for path in root.iterdir())
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
        raise UserError(f"{root}: {INDEX_FILE} names tensors that its shards do not hold: {some(indexed)}.")
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
        raise UserError(f"{root}: tensors missing: {some(missing)}; expected a whole {config.num_layers}-layer Llama.")
    if unknown := set(files) - allowed:
        raise UserError(f"{root}: unknown tensors: {some(unknown)}; expected those of LlamaForCausalLM without biases.")
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
