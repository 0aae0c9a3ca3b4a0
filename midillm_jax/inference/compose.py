"""From a request to music: prompt ids, an engine, a check of what it wrote, notes, a MIDI file."""

import dataclasses
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.engine import Engine, Progress
from midillm_jax.inference.request import MusicRequest, TokenRequest, check_sampling
from midillm_jax.model import hf_config, hub
from midillm_jax.model.hf_folder import GGUF_FILE
from midillm_jax.music import grammar_check
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.timing import midi_file
from midillm_jax.music.vocab import AUTOREGRESS, MAX_GAP_TICKS, MAX_ONSET_TICKS, SEPARATOR
from midillm_jax.text.prompt import prompt_ids
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer

Backend = Literal["auto", "jax", "vllm", "llamacpp"]

_LEAST_TRIPLES = 2
"""A note and the end: a prompt that leaves less room is refused."""


@dataclasses.dataclass(frozen=True)
class MusicModel:
    """An engine with what it takes to talk to it."""

    engine: Engine
    tokenizer: Tokenizer
    closes: bool
    """Whether it learned to end a piece with SEPARATOR."""
    sequence_length: int
    """Tokens it writes at most, prompt included: its context, or the rows of its training where they were shorter."""
    temperature: float = MusicRequest.temperature
    """What its folder recommends, where nothing else is asked for; so with ``top_p``."""
    top_p: float = MusicRequest.top_p


@dataclasses.dataclass(frozen=True)
class Composition:
    """One piece."""

    amt_ids: np.ndarray
    """int32 [3n], what the engine wrote, the closing SEPARATOR triple included."""
    table: NoteTable
    """Its notes, as they were written."""
    midi: bytes
    """A file of them with tempo, bars and velocities, by music/timing.py."""
    closed: bool
    """False if the piece was cut for want of room rather than ended."""


@dataclasses.dataclass(frozen=True)
class Composed:
    """All the pieces of a request."""

    pieces: tuple[Composition, ...]
    seconds: dict[str, float]
    """Wall time by stage: compile, prefill, decode."""


def load_model(
    folder: str | os.PathLike[str], backend: Backend = "auto", quantization: str | None = None
) -> MusicModel:
    """A model in a Hugging Face folder, on an engine.

    Args:
        folder: as ``python -m midillm_jax.export`` writes it, or MIDI-LLM's published one; or its name on the Hub.
        backend: ``jax`` computes in the type that the weights are stored in, float16 in float32; ``vllm`` is
            inference/vllm.py, ``llamacpp`` inference/llamacpp.py; ``auto`` is llamacpp for a folder with a GGUF file,
            for another jax where it is installed, else vllm.
        quantization: vLLM's name of a way to quantise weights as they are loaded, such as ``fp8``.

    Raises:
        UserError: the folder is missing, holds no model, one that knows no music, or another model's tokenizer; or
            the engine cannot run it here.
    """
    root = model_folder(folder)
    if backend == "auto" and (root / GGUF_FILE).is_file():
        backend = "llamacpp"
    elif backend == "auto":
        backend = "vllm" if importlib.util.find_spec("jax") is None else "jax"
    if quantization is not None and backend != "vllm":
        raise UserError(f"quantization {quantization} is vLLM's; give --backend vllm too, or leave it out")
    length = hf_config.row_length(root)
    if backend == "vllm":
        engine = _vllm_engine(root, quantization)
    else:
        engine = _llamacpp_engine(root, length) if backend == "llamacpp" else _jax_engine(root)
    tokenizer = matching_tokenizer(root, engine.text_vocab_size)
    length = min(length, engine.context_length)
    fields = _generation_config(root)
    ends = fields.get("eos_token_id")
    closes = engine.text_vocab_size + SEPARATOR in (ends if isinstance(ends, list) else [ends])
    return MusicModel(engine, tokenizer, closes, length, *_recommended(root, fields))


def bundled_model() -> Path:
    """The folder of the small model that comes with the package (docs/mini.md)."""
    return Path(__file__).parent.parent / "assets" / "mini"


def model_folder(name: str | os.PathLike[str]) -> Path:
    """The folder of a model, fetched from the Hub where that is what its name says.

    Raises:
        UserError: there is none.
    """
    root = hub.local_folder(name)
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; expected a model that `python -m midillm_jax.export` wrote, or OWNER/NAME of one "
            "on the Hugging Face Hub"
        )
    return root


def matching_tokenizer(root: Path, text_vocab_size: int) -> Tokenizer:
    """The tokenizer in a model's folder.

    Raises:
        UserError: it is another model's.
    """
    tokenizer = load_tokenizer(root)
    if tokenizer.vocab_size != text_vocab_size:
        raise UserError(
            f"{tokenizer.files[0]}: this tokenizer has {tokenizer.vocab_size} ids, the model beside it "
            f"{text_vocab_size} text rows; put the tokenizer there that the model was trained with"
        )
    return tokenizer


