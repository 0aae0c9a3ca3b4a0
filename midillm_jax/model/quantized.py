"""Projections in 8 bits, in the layout of compressed-tensors, which vLLM runs on GPUs and CPUs.

Each row of a projection [outputs, inputs] is int8 with a scale of its own; vLLM rounds what comes in, token by token,
as it runs. Tables and norms stay as they are: compressed-tensors leaves embeddings alone, and a tied head is one.

File format: https://github.com/vllm-project/compressed-tensors
"""

from typing import Any

import numpy as np

from midillm_jax.model.hf_names import Weight

_EIGHT_BITS = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "group_size": None,
    "block_structure": None,
    "actorder": None,
}
CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "kv_cache_scheme": None,
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": _EIGHT_BITS | {"strategy": "channel", "dynamic": False, "observer": "minmax"},
            "input_activations": _EIGHT_BITS | {"strategy": "token", "dynamic": True, "observer": None},
            "output_activations": None,
        }
    },
}
"""quantization_config of config.json."""


def applies(weight: Weight) -> bool:
    """Whether a weight is a projection of a block."""
    return weight.stacked and len(weight.theirs) == 2


def int8(tensor: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows float32 [outputs, inputs] -> int8 of the same shape and scales float32 [outputs, 1]: row = int8 * scale."""
    largest = np.abs(tensor).max(1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(tensor / scale).astype(np.int8), scale
