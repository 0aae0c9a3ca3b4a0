"""Which values of a config no run can have, said before anything is loaded or compiled."""

import dataclasses
import operator
import re
import types
import typing
from typing import Any, Literal

from midillm_jax.config import Config, FinetuneConfig, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.music.signatures import LEAST_NOTES, LEAST_SECONDS
from midillm_jax.music.vocab import MAX_ONSET_TICKS, TICKS_PER_SECOND

_LEAST = {
    0: "data.music_rows data.text_rows data.transpose data.prefetch data.workers loss.z_loss optimizer.learning_rate "
    "optimizer.warmup_steps optimizer.weight_decay optimizer.text_rows_learning_rate_share checkpoint.every_minutes "
    "checkpoint.retry_minutes guard.spike_factor guard.after_steps samples.every_steps samples.temperature",
    1: "steps log_every_steps model.text_vocab_size model.d_model model.num_layers model.num_heads model.num_kv_heads "
    "model.d_ff model.context_length model.vocab_multiple data.row_length data.streams loss.chunk_tokens "
    "optimizer.accumulation_steps guard.patience checkpoint.every_steps checkpoint.keep eval.every_steps eval.batches",
}
"""Fields that may be this and more."""
_POSITIVE = (
    "model.rope_theta model.rms_norm_eps model.init_std data.anticipation.span_rate optimizer.epsilon "
    "optimizer.clip_norm"
)

_LONGEST_SECONDS = MAX_ONSET_TICKS / TICKS_PER_SECOND


def check(config: Config) -> None:
    """Refuses values that no run can have, before anything is loaded or compiled.

    What depends on files or devices is refused where those are met (data/batches.py, model/sharding.py).

    Raises:
        UserError: a value is of another type or out of its range; field, value and what was expected are named.
    """
    _check_types(config, Config, "")
    model, data, optimizer, samples = config.model, config.data, config.optimizer, config.samples
    ranges = [(field, operator.ge, least) for least, fields in _LEAST.items() for field in fields.split()]
    ranges += [(field, operator.gt, 0) for field in _POSITIVE.split()]
    for field, holds, bound in ranges:
        found = operator.attrgetter(field)(config)
        if not holds(found, bound):
            expected = f"{bound} or more" if holds is operator.ge else f"a number above {bound}"
            raise UserError(f"{field} is {found}; expected {expected}.")
    scaling = model.rope_scaling
    _require(
        config,
        ("name", bool(config.name), "a name"),
        ("profile", _is_range(config.profile, config.steps), f"steps such as 20:25 of 1 to {config.steps}, or nothing"),
        ("seed", 0 <= config.seed < 1 << 32, "0 to 2**32 - 1"),
        (
            "model.num_heads",
            model.num_heads % model.num_kv_heads == 0,
            f"a multiple of model.num_kv_heads, which is {model.num_kv_heads}",
        ),
        ("model.head_dim", model.head_dim >= 2 and model.head_dim % 2 == 0, "an even number of 2 or more"),
        (
            "model.music_vocab_size",
            not data.music_rows or model.music_vocab_size == ModelConfig.music_vocab_size,
            f"{ModelConfig.music_vocab_size}, the AMT vocabulary",
        ),
        (
            "model.rope_scaling",
            scaling is None
            or (
                0 < scaling.low_freq_factor < scaling.high_freq_factor
                and min(scaling.factor, scaling.original_context_length) > 0
            ),
            "numbers above 0, low_freq_factor below high_freq_factor",
        ),
        (
            "data.row_length",
            data.row_length <= model.context_length,
            f"at most model.context_length, which is {model.context_length}",
        ),
        ("data.tempo_stretch", 0 <= data.tempo_stretch <= 1, "0 to 1"),
        # The slot loss reads of a row of music only what can stand in the slots.
        (
            "data.prompt_weight",
            data.prompt_weight == 0 or (data.prompt_weight > 0 and config.loss.kind == "full"),
            "0, or above 0 with loss.kind = 'full'",
        ),
        ("optimizer.final_learning_rate_share", 0 <= optimizer.final_learning_rate_share <= 1, "0 to 1"),
        ("optimizer.beta1", 0 <= optimizer.beta1 < 1, "0 or more, below 1"),
        ("optimizer.beta2", 0 <= optimizer.beta2 < 1, "0 or more, below 1"),
        ("samples.every_steps", not samples.every_steps or data.music_rows > 0, "0, as data.music_rows is 0"),
        ("samples.prompts", len(samples.prompts) > 0, 'a prompt or more; "" is music without a description'),
        (
            "samples.max_seconds",
            LEAST_SECONDS < samples.max_seconds <= _LONGEST_SECONDS,
            f"above {LEAST_SECONDS:g}, less being called empty, and at most {_LONGEST_SECONDS:g}",
        ),
        ("samples.max_notes", samples.max_notes >= LEAST_NOTES, f"{LEAST_NOTES} or more, fewer being called empty"),
        # As inference/request.py has it, on which configs do not stand.
        ("samples.temperature", not samples.temperature or 0.01 <= samples.temperature <= 100, "0, or 0.01 to 100"),
        ("samples.top_p", 1e-6 <= samples.top_p <= 1, "0.000001 to 1"),
    )
    if config.finetune is not None:
        _check_finetune(config, config.finetune)


