"""A model folder as transformers computes it, beside our own Llama: are they the same numbers?"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from midillm_jax.model import hf
from midillm_jax.model.llama import Definition, Execution, head_table

TOLERANCE = 1e-3
"""Largest difference of two logits, as a share of the largest logit, that float32 rounding may explain."""
_POSITIONS = 96


@dataclasses.dataclass(frozen=True)
class Compared:
    """What was found."""

    positions: int
    difference: float
    """Largest difference of two logits."""
    largest: float
    """Largest absolute logit of transformers'."""
    transformers: str
    """Its version and torch's."""


def compare(folder: Path) -> Compared:
    """Logits of both, in float32 on the CPU, over one sequence of random text ids and random music ids.

    Raises:
        UserError: the folder holds no model of ours.
        ModuleNotFoundError: torch or transformers is not installed.
    """
    import torch
    import transformers

    config, params = hf.read_hf(folder, dtype="float32", vocab_multiple=1)
    rng = np.random.default_rng(0)
    half = min(_POSITIONS, config.context_length) // 2
    ids = np.concatenate(
        (rng.integers(0, config.text_vocab_size, half), rng.integers(config.text_vocab_size, config.vocab_size, half))
    )[None]
    definition = Definition(config, Execution(param_dtype="float32", compute_dtype="float32", remat="none"))
    tokens = jnp.asarray(ids, jnp.int32)
    positions = jnp.arange(tokens.shape[1])[None, :]
    hidden = definition.forward(params, tokens, positions, jnp.ones_like(tokens))
    ours = np.asarray(hidden @ head_table(params).T)
    network = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(ids)).logits.numpy()
    versions = f"transformers {transformers.__version__} with torch {torch.__version__}"
    return Compared(2 * half, float(np.abs(ours - theirs).max()), float(np.abs(theirs).max()), versions)
