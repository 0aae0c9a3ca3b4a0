"""The grammar in vLLM: a logits processor that ``vllm serve`` finds by itself where midillm_jax is installed.

A request asks for it, ``vllm_xargs: {"midi_grammar": 1}`` over HTTP or ``extra_args`` of SamplingParams; one that does
not is left alone. Instead of 1 the value can be what :func:`to_argument` makes: JSON of the fields of
``grammar.Limits`` and of ``controls``. Music that stands behind the flag in the prompt is continued.

vLLM has two generations of model runners whose logits processors differ; :class:`Grammar`, the entry point
(``vllm.logits_processors``), is whichever is asked for:

- :class:`RunnerV1`: vLLM on a CPU, and on a GPU with VLLM_USE_V2_MODEL_RUNNER=0. Runs in the tests.
- :class:`RunnerV2`: the default on a GPU. Tested by itself, on a CPU; it has never run on a GPU.

vLLM on TPUs (tpu-inference) takes no logits processors, so the grammar cannot run there.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as _LogitsProcessorV1
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as _LogitsProcessorV2

from midillm_jax.errors import UserError
from midillm_jax.inference import whole_head
from midillm_jax.music import grammar, vocab

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

ARGUMENT = "midi_grammar"
"""Name of the request's argument."""

_LIMIT_FIELDS = {field.name for field in dataclasses.fields(grammar.Limits)}


def to_argument(limits: grammar.Limits, controls: Sequence[int] = ()) -> str:
    """A request's argument as JSON; over HTTP vLLM takes numbers and strings only."""
    return json.dumps(dataclasses.asdict(limits) | {"controls": list(controls)})


def from_argument(value: Any) -> tuple[grammar.Limits, tuple[int, ...]]:
    """Limits and controls of an argument: 1, or an object or its JSON.

    Raises:
        ValueError: it is something else, or a field is unknown or out of range; vLLM answers with HTTP 400.
    """
    if value in (1, True, "1"):
        return grammar.Limits(), ()
    try:
        fields = json.loads(value) if isinstance(value, str) else dict(value)
        controls = tuple(int(control) for control in fields.pop("controls", ()))
        if unknown := sorted(set(fields) - _LIMIT_FIELDS):
            raise ValueError(f"there is no {', '.join(unknown)}")
        if fields.get("programs") is not None:
            fields["programs"] = tuple(int(program) for program in fields["programs"])
        for name in set(fields) - {"programs"}:
            if not isinstance(fields[name], int) and fields[name] is not None:
                raise ValueError(f"{name} is {fields[name]!r}, not a whole number, true or false")
        limits = grammar.Limits(**fields)
        grammar.pack_limits([limits])
        grammar.pack_controls([controls])
    except (TypeError, ValueError, AttributeError, OverflowError, UserError) as error:
        raise ValueError(
            f"{ARGUMENT}: expected 1, or JSON of {', '.join(sorted(_LIMIT_FIELDS))} and controls; "
            f"found {str(value)[:200]} ({error})"
        ) from None
    return limits, controls


def _argument(params: "SamplingParams") -> Any:
    """The request's argument, None where it does not ask for the grammar."""
    value = (params.extra_args or {}).get(ARGUMENT)
    return None if value in (None, 0, False, "0") else value


def _check_argument(params: "SamplingParams") -> None:
    value = _argument(params)
    if value is not None:
        from_argument(value)


def _text_vocab_size(config: "VllmConfig") -> int:
    """Of the model that is served; negative where it has no music rows."""
    return int(config.model_config.hf_text_config.vocab_size) - vocab.VOCAB_SIZE


def _no_music(config: "VllmConfig") -> str:
    return (
        f"{ARGUMENT} was asked of {config.model_config.model}, whose vocabulary has no music rows; serve a model "
        "that `python -m midillm_jax.export` wrote, or leave the argument out"
    )


@dataclasses.dataclass
class _Request:
    """A request of the first runner."""

    limits: grammar.Limits
    controls: tuple[int, ...]
    state: np.ndarray  # int32 [K]
    output: list[int]  # token ids written so far; the runner appends to it
    seen: int  # of those, how many the state knows


