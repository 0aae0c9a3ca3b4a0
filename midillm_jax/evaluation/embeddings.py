"""Networks that turn audio into vectors, by name: what a Frechet audio distance and a match with words are taken of.

    clap:CHECKPOINT               a folder or Hugging Face name of a ClapModel: laion/larger_clap_music (clap.py)
    musicnn, musicnn:FILE         a tagger trained on the Million Song Dataset (musicnn.py)
    basic-pitch, basic-pitch:FILE a transcriber; a small network that comes inside a package on PyPI (basic_pitch.py)
    onnx:FILE,rate=R,seconds=S    any other: samples float32 [B, R * S] to vectors [B, D] or [B, T, D], the first output
    torch:FILE,rate=R,seconds=S   the same as TorchScript

A piece is cut into chunks of the length that the network takes; the last one, which is shorter, is filled up in the
network's own way and counts by its share. Nothing is drawn at random and nothing is left out.
"""

from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError, first_line
from midillm_jax.evaluation.basic_pitch import BasicPitch
from midillm_jax.evaluation.clap import Clap
from midillm_jax.evaluation.musicnn import Musicnn
from midillm_jax.evaluation.networks import Embedding, Heard, Network, batches, cut, file_digest, onnx_network

NAMES = ("clap:CHECKPOINT", "musicnn", "basic-pitch", "onnx:FILE,rate=R,seconds=S", "torch:FILE,rate=R,seconds=S")


def load(name: str) -> Embedding:
    """The network of that name.

    Raises:
        UserError: no such name or file.
    """
    kind, colon, rest = name.partition(":")
    if kind == "clap" and rest:
        return Clap(rest)
    if kind == "musicnn" and bool(rest) == bool(colon):
        return Musicnn(Path(rest) if rest else None)
    if kind == "basic-pitch" and bool(rest) == bool(colon):
        return BasicPitch(Path(rest) if rest else None)
    if kind in ("onnx", "torch") and rest:
        return _plain(name, kind, rest)
    raise UserError(f"--embedding {name}: no such network; expected one of {', '.join(NAMES)}")


class Plain:
    """A network of samples to vectors, from a file."""

    def __init__(self, kind: str, path: Path, sample_rate: int, seconds: float) -> None:
        self.name = f"{kind}:{path.name}"
        self.sample_rate = sample_rate
        self._kind = kind
        self._seconds = seconds
        self._digest = file_digest(path)
        self._run = onnx_network(path) if kind == "onnx" else _torch_network(path)

    def protocol(self) -> dict[str, Any]:
        """See Embedding."""
        return {
            "network": self._kind,
            "weights": self._digest,
            "sample_rate": self.sample_rate,
            "chunk_seconds": self._seconds,
            "last_chunk": "repeated to its end",
            "pooling": "mean over chunks by their length",
        }

    def hear(self, samples: np.ndarray) -> Heard:
        """See Embedding."""
        chunks, weights = cut(samples, round(self._seconds * self.sample_rate))
        found = np.concatenate([self._vectors(part) for part in batches(chunks)])
        return Heard(found, weights)

    def _vectors(self, chunks: np.ndarray) -> np.ndarray:
        try:
            first = self._run(chunks)[0]
        except RuntimeError as error:
            raise self._misfit(chunks, first_line(error)) from error
        first = first.mean(axis=1) if first.ndim == 3 else first
        if first.ndim != 2 or len(first) != len(chunks):
            raise self._misfit(chunks, f"gave {list(first.shape)}")
        return first

    def _misfit(self, chunks: np.ndarray, what: str) -> UserError:
        return UserError(
            f"--embedding {self.name}: given samples of shape {list(chunks.shape)}, the network {what}; expected "
            "[B, D] or [B, T, D]; export it so, or name the rate and seconds that it takes"
        )


def _torch_network(path: Path) -> Network:
    import torch

    try:
        # Not torch.export.load: it reads pickles (torch 2.13), which run what they hold.
        module = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: no TorchScript ({first_line(error)}); expected what torch.jit.save wrote; other torch networks "
            "can be exported to ONNX: --embedding onnx:FILE"
        ) from None

    def run(batch: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            found = module(torch.from_numpy(batch))
        return [each.float().numpy() for each in (found if isinstance(found, tuple) else (found,))]

    return run


def _plain(name: str, kind: str, rest: str) -> Plain:
    path, *fields = rest.split(",")
    found = dict(field.partition("=")[::2] for field in fields)
    try:
        rate, seconds = int(found.pop("rate")), float(found.pop("seconds"))
    except (KeyError, ValueError):
        rate = 0
        seconds = 0.0
    if found or rate < 1_000 or seconds <= 0:
        raise UserError(f"--embedding {name}: expected {kind}:FILE,rate=HERTZ,seconds=LENGTH of what the network takes")
    return Plain(kind, Path(path), rate, seconds)