# Engines are imported where one is chosen, so that a machine without jax, or without vLLM, can import this module.


def _jax_engine(root: Path) -> Engine:
    from midillm_jax.inference.jax_engine import JaxEngine
    from midillm_jax.model import hf

    return JaxEngine(*hf.load_music_model(root))


def _llamacpp_engine(root: Path, context_length: int) -> Engine:
    from midillm_jax.inference.llamacpp import LlamaCppEngine

    if not (root / GGUF_FILE).is_file():
        raise UserError(
            f"{root}: has no {GGUF_FILE}, which --backend llamacpp reads; export the checkpoint with --format gguf"
        )
    return LlamaCppEngine(root / GGUF_FILE, context_length=context_length)


def _vllm_engine(root: Path, quantization: str | None) -> Engine:
    from midillm_jax.inference.vllm import VllmEngine

    return VllmEngine(root, **({} if quantization is None else {"quantization": quantization}))


def _generation_config(root: Path) -> dict[str, Any]:
    """What generation_config.json says; a SEPARATOR among its ``eos_token_id`` ends a sequence, which the published
    checkpoint's has not."""
    path = root / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); remove the file or export the model again") from None


def _recommended(root: Path, fields: dict[str, Any]) -> tuple[float, float]:
    """Temperature and top-p of a model's folder."""
    temperature, top_p = fields.get("temperature", MusicRequest.temperature), fields.get("top_p", MusicRequest.top_p)
    try:
        check_sampling("", 0, temperature, top_p)
    except (TypeError, UserError) as error:
        raise UserError(f"{root / 'generation_config.json'}: {error}; mend it or export the model again") from None
    return float(temperature), float(top_p)


def token_requests(model: MusicModel, request: MusicRequest) -> list[TokenRequest]:
    """One engine request per output.

    Raises:
        UserError: the prompt leaves no room for music in a sequence of the model.
    """
    return lay_out(request, model.tokenizer, closes=model.closes, sequence_length=model.sequence_length)


def lay_out(request: MusicRequest, tokenizer: Tokenizer, *, closes: bool, sequence_length: int) -> list[TokenRequest]:
    """One engine request per output, for a model of which no more is known; the fields are those of MusicModel.

    Raises:
        UserError: the prompt leaves no room for music in a sequence.
    """
    flag = tokenizer.vocab_size + AUTOREGRESS
    prompt = (*prompt_ids(tokenizer, request.prompt), flag)
    room = (sequence_length - len(prompt)) // 3
    if room < _LEAST_TRIPLES:
        raise UserError(
            f"the prompt takes {len(prompt)} tokens, but a sequence of this model holds {sequence_length}, of "
            f"which music needs {3 * _LEAST_TRIPLES} at least; shorten the prompt"
        )
    # Besides its notes a piece holds a rest a second at most where nothing sounds, and its end.
    wanted = request.max_notes + MAX_ONSET_TICKS // MAX_GAP_TICKS + 1
    return [
        TokenRequest(
            prompt=prompt,
            limits=request.limits(closes),
            max_triples=min(room, wanted),
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            output=output,
            **guidance(request, tokenizer, flag),
        )
        for output in range(request.outputs)
    ]


def guidance(request: MusicRequest, tokenizer: Tokenizer, flag: int) -> dict[str, Any]:
    """What of a token request says how much the prompt counts; where there is none, nothing does."""
    if request.prompt is None or request.guidance == 1:
        return {}
    return {"guidance": request.guidance, "unprompted": (*prompt_ids(tokenizer, None), flag)}


def compose(model: MusicModel, request: MusicRequest, report: Callable[[Progress], None] | None = None) -> Composed:
    """Writes the pieces a request asks for.

    Raises:
        UserError: the prompt does not fit.
        RuntimeError: the engine broke the grammar, which is a fault of ours.
    """
    requests = token_requests(model, request)
    seconds = {"compile": 0.0, "prefill": 0.0, "decode": 0.0}
    stage, since = "done", time.perf_counter()

    def note_time(progress: Progress) -> None:
        nonlocal stage, since
        now = time.perf_counter()
        if stage in seconds:
            seconds[stage] += now - since
        stage, since = progress.stage, now
        if report is not None:
            report(progress)

    written = model.engine.generate(requests, note_time)
    return Composed(
        tuple(composition(model.engine, one, ids) for one, ids in zip(requests, written, strict=True)), seconds
    )


def composition(engine: Engine, request: TokenRequest, written: np.ndarray) -> Composition:
    """The piece that an engine wrote for a request, int32 [3n].

    Raises:
        RuntimeError: it breaks the grammar.
    """
    reason = grammar_check.check(written, request.limits)
    if reason is not None:
        raise RuntimeError(f"engine {engine.name} wrote ids outside the grammar: {reason}")
    table = decode_notes(written)
    midi = midi_file(table, request.seed + request.output)
    return Composition(written, table, midi, bool(len(written)) and int(written[-1]) == SEPARATOR)
