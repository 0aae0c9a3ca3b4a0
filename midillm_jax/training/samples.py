"""Music in the midst of training: a few fixed prompts, sampled from the weights as they are, to look at and listen to.

    RUN/samples/STEP/00.mid 00.png 00.flac    of the first prompt, and so on (.wav where soundfile is missing)
    RUN/samples/STEP/samples.json             the figures, and what was found in each piece

Sampler and grammar are those of ``generate``, and every prompt has the same noise at every step, so that steps can be
compared. A folder appears once it is whole.

The weights need not be written for it, wherever they lie and in whatever type: they are gathered in the compute type,
and the first process samples on its first device. So each device has to have room for the model in that type between
two steps. Of several processes all take part in gathering; the others wait for the first one to be done.
"""

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from midillm_jax.errors import UserError
from midillm_jax.files import put_in_place, write_whole
from midillm_jax.inference import compose
from midillm_jax.inference.jax_engine import Compiled, JaxEngine
from midillm_jax.inference.request import MusicRequest, TokenRequest
from midillm_jax.model import finetune, sharding
from midillm_jax.model.llama import Definition, Execution, Params
from midillm_jax.music import grammar_check, render
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.signatures import Signatures, signatures
from midillm_jax.music.timing import midi_file
from midillm_jax.text.tokenizer import load_tokenizer
from midillm_jax.training import hosts
from midillm_jax.training.board import Board
from midillm_jax.training.metrics import Figures
from midillm_jax.training.step import Training

