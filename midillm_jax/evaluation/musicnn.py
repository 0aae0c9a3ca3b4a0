"""musicnn: a tagger of music (J. Pons and X. Serra, "musicnn: pre-trained convolutional neural networks for music audio
tagging", 2019), trained on the Million Song Dataset's fifty commonest tags. ``launch/musicnn.py`` converts it to ONNX.

The spectrogram is that of its package: 96 mel bands of 512 samples at 16 kHz, every 256, rounded to half precision,
log10(10,000 x + 1), cut into patches of 187 frames (3 s). The vector is its penultimate layer.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.networks import Heard, batches, cut, file_digest, onnx_network

FRAMES = 187
BANDS = 96
_WINDOW, _HOP = 512, 256


def default_path() -> Path:
    """Where ``launch/musicnn.py`` puts the network: in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "midillm_jax" / "musicnn.onnx"


class Musicnn:
    """The converted network, with its tags beside it in a file of the same name that ends in .json."""

    name = "musicnn"
    sample_rate = 16_000

    def __init__(self, path: Path | None) -> None:
        from transformers import audio_utils

        path = path or default_path()
        if not path.is_file() or not path.with_suffix(".json").is_file():
            raise UserError(
                f"--embedding musicnn: no {path} with its tags in {path.with_suffix('.json').name}; `python "
                "launch/musicnn.py` of the repository makes both from the package on PyPI"
            )
        self._digest = file_digest(path)
        self._run = onnx_network(path)
        self.tags: tuple[str, ...] = tuple(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["tags"])
        self._audio_utils = audio_utils
        self._mels = self._audio_utils.mel_filter_bank(
            _WINDOW // 2 + 1, BANDS, 0.0, self.sample_rate / 2, self.sample_rate, norm="slaney", mel_scale="slaney"
        )

    def protocol(self) -> dict[str, Any]:
        """See networks.Embedding."""
        return {
            "network": "musicnn",
            "weights": self._digest,
            "sample_rate": self.sample_rate,
            "chunk_seconds": FRAMES * _HOP / self.sample_rate,
            "last_chunk": "its frames repeated to its end",
            "pooling": "penultimate layer, mean over chunks by their length",
        }

    def hear(self, samples: np.ndarray) -> Heard:
        """See networks.Embedding; with the probabilities of its tags."""
        frames = self.spectrogram(samples)
        patches, weights = cut(frames.reshape(-1), FRAMES * BANDS)
        parts = [self._run(part) for part in batches(patches.reshape(-1, FRAMES, BANDS))]
        vectors, tags = (np.concatenate([part[output] for part in parts]) for output in (0, 1))
        return Heard(vectors, weights, tags)

    def spectrogram(self, samples: np.ndarray) -> np.ndarray:
        """float32 [frames, BANDS] of samples at 16 kHz."""
        power = self._audio_utils.spectrogram(
            samples,
            self._audio_utils.window_function(_WINDOW, "hann"),
            _WINDOW,
            _HOP,
            fft_length=_WINDOW,
            power=2.0,
            center=True,
            pad_mode="constant",
            mel_filters=self._mels,
            mel_floor=0.0,
        ).T
        return np.log10(10_000 * power.astype(np.float16).astype(np.float32) + 1)
