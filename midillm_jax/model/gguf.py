"""The model as a folder with a GGUF file, which llama.cpp and what is built on it load.

The folder holds what any export does but for the weights, so that ``generate`` finds the tokenizer and the sampling
defaults. The file stands alone, too: its vocabulary has the text tokenizer and a name for each music row.

File format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from midillm_jax.config import Config, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import attention, gguf_vocab, hf, hf_folder, hf_names, hf_write
from midillm_jax.model.hf_names import Params, TreePath
from midillm_jax.music.vocab import SEPARATOR
from midillm_jax.text.tokenizer import Tokenizer

Dtype = Literal["float32", "float16", "q8_0"]
"""Of the matrices; vectors are always float32. q8_0 has blocks of 32 int8 with a float16 scale each."""

_KINDS: dict[Dtype, str] = {"float32": "F32", "float16": "F16", "q8_0": "Q8_0"}
"""Our name of a dtype -> ggml's."""
_NAMES = {
    "model.embed_tokens": "token_embd",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.norm": "output_norm",
    "lm_head": "output",
}
"""Hugging Face's name of a weight, without its layer -> GGUF's."""


def write_gguf(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    *,
    dtype: Dtype = "float16",
    generation: hf_write.Generation = hf_write.DEFAULTS,
    trained_with: Config | None = None,
    documents: Mapping[str, str | bytes] = {},
) -> Path:
    """Writes a model folder with model.gguf; one tensor at a time is converted.

    Args:
        folder, config, params, tokenizer, generation, trained_with, documents: as for :func:`hf_write.write_hf`.
        dtype: of the matrices.

    Returns:
        the folder.

    Raises:
        UserError: as :func:`hf_write.write_hf`; or llama.cpp cannot have this tokenizer, or a width is not a multiple
            of q8_0's block.
        ModuleNotFoundError: the gguf package is not installed.
    """
    import gguf

    flat, vocabulary = hf_write.checked(config, params), gguf_vocab.vocabulary(tokenizer)
    kind = getattr(gguf.GGMLQuantizationType, _KINDS[dtype])
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    for name, width in {
        "d_model": config.d_model,
        "d_ff": config.d_ff,
        "heads": config.num_heads * config.head_dim,
    }.items():
        if width % block:
            raise UserError(f"{name} of this model is {width} wide, {dtype} needs a multiple of {block}; use float16")
    stored: hf.Dtype = "float32" if dtype == "float32" else "float16"
    with hf_write.write_folder(
        folder,
        config,
        tokenizer,
        dtype=stored,
        more={},
        generation=generation,
        trained_with=trained_with,
        documents=documents,
    ) as partial:
        writer = gguf.GGUFWriter(partial / hf_folder.GGUF_FILE, "llama")
        _describe(writer, gguf, config, tokenizer, vocabulary, dtype)
        factors = _rope_factors(config)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        for name, weight, layer in hf_names.tensors(config):
            shape = weight.shape(hf_names.sizes(config))
            size = int(np.prod(shape))
            matrix = len(shape) > 1
            writer.add_tensor_info(
                _name(name, layer),
                shape,
                np.dtype(np.float32),
                size // block * block_bytes if matrix else 4 * size,
                raw_dtype=kind if matrix else None,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name, weight, layer in hf_names.tensors(config):
            writer.write_tensor_data(_tensor(flat, config, name, weight, layer, gguf, kind))
        writer.close()
    return Path(folder)


def _describe(
    writer: Any, gguf: Any, config: ModelConfig, tokenizer: Tokenizer, vocabulary: gguf_vocab.Vocabulary, dtype: Dtype
) -> None:
    """The fields before the tensors."""
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    share = "ALL" if dtype == "float32" else "MOSTLY"
    writer.add_file_type(gguf.LlamaFileType[f"{share}_{_KINDS[dtype]}"])
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.token_type)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.add_space_prefix)
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(True)
    # Music ends here; llama.cpp stops at an "end of turn" as at the end of a text.
    writer.add_eot_token_id(config.text_vocab_size + SEPARATOR)


def _name(name: str, layer: int | None) -> str:
    """GGUF's name of one of Hugging Face's tensors."""
    if layer is None:
        return _NAMES[name.removesuffix(".weight")] + ".weight"
    own = name.removeprefix(f"model.layers.{layer}.").removesuffix(".weight")
    return f"blk.{layer}.{_NAMES[own]}.weight"


def _tensor(
    flat: dict[TreePath, Any],
    config: ModelConfig,
    name: str,
    weight: hf_names.Weight,
    layer: int | None,
    gguf: Any,
    kind: Any,
) -> np.ndarray[Any, Any]:
    matrix = len(weight.theirs) > 1
    stored = np.float16 if matrix and kind == gguf.GGMLQuantizationType.F16 else np.float32
    tensor = hf_write.convert(flat[weight.path], config, name, weight, layer, np.dtype(stored))
    if weight.path[-1] in ("query", "key"):
        # llama.cpp rotates neighbours; Hugging Face, and we, the two halves of a head.
        heads = tensor.reshape(-1, 2, config.head_dim // 2, config.d_model)
        tensor = np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(tensor.shape)
    return gguf.quants.quantize(tensor, kind) if matrix else tensor


def _rope_factors(config: ModelConfig) -> np.ndarray[Any, Any] | None:
    """What llama.cpp divides each rotary frequency by: float32 [H/2]; None where they are as they are."""
    if config.rope_scaling is None:
        return None
    plain = attention.frequencies(config.head_dim, config.rope_theta, None)
    scaled = attention.frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    return (plain / scaled).astype(np.float32)