FOLDER, RESULTS = "samples", "samples.json"
_BOARD_RATE = 22_050
"""Frames a second of what TensorBoard gets, which is half of what is rendered, and mono: it keeps every step."""
_TAG_LETTERS = 48


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a prompt gave."""

    prompt: str
    """Empty for music without a description."""
    valid: bool
    """Whether it keeps to the grammar and holds a note."""
    table: NoteTable
    signs: Signatures


class Samples:
    """Writes a run's samples. Made once, on every process; what it compiles is kept from one step to the next."""

    def __init__(self, training: Training, folder: Path) -> None:
        """``folder`` is the run's.

        Raises:
            UserError: the tokenizer is missing, or a prompt leaves no room for music in a row.
        """
        config = training.config
        self._settings, self._steps, self._folder = config.samples, config.steps, folder / FOLDER
        run = Execution(param_dtype=config.compute_dtype, compute_dtype=config.compute_dtype, remat="none")
        self._definition = Definition(config.model, run)
        self._compiled: Compiled = {}
        self._requests = _requests(training) if self._settings.every_steps else []
        self._gather = jax.jit(
            lambda params: jax.tree.map(
                lambda weight: weight.astype(config.compute_dtype), finetune.merged(params, config.finetune, jnp)
            ),
            out_shardings=sharding.replicated(training.mesh),
        )
        self._said: set[str] = set()
        self._times = 0

    def due(self, step: int) -> bool:
        """Whether samples are to be taken after this step; 0 is before the first."""
        every = self._settings.every_steps
        return bool(every) and (step % every == 0 or step == self._steps)

    def write(
        self,
        step: int,
        params: Params,
        board: Board | None,
        say: Callable[[str], None],
        look_up: Callable[[], None] = lambda: None,
    ) -> Figures:
        """Samples every prompt and writes what came. All processes call this after the same step.

        Args:
            step: names the folder; what an interrupted run left there is replaced.
            params: all weights of the state, as they lie on the mesh.
            board: gets pictures and sound, and is flushed by whoever writes the figures; None on other processes.
            say: gets a sentence, once, on what could not be played or written. Training does not end for it.
            look_up: called now and then; what it raises ends the sampling, with nothing written.

        Returns:
            ``valid_share``, ``looping_share``, ``flooded_share`` and ``empty_share`` of the pieces
            (music/signatures.py) on the first process, nothing on the others.

        Raises:
            UserError: a device has no room for the weights.
        """
        figures: Figures = {}
        try:
            whole = self._gather(params)
            if hosts.is_first():
                samples = self._sample(jax.tree.map(lambda leaf: leaf.addressable_data(0), whole), look_up)
                figures = shares(samples)
                self._keep(step, samples, figures, board, say)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"samples: beside the training a device has no room for the whole model in "
                f"{self._definition.run.compute_dtype}; turn them off with --samples.every-steps 0."
            ) from error
        self._times += 1
        hosts.wait_for_all(f"samples were taken for the {self._times}. time")
        return figures

    def _sample(self, params: Params, look_up: Callable[[], None]) -> list[Sample]:
        engine = JaxEngine(self._definition, params, compiled=self._compiled)
        written = engine.generate(self._requests, lambda now: look_up())
        return [
            _sample(prompt, request, ids)
            for prompt, request, ids in zip(self._settings.prompts, self._requests, written, strict=True)
        ]

    def _keep(
        self,
        step: int,
        samples: list[Sample],
        figures: Figures,
        board: Board | None,
        say: Callable[[str], None],
    ) -> None:
        partial = self._folder / f"{step}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for number, sample in enumerate(samples):
                midi = partial / f"{number:02d}.mid"
                write_whole(midi, midi_file(sample.table, number))  # its seed is its number
                picture = render.piano_roll(sample.table, midi.with_suffix(".png"), sample.prompt or None)
                sound = self._play(midi, say)
                if board is not None:
                    _show(board, f"{FOLDER}/{number:02d} {sample.prompt[:_TAG_LETTERS]}".rstrip(), picture, sound, step)
            write_whole(partial / RESULTS, json.dumps(_document(step, figures, samples), indent=1) + "\n")
            put_in_place(partial, self._folder / str(step))
        except OSError as error:
            self._say_once(say, f"samples: {error.filename or partial} could not be written ({error.strerror})")

    def _play(self, midi: Path, say: Callable[[str], None]) -> Path | None:
        ending = ".wav" if importlib.util.find_spec("soundfile") is None else ".flac"
        try:
            return render.audio(midi, midi.with_suffix(ending))
        except UserError as error:
            self._say_once(say, f"samples: no sound: {error}")
            return None

    def _say_once(self, say: Callable[[str], None], sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            say(sentence)


def shares(samples: list[Sample]) -> Figures:
    """Share of samples that are valid, and of those with each sign of failure."""
    signs = {
        "valid": [sample.valid for sample in samples],
        "looping": [sample.signs.looping for sample in samples],
        "flooded": [sample.signs.flooded for sample in samples],
        "empty": [sample.signs.empty for sample in samples],
    }
    return {f"{name}_share": float(np.mean(each)) for name, each in signs.items()}


def _requests(training: Training) -> list[TokenRequest]:
    """One for each prompt; its place is the seed of its noise."""
    config, settings = training.config, training.config.samples
    tokenizer = load_tokenizer(config.data.tokenizer)
    requests = []
    for number, prompt in enumerate(settings.prompts):
        request = MusicRequest(
            prompt or None,
            seed=number,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_notes=settings.max_notes,
            max_seconds=settings.max_seconds,
        )
        try:
            # Pieces that end inside their row are closed, here as in the batches.
            requests += compose.lay_out(request, tokenizer, closes=True, sequence_length=config.data.row_length)
        except UserError as error:
            raise UserError(f"samples.prompts.{number}: {error}, or make data.row_length greater") from None
    return requests


def _sample(prompt: str, request: TokenRequest, ids: np.ndarray) -> Sample:
    table = decode_notes(ids)
    valid = grammar_check.check(ids, request.limits) is None and len(table) > 0
    return Sample(prompt, valid, table, signatures(table))


def _document(step: int, figures: Figures, samples: list[Sample]) -> dict[str, object]:
    pieces = [
        {
            "prompt": sample.prompt,
            "valid": sample.valid,
            "looping": sample.signs.looping,
            "flooded": sample.signs.flooded,
            "empty": sample.signs.empty,
            **dataclasses.asdict(sample.signs),
        }
        for sample in samples
    ]
    return {"step": step, "figures": figures, "pieces": pieces}


def _show(board: Board, tag: str, picture: Path, sound: Path | None, step: int) -> None:
    with Image.open(picture) as image:
        board.image(step, tag, np.asarray(image.convert("RGB")))
    if sound is not None and sound.suffix == ".flac":
        import soundfile  # with which tensorboardX encodes, too

        frames, _ = soundfile.read(str(sound), dtype="float32")
        pairs = frames[: len(frames) // 2 * 2].reshape(-1, 4)
        board.audio(step, tag, pairs.mean(axis=1), _BOARD_RATE)
