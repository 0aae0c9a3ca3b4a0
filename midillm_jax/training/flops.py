"""How many floating-point operations a train step takes, from the model's own shape.

A product of [m, k] and [k, n] is 2 m k n. Counted are matrix products; norms, rotations, softmax and the optimiser are
a percent or less. Two totals:

model FLOPs
    three times the forward pass, whatever is recomputed: the numerator of MFU (PaLM, arXiv 2204.02311, appendix B).
hardware FLOPs
    with what remat, the loss and the attention kernel's backward pass compute again: what the chip has to do.

Attention is counted as causal, (T + 1) / 2 keys a query, with each row one segment; packing several into a row makes it
less. MaxText counts alike since its pull request 1988; before, and in many papers, the whole square is counted.
"""

import dataclasses

from midillm_jax.config import Config, ModelConfig
from midillm_jax.model.head import SLOT_SPANS

FLASH_BACKWARD = 2.5
"""Products of a flash attention's backward pass (scores again, then dV, dP, dQ, dK) by those of its forward pass."""


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one step over all chips: forward passes of the parts, and both totals."""

    layers: float
    """Projections and feed-forward layers, forward."""
    attention: float
    """Scores and weighted values, forward."""
    head: float
    """Logits that the loss needs, forward."""
    model: float
    hardware: float


def layer_flops(model: ModelConfig) -> float:
    """Matrix products of one token through one layer, attention's own left out."""
    attention = model.d_model * model.head_dim * 2 * (model.num_heads + model.num_kv_heads)
    return 2.0 * (attention + 3 * model.d_model * model.d_ff)


def attention_flops(model: ModelConfig, length: int) -> float:
    """Scores and weighted values of one token in one layer, mean over a causal row of ``length``."""
    return 2 * 2.0 * model.num_heads * model.head_dim * (length + 1) / 2


def head_rows(config: Config) -> tuple[float, float]:
    """Rows of the table that a text position and, in the mean, a music position are normalised over."""
    model = config.model
    if config.loss.kind == "full":
        return model.padded_vocab_size, model.padded_vocab_size
    slots = [sum(span.size for span in spans) for spans in SLOT_SPANS]
    return model.text_vocab_size, sum(slots) / len(slots)


def step_flops(config: Config, *, flash: bool = True) -> StepFlops:
    """FLOPs of a whole train step.

    Args:
        flash: whether attention is a kernel that keeps no scores, as on TPU.
    """
    model, data = config.model, config.data
    tokens = (data.text_rows + data.music_rows) * data.row_length
    layers = tokens * model.num_layers * layer_flops(model)
    attention = tokens * model.num_layers * attention_flops(model, data.row_length)
    text, music = head_rows(config)
    head = 2.0 * model.d_model * data.row_length * (data.text_rows * text + data.music_rows * music)
    again = {"none": 0, "dots": 0, "full": 1}[config.remat]
    attention_again = 0 if config.remat == "none" else 1
    hardware = (
        layers * (3 + again)
        + attention * (1 + attention_again + (FLASH_BACKWARD if flash else 2))
        # Each chunk's logits are computed again in the backward pass (model/head.py).
        + head * 4
    )
    return StepFlops(layers, attention, head, 3 * (layers + attention + head), hardware)
