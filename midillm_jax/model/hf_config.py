"""config.json and its neighbours: the numbers of a Hugging Face Llama folder, both ways.

Rotary frequencies are written in both forms in use: ``rope_theta`` with ``rope_scaling`` (transformers 4) and
``rope_parameters`` (transformers 5). Either is read; where both are there they have to agree.
"""

import json
from pathlib import Path
from typing import Any

from midillm_jax.config import ModelConfig, RopeScaling
from midillm_jax.errors import UserError
from midillm_jax.music import vocab
from midillm_jax.text.tokenizer import load_tokenizer

OWN_FILE = "midillm.json"
"""What Hugging Face's files have no place for: text_vocab_size, and the config of the run."""

_FORMAT_DEFAULTS: dict[str, Any] = {
    "attention_bias": False,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "mlp_bias": False,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
"""What a field means where config.json leaves it out: the defaults of transformers' LlamaConfig."""


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: it is missing or not a JSON object; ``what`` says what was looked for.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {what}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); expected {what}.") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path}: holds a {type(fields).__name__}; expected {what}.")
    return fields


def required(fields: dict[str, Any], name: str, where: str) -> Any:
    """A field that must be there."""
    if fields.get(name) is None:
        raise UserError(f"{where}: field {name!r} is missing.")
    return fields[name]


def own_text_vocab_size(root: Path) -> int | None:
    """What midillm.json says, where there is one."""
    path = root / OWN_FILE
    return (
        int(required(read_json(path, "what an export keeps"), "text_vocab_size", str(path))) if path.is_file() else None
    )


def sequence_length(context_length: int, row_length: int | None) -> int:
    """Longest sequence that a model is asked for, prompt included: none that it was never trained on.

    Args:
        context_length: what its positions were made for.
        row_length: tokens of the rows it was trained on, None where nobody knows.
    """
    return context_length if row_length is None else min(context_length, row_length)


def row_length(root: Path) -> int:
    """:func:`sequence_length` of the model in a folder: of its training where midillm.json tells, else its context.

    Raises:
        UserError: config.json or midillm.json is missing, broken or lacks a field.
    """
    where = root / "config.json"
    fields = read_json(where, "a Hugging Face model folder")
    context = int(required(fields, "max_position_embeddings", str(where)))
    own = root / OWN_FILE
    run = read_json(own, "what an export keeps").get("trained_with") if own.is_file() else None
    if run is None:
        return context
    data = required(run, "data", f"{own}: trained_with")
    return sequence_length(context, int(required(data, "row_length", f"{own}: trained_with.data")))


def tokenizer_size(root: Path) -> int | None:
    """Ids of the tokenizer in a model folder, where there is one."""
    here = any((root / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    return load_tokenizer(root).vocab_size if here else None


def to_model_config(
    fields: dict[str, Any], where: str, text_vocab_size: int, music_vocab_size: int, vocab_multiple: int
) -> ModelConfig:
    """The shape that a config.json describes.

    Raises:
        UserError: it is not a plain Llama, or a field is missing; named.
    """
    given = _FORMAT_DEFAULTS | {name: value for name, value in fields.items() if value is not None}
    for name, expected in (
        ("model_type", "llama"),
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
    ):
        if required(given, name, where) != expected:
            raise UserError(
                f"{where}: {name} is {given[name]!r}, expected {expected!r}; only plain Llama models are read."
            )
    if "quantization_config" in given:
        raise UserError(f"{where}: has a quantization_config; expected unquantised weights.")
    heads, width = required(given, "num_attention_heads", where), required(given, "hidden_size", where)
    theta, scaling = _rope(given, where)
    return ModelConfig(
        text_vocab_size=text_vocab_size,
        d_model=width,
        num_layers=required(given, "num_hidden_layers", where),
        num_heads=heads,
        num_kv_heads=given.get("num_key_value_heads", heads),
        head_dim=given.get("head_dim", width // heads),
        d_ff=required(given, "intermediate_size", where),
        context_length=required(given, "max_position_embeddings", where),
        rope_theta=theta,
        rms_norm_eps=required(given, "rms_norm_eps", where),
        tie_embeddings=given["tie_word_embeddings"],
        rope_scaling=scaling,
        music_vocab_size=music_vocab_size,
        vocab_multiple=vocab_multiple,
        init_std=given["initializer_range"],
    )


def _rope(given: dict[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    older = _rope_form(given.get("rope_scaling") or {}, given["rope_theta"], f"{where}: rope_scaling")
    if "rope_parameters" not in given:
        return older
    newer = _rope_form(given["rope_parameters"], given["rope_theta"], f"{where}: rope_parameters")
    if "rope_scaling" in given and older != newer:
        raise UserError(
            f"{where}: rope_scaling and rope_parameters differ ({older} and {newer}); remove the wrong one."
        )
    return newer


def _rope_form(form: dict[str, Any], theta: float, where: str) -> tuple[float, RopeScaling | None]:
    kind = form.get("rope_type", form.get("type", "default"))
    theta = float(form.get("rope_theta", theta))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UserError(f"{where}: rope_type is {kind!r}, expected 'default' or 'llama3'.")
    return theta, RopeScaling(
        factor=float(required(form, "factor", where)),
        low_freq_factor=float(required(form, "low_freq_factor", where)),
        high_freq_factor=float(required(form, "high_freq_factor", where)),
        original_context_length=int(required(form, "original_max_position_embeddings", where)),
    )


def from_model_config(config: ModelConfig, bos_id: int, eos_id: int, dtype: str) -> dict[str, Any]:
    """The fields of config.json."""
    scaling = config.rope_scaling and {
        "rope_type": "llama3",
        "factor": config.rope_scaling.factor,
        "low_freq_factor": config.rope_scaling.low_freq_factor,
        "high_freq_factor": config.rope_scaling.high_freq_factor,
        "original_max_position_embeddings": config.rope_scaling.original_context_length,
    }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": bos_id,
        "dtype": dtype,
        "eos_token_id": _eos_ids(config, eos_id),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "initializer_range": config.init_std,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.context_length,
        "mlp_bias": False,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, **(scaling or {"rope_type": "default"})},
        "rope_scaling": scaling,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def generation_config(
    config: ModelConfig, bos_id: int, eos_id: int, *, temperature: float, top_p: float, max_new_tokens: int
) -> dict[str, Any]:
    """The fields of generation_config.json: music ends with text's end or with SEPARATOR."""
    return {
        "bos_token_id": bos_id,
        "do_sample": True,
        "eos_token_id": _eos_ids(config, eos_id),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": 0,  # none; left out it would be transformers' 50
        "top_p": top_p,
    }


def _eos_ids(config: ModelConfig, eos_id: int) -> list[int]:
    return [eos_id, config.text_vocab_size + vocab.SEPARATOR] if config.music_vocab_size else [eos_id]
