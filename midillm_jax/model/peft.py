"""The adapters of a finetuning as the PEFT library keeps them: adapter_config.json and adapter_model.safetensors.

A projection with weight W [outputs, inputs] becomes W + (lora_alpha / r) B A, where A is ``lora_A.weight`` [r, inputs]
and B ``lora_B.weight`` [outputs, r].

File format: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import midillm_jax
from midillm_jax.config import Config
from midillm_jax.errors import UserError
from midillm_jax.model import hf, hf_config, hf_folder, hf_names
from midillm_jax.model.finetune import adapter_path
from midillm_jax.model.llama import Params

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def write_peft(folder: str | os.PathLike[str], trained: Params, run: Config, *, dtype: hf.Dtype = "float32") -> Path:
    """Writes an adapter that ``peft.PeftModel.from_pretrained(base, folder)`` loads over the run's base.

    The folder is written beside and renamed, as :func:`hf_write.write_hf` does.

    Args:
        folder: to be made.
        trained: what the run trained, a tree as in model/finetune.py.
        run: its config; ``init_from`` names the base.
        dtype: of the stored weights.

    Returns:
        the folder.

    Raises:
        UserError: the run trained something that is no adapter, a number is not finite, or the folder holds something
            else.
    """
    finetune = run.finetune
    if finetune is None or finetune.music_rows:
        what = "every weight" if finetune is None else "the music rows of its tables"
        raise UserError(
            f"{run.name}: this run trained {what}, which an adapter does not hold; export the whole model (without "
            "--format peft), or train with finetune.music_rows = False."
        )
    hf_folder.check_replaceable(Path(folder))
    tensors = _tensors(trained, dtype)
    with hf_folder.beside(Path(folder)) as partial:
        hf_folder.write_json(
            partial / CONFIG_FILE,
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": run.init_from,
                "bias": "none",
                "fan_in_fan_out": False,
                "inference_mode": True,
                "lora_alpha": finetune.lora_alpha,
                "lora_dropout": 0.0,
                "r": finetune.lora_rank,
                "target_modules": sorted({name.split(".")[-3] for name in tensors}),
            },
        )
        hf_folder.write_json(
            partial / hf_config.OWN_FILE,
            {"written_by": f"midillm_jax {midillm_jax.__version__}", "trained_with": dataclasses.asdict(run)},
        )
        safetensors.numpy.save_file(tensors, partial / WEIGHTS_FILE, metadata={"format": "pt"})
    return Path(folder)


def _tensors(trained: Params, dtype: hf.Dtype) -> dict[str, np.ndarray[Any, Any]]:
    """PEFT's name -> tensor, for every layer."""
    flat, kind = hf_names.flat(trained), hf.DTYPES[dtype][1]
    tensors = {}
    for weight in hf_names.WEIGHTS:
        adapter = adapter_path(weight.path)
        if (*adapter, "a") not in flat:
            continue
        rank = flat[(*adapter, "a")].shape[-1]
        for layer, (a, b) in enumerate(zip(flat[(*adapter, "a")], flat[(*adapter, "b")], strict=True)):
            # Our axes flatten in the order of theirs (model/hf_names.py).
            name = "base_model.model." + weight.name.format(layer=layer).removesuffix("weight")
            tensors[f"{name}lora_A.weight"] = np.asarray(a).reshape(-1, rank).T
            tensors[f"{name}lora_B.weight"] = np.asarray(b).reshape(rank, -1).T
    with np.errstate(over="ignore"):  # reported below, with the tensor's name
        tensors = {name: np.ascontiguousarray(tensor.astype(kind, copy=False)) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise UserError(f"{name}: holds values that are not finite as {dtype}; nothing was written.")
    return tensors