def _check_finetune(config: Config, finetune: FinetuneConfig) -> None:
    projections = finetune.lora_projections
    _require(
        config,
        ("finetune.lora_rank", finetune.lora_rank >= 0, "0 or more"),
        ("finetune.lora_rank", finetune.lora_rank or finetune.music_rows, "1 or more, as no music rows train"),
        ("finetune.lora_alpha", finetune.lora_alpha > 0, "a number above 0"),
        (
            "finetune.lora_projections",
            len(set(projections)) == len(projections) and (projections or not finetune.lora_rank),
            "one or more, each once",
        ),
        ("model.music_vocab_size", config.model.music_vocab_size or not finetune.music_rows, "rows that can train"),
        ("init_from", bool(config.init_from), "the folder of the model to finetune"),
        (
            "optimizer.text_rows_learning_rate_share",
            config.optimizer.text_rows_learning_rate_share == 1,
            "1 with finetune, which freezes text rows",
        ),
    )


def _require(config: Config, *rules: tuple[str, Any, str]) -> None:
    """Refuses the first field whose value is not good: name, whether it is, what was expected."""
    for field, good, expected in rules:
        if not good:
            raise UserError(f"{field} is {operator.attrgetter(field)(config)!r}; expected {expected}.")


def _is_range(text: str, steps: int) -> bool:
    found = re.fullmatch(r"(\d+):(\d+)", text)
    return not text or (found is not None and 1 <= int(found[1]) <= int(found[2]) and int(found[1]) <= steps)


def _check_types(value: Any, kind: Any, where: str) -> None:
    """Holds a value, and what is inside it, to the annotation ``kind``; an int does for a float."""
    arguments = typing.get_args(kind)
    if types.NoneType in arguments:
        if value is not None:
            _check_types(value, arguments[0], where)
        return
    if typing.get_origin(kind) is Literal:
        if value not in arguments:
            raise UserError(f"{where} is {value!r}; expected {' or '.join(map(repr, arguments))}.")
        return
    plain = typing.get_origin(kind) or kind
    accepted: Any = (int, float) if plain is float else plain
    if not isinstance(value, accepted) or (isinstance(value, bool) and plain is not bool):
        raise UserError(f"{where} is {value!r}; expected a value of type {plain.__name__}.")
    if plain is tuple:
        for place, each in enumerate(value):
            _check_types(each, arguments[0], f"{where}.{place}")
    elif dataclasses.is_dataclass(plain):
        for name, hint in typing.get_type_hints(plain).items():
            _check_types(getattr(value, name), hint, f"{where}.{name}".removeprefix("."))
