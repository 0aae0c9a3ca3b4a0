"""Figures on held-out rows, the same ones every time."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax

from midillm_jax.config import DataConfig, Source
from midillm_jax.data.batches import Batches
from midillm_jax.errors import UserError
from midillm_jax.model import sharding
from midillm_jax.training import metrics
from midillm_jax.training.step import Training, eval_step, place

MUSIC_FIGURES = ("bits_per_note", "onset_bits", "duration_bits", "note_bits")


def open_batches(training: Training, split: Literal["train", "validation"], data: DataConfig | None = None) -> Batches:
    """This host's batches of a split, of the config's data or of ``data``."""
    config = training.config
    return Batches(
        data or config.data,
        split=split,
        text_vocab_size=config.model.text_vocab_size,
        seed=config.seed,
        host=training.share,
        hosts=training.shares,
    )


class HeldOut:
    """Evaluates weights on the held-out rows of the config's mixture, and of each source where there are several."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._digests: dict[str, str] = {}
        self._step = jax.jit(functools.partial(eval_step, training), out_shardings=sharding.replicated(training.mesh))

    def figures(self, params: Any, look_up: Callable[[], None] = lambda: None) -> dict[str, metrics.Figures]:
        """Figures by the name of their row in the log: ``validation``, ``validation of FOLDER``.

        Args:
            params: all weights of the state.
            look_up: called before each batch; what it raises ends the evaluation.

        Raises:
            UserError: the held-out records are others than they were the time before.
        """
        data = self._training.config.data
        found = {"validation": self._of(params, data, look_up)}
        # One pass gives the figures of a source of music and of one of text.
        for number in range(max(len(data.music), len(data.text))):
            music, text = (kind[number] if number < len(kind) else None for kind in (data.music, data.text))
            one = dataclasses.replace(data, music=_alone(music, data.music), text=_alone(text, data.text))
            if one == data:
                break
            shown = self._of(params, one, look_up)
            if music is not None and len(data.music) > 1:
                found[f"validation of {music.path}"] = {name: shown[name] for name in MUSIC_FIGURES if name in shown}
            if text is not None and len(data.text) > 1:
                found[f"validation of {text.path}"] = {"text_loss": shown["text_loss"]}
        return found

    def _of(self, params: Any, data: DataConfig, look_up: Callable[[], None]) -> metrics.Figures:
        total: dict[str, float] = {}
        with open_batches(self._training, "validation", data) as batches:
            for folder, digest in batches.digests.items():
                if self._digests.setdefault(folder, digest) != digest:
                    raise UserError(
                        f"{folder}: its held-out records are not those that this run was evaluated on before; put the "
                        "folder back as it was, or begin a new run."
                    )
            for _ in range(self._training.config.eval.batches):
                look_up()
                sums = jax.device_get(self._step(params, place(self._training, next(batches))))
                total = {name: total.get(name, 0.0) + float(value) for name, value in sums.items()}
        return metrics.figures(total)


def _alone(source: Source | None, sources: tuple[Source, ...]) -> tuple[Source, ...]:
    return sources if source is None else (dataclasses.replace(source, weight=1.0),)
