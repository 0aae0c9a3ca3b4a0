"""How many floating-point operations a train step takes, from the model's own shape.

A product of [m, k] and [k, n] is 2 m k n. Counted are matrix products; norms, rotations, softmax and the optimiser are
a percent or less. Two totals:

model FLOPs
    three times the forward pass, whatever is recomputed: the numerator of MFU (PaLM, arXiv 2204.02311, appendix B).
hardware FLOPs
    with what remat and the attention kernel's backward pass compute again: what the chip has to do.

Attention is counted as causal, (T + 1) / 2 keys a query, with each row one segment; packing several into a row makes it
less. MaxText counts alike since its pull request 1988; before, and in many papers, the whole square is counted.
"""

import dataclasses

from midillm_jax.config import Config, ModelConfig
from midillm_jax.model.head import SLOT_SPANS

SPLASH_BACKWARD = 3.5
"""Products of the splash kernel's backward pass by those of its forward pass, which are two: one kernel computes
scores, dP, dV and dK, another one scores, dP and dQ."""


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


def again_flops(config: Config, *, splash: bool) -> tuple[float, float]:
    """Matrix products, and attention, of one token and layer that the backward pass computes a second time.

    What each policy keeps is said in model/llama.py.
    """
    model = config.model
    once, attention = layer_flops(model), attention_flops(model, config.data.row_length)
    projections = 2.0 * model.d_model * model.head_dim * (model.num_heads + 2 * model.num_kv_heads)
    kept = {"none": once, "dots": once, "qkv": projections, "attention": 0.0, "full": 0.0}[config.remat]
    attended = {"none": True, "dots": False, "qkv": splash, "attention": splash, "full": False}[config.remat]
    return once - kept, 0.0 if attended else attention


def step_flops(config: Config, *, splash: bool = True) -> StepFlops:
    """FLOPs of a whole train step.

    Args:
        splash: whether attention is the kernel for TPUs, which keeps no scores.
    """
    model, data = config.model, config.data
    tokens = (data.text_rows + data.music_rows) * data.row_length
    times = tokens * model.num_layers
    layers = times * layer_flops(model)
    attention = times * attention_flops(model, data.row_length)
    text, music = head_rows(config)
    head = 2.0 * model.d_model * data.row_length * (data.text_rows * text + data.music_rows * music)
    layers_again, attention_again = (times * each for each in again_flops(config, splash=splash))
    hardware = (
        3 * layers
        + layers_again
        + attention * (1 + (SPLASH_BACKWARD if splash else 2))
        + attention_again
        # Logits are computed once, their gradient in the same pass (model/head.py).
        + 3 * head
    )
    return StepFlops(layers, attention, head, 3 * (layers + attention + head), hardware)
