"""Writing the model as a Hugging Face folder that transformers and vLLM load without code of ours.

File format: https://github.com/huggingface/safetensors#format
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

import midillm_jax
from midillm_jax.config import Config, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.model import hf, hf_config, hf_folder, hf_names, quantized
from midillm_jax.model.hf_names import Params, TreePath
from midillm_jax.text.tokenizer import HuggingFaceTokenizer, Tokenizer

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
"""What weights can be stored as."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """Sampling defaults that travel in generation_config.json: MIDI-LLM's, 682 notes at most."""

    temperature: float = 1.0
    top_p: float = 0.98
    max_new_tokens: int = 2046


DEFAULTS = Generation()


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
        dtype: of the stored weights; int8 is model/quantized.py's, the rest of such a model bfloat16.
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
        folder,
        config,
        tokenizer,
        dtype="bfloat16" if dtype == "int8" else dtype,
        more={"quantization_config": quantized.CONFIG} if dtype == "int8" else {},
        generation=generation,
        trained_with=trained_with,
        documents=documents,
    ) as partial:
        _write_weights(partial, _tensors(config, flat, dtype), shard_bytes)
    return Path(folder)


@contextlib.contextmanager
def write_folder(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    dtype: hf.Dtype,
    more: Mapping[str, Any],
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
        more: further fields of config.json.

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
        fields = hf_config.from_model_config(config, tokenizer.bos_id, tokenizer.eos_id, dtype)
        hf_folder.write_json(partial / "config.json", fields | dict(more))
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
        raise UserError(f"weights: missing: {hf.some(map('.'.join, missing))}; expected those of the model's config.")
    if unknown := set(flat) - set(expected):
        raise UserError(f"weights: unknown: {hf.some(map('.'.join, unknown))}; expected those of the model's config.")
    for path, shape in expected.items():
        if tuple(flat[path].shape) != shape:
            raise UserError(f"weights: {'.'.join(path)} has shape {tuple(flat[path].shape)}, expected {shape}.")
    return flat


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of the files, made when it is written."""

    name: str
    kind: str
    """As a safetensors header has it."""
    shape: tuple[int, ...]
    bytes: int
    make: Callable[[], np.ndarray[Any, Any]]


def _tensors(config: ModelConfig, flat: dict[TreePath, Any], dtype: Dtype) -> Iterator[_Tensor]:
    sizes = hf_names.sizes(config)
    short, kind = hf.DTYPES["bfloat16" if dtype == "int8" else dtype]

    @functools.lru_cache(maxsize=1)  # a projection's scales are written right behind it
    def rounded(name: str, weight: hf_names.Weight, layer: int | None) -> tuple[np.ndarray[Any, Any], ...]:
        return quantized.int8(convert(flat[weight.path], config, name, weight, layer, np.dtype(np.float32)))

    def part(index: int, name: str, weight: hf_names.Weight, layer: int | None) -> np.ndarray[Any, Any]:
        return rounded(name, weight, layer)[index]

    for name, weight, layer in hf_names.tensors(config):
        shape = weight.shape(sizes)
        if dtype != "int8" or not quantized.applies(weight):
            make = functools.partial(convert, flat[weight.path], config, name, weight, layer, kind)
            yield _Tensor(name, short, shape, math.prod(shape) * kind.itemsize, make)
            continue
        values, scales = (functools.partial(part, index, name, weight, layer) for index in (0, 1))
        yield _Tensor(name, "I8", shape, math.prod(shape), values)
        yield _Tensor(f"{name}_scale", "F32", (shape[0], 1), 4 * shape[0], scales)


def _write_weights(folder: Path, tensors: Iterable[_Tensor], shard_bytes: int | None) -> None:
    """One file of weights, or several and their index."""
    files: list[list[_Tensor]] = []
    total, room = 0, 0.0
    for tensor in tensors:
        if not files or room < tensor.bytes:
            files.append([])
            room = math.inf if shard_bytes is None else shard_bytes
        files[-1].append(tensor)
        total, room = total + tensor.bytes, room - tensor.bytes
    if len(files) == 1:
        _write_file(folder / hf.WEIGHTS_FILE, files[0])
        return
    names = [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    for name, held in zip(names, files, strict=True):
        _write_file(folder / name, held)
    placed = {tensor.name: name for name, held in zip(names, files, strict=True) for tensor in held}
    hf_folder.write_json(folder / hf.INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": placed})


def _write_file(path: Path, tensors: list[_Tensor]) -> None:
    """Writes the header, then each tensor as it is converted; the library's own writer wants all at once."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.bytes
        header[tensor.name] = {"dtype": tensor.kind, "shape": tensor.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors:
            file.write(tensor.make().view(np.uint8).data)


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
