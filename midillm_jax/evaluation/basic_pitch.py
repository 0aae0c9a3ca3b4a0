"""basic-pitch: a transcriber of notes (R. Bittner et al., "A lightweight instrument-agnostic model for polyphonic note
transcription and multipitch estimation", ICASSP 2022), whose ONNX network of 230 KB lies inside its package on PyPI.

Its outputs, the likelihoods of notes, onsets and pitch contours in each of 172 frames of about 2 s of audio, are no
embedding that was trained as one: a piece's vector is their mean and standard deviation over all its frames.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.networks import Heard, batches, file_digest, onnx_network

WINDOW = 43_844
"""Samples that the network takes: 2 s less one hop."""
_PACKAGED = Path("saved_models", "icassp_2022", "nmp.onnx")


class BasicPitch:
    """The packaged network, or that of a file."""

    name = "basic-pitch"
    sample_rate = 22_050

    def __init__(self, path: Path | None) -> None:
        if path is None:
            path = _packaged()
        if path is None or not path.is_file():
            raise UserError(
                f"--embedding basic-pitch: the network {_PACKAGED.name} was not found; pip install --no-deps "
                "basic-pitch==0.4.0 brings it (its other requirements are not needed), or name the file: "
                "basic-pitch:FILE"
            )
        self._digest = file_digest(path)
        self._run = onnx_network(path)

    def protocol(self) -> dict[str, Any]:
        """See networks.Embedding."""
        return {
            "network": "basic-pitch",
            "weights": self._digest,
            "sample_rate": self.sample_rate,
            "chunk_seconds": WINDOW / self.sample_rate,
            "last_chunk": "filled with silence, whose frames are left out",
            "pooling": "mean and standard deviation over the piece's frames of notes, onsets and contours",
        }

    def hear(self, samples: np.ndarray) -> Heard:
        """See networks.Embedding: one vector a piece."""
        count = math.ceil(max(len(samples), 1) / WINDOW)
        windows = np.zeros((count, WINDOW, 1), np.float32)
        windows.reshape(-1)[: len(samples)] = samples
        # float32 [windows, frames, bins] of each output
        parts = [[np.asarray(output) for output in self._run(part)] for part in batches(windows)]
        frames = np.concatenate([np.concatenate(part, axis=2) for part in parts])
        frames = frames.reshape(-1, frames.shape[2])
        kept = frames[: max(1, math.ceil(len(frames) * len(samples) / windows.size))]
        return Heard(np.concatenate([kept.mean(0), kept.std(0)])[None], np.ones(1))


def _packaged() -> Path | None:
    found = importlib.util.find_spec("basic_pitch")
    if found is None or found.submodule_search_locations is None:
        return None
    return Path(next(iter(found.submodule_search_locations)), _PACKAGED)