class RunnerV1(_LogitsProcessorV1):
    """vllm.v1.sample.logits_processor.LogitsProcessor. One row of logits a request."""

    def __init__(self, config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        self._text, self._refusal = _text_vocab_size(config), _no_music(config)
        self._device = device
        self._requests: dict[int, _Request] = {}
        self._rows: _Rows | None = None

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Raises ValueError where the request's argument cannot be used."""
        _check_argument(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """The most likely id may be one that the grammar forbids."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Requests came, went or moved to another row."""
        if process_dict_updates(self._requests, batch_update, self._request):
            requests = [self._requests[row] for row in sorted(self._requests)]
            self._rows = _Rows.of(requests, self._device) if requests else None

    def _request(self, params: "SamplingParams", prompt: list[int] | None, output: list[int]) -> _Request | None:
        value = _argument(params)
        if value is None:
            return None
        if self._text < 0:
            raise ValueError(self._refusal)
        limits, controls = from_argument(value)
        history = whole_head.split_prompt(prompt or [], self._text)
        return _Request(limits, controls, grammar.replay(history, limits), output, 0)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Masks the rows of requests that asked for it: float32 [B, V] -> [B, V]."""
        if self._rows is None:
            return logits
        rows = sorted(self._requests)
        requests = [self._requests[row] for row in rows]
        self._rows.advance(requests, self._text)
        states = np.stack([request.state for request in requests])
        everyone = rows == list(range(len(logits)))
        masked = whole_head.masked_logits(
            torch,
            logits if everyone else logits[rows],
            torch.from_numpy(states).to(self._device),
            self._rows.limits,
            self._rows.controls,
            self._text,
            standing_at=set(grammar.slots(states).tolist()),
            ends_inside=self._rows.ends_inside,
            in_place=True,
        )
        if everyone:
            return masked
        logits[rows] = masked
        return logits


@dataclasses.dataclass
class _Rows:
    """The limits and controls of the first runner's requests, on the host for states and on the device for masks."""

    host: grammar.LimitArrays
    limits: grammar.LimitArrays
    controls: grammar.Controls
    ends_inside: bool
    """Whether any request ends before the last tick."""

    @classmethod
    def of(cls, requests: Sequence[_Request], device: torch.device) -> "_Rows":
        host = grammar.pack_limits([request.limits for request in requests])
        # A prompt may hold more controls than its request lists; the state's pointer must not leave the array.
        most = max(int(grammar.controls_written(request.state)) for request in requests)
        controls = grammar.pack_controls([request.controls for request in requests], most)
        ends_inside = bool((host.end_ticks < vocab.MAX_ONSET_TICKS).any())
        return cls(host, _to_torch(host, device), _to_torch(controls, device), ends_inside)

    def advance(self, requests: Sequence[_Request], text_vocab_size: int) -> None:
        """Tells the states what was written since."""
        while waiting := [row for row, request in enumerate(requests) if request.seen < len(request.output)]:
            behind = [requests[row] for row in waiting]
            tokens = np.array([request.output[request.seen] for request in behind], np.int32)
            if (tokens < 0).any():
                raise RuntimeError(
                    f"{ARGUMENT}: vLLM schedules ahead of the tokens it has drawn; start it with --logits-processors "
                    f"{__name__}:RunnerV1, or with --no-async-scheduling"
                )
            limits = self.host._replace(max_onsets_per_tick=self.host.max_onsets_per_tick[waiting])
            states = grammar.advance(np, np.stack([r.state for r in behind]), tokens - text_vocab_size, limits)
            for request, state in zip(behind, states, strict=True):
                request.state, request.seen = state, request.seen + 1


def _to_torch(arrays: Any, device: torch.device) -> Any:
    return type(arrays)(*(torch.from_numpy(array).to(device) for array in arrays))


class RunnerV2(_LogitsProcessorV2):
    """vllm.v1.worker.gpu.sample.logits_processor.LogitsProcessor. Never run on a GPU.

    States live on the device, one row a request slot. They are set from the prompt when a request comes in, and moved
    on by each token that is fed to the model, so that no step waits for the host.
    """

    def __init__(self, vllm_config: "VllmConfig", req_states: "LogitsProcRequestState") -> None:
        if vllm_config.speculative_config is not None and _text_vocab_size(vllm_config) >= 0:
            raise ValueError(f"{ARGUMENT} does not go with speculative decoding; start vLLM without it")
        self._text, self._refusal = _text_vocab_size(vllm_config), _no_music(vllm_config)
        self._slots = req_states
        self._device = req_states.device
        slots = req_states.max_num_reqs
        self._limits = _to_torch(grammar.pack_limits([grammar.Limits()] * slots), self._device)
        self._controls = _to_torch(grammar.pack_controls([()] * slots), self._device)
        self._state = torch.from_numpy(grammar.start(slots, grammar.pack_limits([grammar.Limits()] * slots)))
        self._state = self._state.to(self._device)
        self._asked = torch.zeros(slots, dtype=torch.bool, device=self._device)
        self._asked_on_host = np.zeros(slots, bool)
        self._new: dict[int, tuple[grammar.Limits, tuple[int, ...]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Raises ValueError where the request's argument cannot be used."""
        _check_argument(sampling_params)

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """A request took a slot; its prompt is on the device at :meth:`apply_staged_writes`."""
        value = _argument(sampling_params)
        self._new.pop(req_idx, None)
        if value is not None and self._text < 0:
            raise ValueError(self._refusal)
        if value is not None:
            self._new[req_idx] = from_argument(value)
        self._asked_on_host[req_idx] = value is not None
        self._asked[req_idx] = value is not None
        return value is not None

    def apply_staged_writes(self) -> None:
        """Sets the state of requests that came in, also of one that comes back with part of its output."""
        for slot, (limits, controls) in self._new.items():
            length = int(self._slots.prefill_len.np[slot])
            prefix = self._slots.all_token_ids.gpu[slot, :length].cpu().numpy()
            state = grammar.replay(whole_head.split_prompt(prefix, self._text), limits)
            packed = grammar.pack_controls([controls], int(grammar.controls_written(state)))
            self._write_row(self._limits, grammar.pack_limits([limits]), slot)
            self._write_controls(packed.ids[0], slot)
            self._state[slot] = torch.from_numpy(state).to(self._device)
        self._new.clear()

    def _write_row(self, arrays: grammar.LimitArrays, row: grammar.LimitArrays, slot: int) -> None:
        for field in ("notes", "max_onsets_per_tick", "start_ticks", "end_ticks", "max_notes", "distinct", "closes"):
            getattr(arrays, field)[slot] = torch.from_numpy(getattr(row, field))[0].to(self._device)

    def _write_controls(self, ids: np.ndarray, slot: int) -> None:
        """A request's controls, int32 [C, 3], the last never due; the array grows for the longest list."""
        missing = len(ids) - self._controls.ids.shape[1]
        if missing > 0:
            never = self._controls.ids[:, -1:].expand(-1, missing, -1)
            self._controls = self._controls._replace(ids=torch.cat((self._controls.ids, never), 1))
        row = np.concatenate((ids, np.repeat(ids[-1:], self._controls.ids.shape[1] - len(ids), 0)))
        self._controls.ids[slot] = torch.from_numpy(row).to(self._device)

    def apply(self, logits: torch.Tensor, ctx: "LogitsContext") -> torch.Tensor:
        """Masks the rows of requests that asked for it: float32 [B, V] -> [B, V]."""
        if not self._asked_on_host[ctx.idx_mapping_np].any():
            return logits
        slots = ctx.expanded_idx_mapping.long()
        # The ticks are the same for all.
        limits = grammar.LimitArrays(
            **{name: array if name == "ticks" else array[slots] for name, array in self._limits._asdict().items()}
        )
        rows = torch.arange(len(slots), dtype=torch.int32, device=self._device)
        controls = grammar.Controls(self._controls.ids[slots], rows)
        state = self._state[slots]
        # The token fed at a row's position is new to the state if it lies behind the prompt.
        fresh = ((ctx.pos + 1 > self._slots.prefill_len.gpu[slots]) & self._asked[slots])[:, None]
        moved = grammar.advance(torch, state, ctx.input_ids.to(torch.int32) - self._text, limits)
        state = torch.where(fresh, moved, state)
        self._state[slots] = state
        masked = whole_head.masked_logits(torch, logits, state, limits, controls, self._text)
        return torch.where(self._asked[slots][:, None], masked, logits)


class Grammar(RunnerV2):
    """The entry point: vLLM makes it with (config, device, is_pin_memory) for the first runner, with (config, states)
    for the second, which also asks that it be a class of its own."""

    def __new__(cls, *arguments: Any) -> Any:
        return super().__new__(cls) if len(arguments) == 2 else RunnerV1(*arguments)
