"""How many floating-point operations a train step takes, from the model's own shape.

A product of [m, k] and [k, n] is 2 m k n. Counted are matrix products; norms, rotations, softmax and the optimiser are
a percent or less. Two totals:

model FLOPs
    three times the forward pass, whatever is recomputed: the numerator of MFU (PaLM, arXiv 2204.02311, appendix B);
    twice for the products with a frozen weight, whose own gradient is not computed.
hardware FLOPs
    with what remat and attention compute again or beyond what is needed: what the chip has to do.

Model FLOPs count attention as causal, (T + 1) / 2 keys a query, with each row one segment; packing several into a row
makes it less. MaxText counts alike since its pull request 1988; before, and in many papers, the whole square is
counted. Hardware FLOPs count what dot attention computes, block by block. Of splash they leave out the upper halves of
its diagonal blocks, a quarter of its work on rows of 2,048 tokens: 1.7 % of a step of configs/stage1.py.
"""

import dataclasses

from midillm_jax.config import Config, ModelConfig
from midillm_jax.model.attention import query_blocks
from midillm_jax.model.head import SLOT_SPANS
from midillm_jax.model.lora import adapter_count

SPLASH_BACKWARD = 3.5
"""Products of the splash kernel's backward pass by those of its forward pass, which are two: one kernel computes
scores, dP, dV and dK, another one scores, dP and dQ."""


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one step over all chips: forward passes of the parts, and both totals."""

    layers: float
    """Projections and feed-forward layers, forward."""
    adapters: float
    """A finetuning's adapters, forward."""
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


def dot_flops(model: ModelConfig, length: int) -> float:
    """:func:`attention_flops` as dot attention computes them: a block of queries over all keys up to its end."""
    scores = sum((end - start) * end for start, end in query_blocks(length))
    return 2 * 2.0 * model.num_heads * model.head_dim * scores / length


def adapter_flops(config: Config) -> float:
    """Matrix products of one token through the adapters of one layer."""
    return 0.0 if config.finetune is None else 2.0 * adapter_count(config.model, config.finetune)


def head_rows(config: Config) -> tuple[float, float]:
    """Rows of the table that a text position and, in the mean, a music position are normalised over."""
    model = config.model
    if config.loss.kind == "full":
        return model.padded_vocab_size, model.padded_vocab_size
    slots = [sum(span.size for span in spans) for spans in SLOT_SPANS]
    return model.text_vocab_size, sum(slots) / len(slots)


def again_flops(config: Config, *, splash: bool) -> tuple[float, float]:
    """What the backward pass computes a second time: matrix products of one token and layer, and how much of attention.

    What each policy keeps is said in model/llama.py.
    """
    model = config.model
    once = layer_flops(model) + adapter_flops(config)
    projections = 2.0 * model.d_model * model.head_dim * (model.num_heads + 2 * model.num_kv_heads)
    kept = {"none": once, "dots": once, "qkv": projections, "attention": 0.0, "full": 0.0}[config.remat]
    # Where attended heads are kept, splash needs nothing more, dot attention its scores: one of its two products.
    named = 0.0 if splash else 0.5
    attended = {"none": 0.0, "dots": 1.0, "qkv": named, "attention": named, "full": 1.0}[config.remat]
    return once - kept, attended


def step_flops(config: Config, *, splash: bool = True) -> StepFlops:
    """FLOPs of a whole train step.

    Args:
        splash: whether attention is the kernel for TPUs, else dot attention (model/attention.py).
    """
    model, data = config.model, config.data
    tokens = (data.text_rows + data.music_rows) * data.row_length
    times = tokens * model.num_layers
    layers = times * layer_flops(model)
    causal = times * attention_flops(model, data.row_length)
    attended = causal if splash else times * dot_flops(model, data.row_length)
    text, music = head_rows(config)
    of_text, of_music = (
        2.0 * model.d_model * data.row_length * rows * among
        for rows, among in ((data.text_rows, text), (data.music_rows, music))
    )
    head = of_text + of_music
    needed, computed = _row_gradient_flops(config, of_text, of_music)
    adapters = times * adapter_flops(config)
    # Backward of a product is two products; the one that gives a frozen weight's gradient is left out.
    passes = 3 if config.finetune is None else 2
    layers_again, attention_again = again_flops(config, splash=splash)
    hardware = (
        passes * layers
        + 3 * adapters
        + times * layers_again
        + attended * (1 + (SPLASH_BACKWARD if splash else 2) + attention_again)
        # Logits are computed once, their gradient in the same pass (model/head.py).
        + 2 * head
        + computed
    )
    useful = passes * layers + 3 * (causal + adapters) + 2 * head + needed
    return StepFlops(layers, adapters, causal, head, useful, hardware)


def _row_gradient_flops(config: Config, of_text: float, of_music: float) -> tuple[float, float]:
    """Products that give the gradient of the head's rows: those needed, and those computed.

    Args:
        of_text, of_music: forward products of the head, of the text and of the music positions.
    """
    both, model = of_text + of_music, config.model
    if config.finetune is None:
        return both, both
    if not config.finetune.music_rows:
        return 0.0, 0.0
    if config.loss.kind == "slot":
        return of_music, of_music
    # One product gives the gradient of all rows of the softmax, of which the text rows' is thrown away.
    return both * (1 - model.text_vocab_size / model.padded_vocab_size), both
