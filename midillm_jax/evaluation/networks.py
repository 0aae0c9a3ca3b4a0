"""What all networks that hear have in common: chunks of audio in, vectors out, and ONNX files that are run."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from midillm_jax.errors import UserError, first_line

_TOGETHER = 8
"""Chunks that a network is given at once."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """What a network makes of a piece."""

    chunks: np.ndarray
    """float32 [n, D]."""
    weights: np.ndarray
    """float64 [n]: shares of the piece, with the sum 1."""
    tags: np.ndarray | None = None
    """float32 [n, tags]: probabilities, of a tagger."""

    def mean(self) -> np.ndarray:
        """float64 [D]: of the chunks, by their length."""
        return self.weights @ self.chunks.astype(np.float64)


class Embedding(Protocol):
    """A network."""

    name: str
    """As it was asked for."""
    sample_rate: int

    def protocol(self) -> dict[str, Any]:
        """All that decides a vector besides the audio."""

    def hear(self, samples: np.ndarray) -> Heard:
        """Vectors of a piece, float32 [frames] at its sample rate."""


def cut(samples: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Chunks float32 [n, frames] of [total], and their shares of the whole, float64 [n].

    The last chunk is repeated until it is full, as CLAP's own feature extractor does.
    """
    starts = range(0, max(len(samples), 1), frames)
    parts = [samples[start : start + frames] for start in starts]
    sizes = np.array([len(part) for part in parts], np.float64)
    return np.stack([np.resize(part, frames) for part in parts]), sizes / sizes.sum()


def batches(chunks: np.ndarray) -> list[np.ndarray]:
    """Rows of at most so many that a network holds them in memory at once."""
    return [chunks[start : start + _TOGETHER] for start in range(0, len(chunks), _TOGETHER)]


def file_digest(path: Path) -> str:
    """SHA-256 (hex).

    Raises:
        UserError: no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"--embedding: {path} cannot be read ({error.strerror}); expected a network's file") from None


Network = Callable[[np.ndarray], list[np.ndarray]]
"""A batch float32 [B, ...] -> all outputs."""


def onnx_network(path: Path) -> Network:
    """A network of one input, run by onnxruntime on the CPU.

    Raises:
        UserError: the file is no such network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a class of its own for every kind of bad file
        raise UserError(f"{path}: no ONNX network that can be run ({first_line(error)}); export it again") from None
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise UserError(
            f"{path}: the network has inputs {', '.join(each.name for each in inputs)}; expected one; export it with "
            "the others fixed"
        )

    def run(batch: np.ndarray) -> list[np.ndarray]:
        try:
            return session.run(None, {inputs[0].name: batch})
        except Exception as error:
            raise RuntimeError(f"refused them ({first_line(error)})") from error

    return run
