"""CLAP: audio and words in one space (Y. Wu et al., "Large-scale contrastive language-audio pretraining", ICASSP 2023).

CLAP's own feature extractor crops what is longer than 10 s at random, and marks a random clip of a batch as long where
a checkpoint fuses views. Here it is given chunks of exactly its length, and no clip is long, so that a score is the
same every time. A checkpoint with random weights is good for testing the wiring; its numbers say nothing about music.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError, first_line
from midillm_jax.evaluation.networks import Heard, batches, cut


class Clap:
    """A ClapModel of transformers, in float32 on the CPU or a GPU if there is one."""

    def __init__(self, checkpoint: str) -> None:
        import torch
        import transformers

        self.name = f"clap:{Path(checkpoint).name}"
        transformers.utils.logging.disable_progress_bar()  # this project has its own
        self._torch = torch
        try:
            model: Any = transformers.ClapModel.from_pretrained(checkpoint, dtype=self._torch.float32)
            self._extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoint)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--embedding clap:{checkpoint}: no CLAP checkpoint ({first_line(error)}); expected a folder with "
                "one, or the Hugging Face name of one that can be downloaded from here, such as laion/larger_clap_music"
            ) from None
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device).eval()
        self.sample_rate = int(self._extractor.sampling_rate)
        self.chunk_seconds = int(self._extractor.max_length_s)
        self._digest = _weights_digest(model)

    def protocol(self) -> dict[str, Any]:
        """See networks.Embedding."""
        return {
            "network": "CLAP",
            "weights": self._digest,
            "sample_rate": self.sample_rate,
            "chunk_seconds": self.chunk_seconds,
            "last_chunk": "repeated to its end",
            "pooling": "mean over chunks by their length, each of length 1",
        }

    def hear(self, samples: np.ndarray) -> Heard:
        """See networks.Embedding; every chunk's vector has length 1."""
        chunks, weights = cut(samples, self.chunk_seconds * self.sample_rate)
        return Heard(np.concatenate([self._audio(part) for part in batches(chunks)]), weights)

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 [n, D] of length 1; a text over the model's length is cut off."""
        found = []
        for text in texts:
            tokens = self._tokenizer([text], return_tensors="pt", truncation=True, max_length=self._most_tokens()).to(
                self._device
            )
            with self._torch.inference_mode():
                vectors = self._model.get_text_features(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                )
            found.append(self._numbers(vectors))
        return np.concatenate(found)

    def _audio(self, chunks: np.ndarray) -> np.ndarray:
        features = self._extractor(list(chunks), sampling_rate=self.sample_rate, return_tensors="pt")
        long = self._torch.zeros((len(chunks), 1), dtype=self._torch.bool)
        with self._torch.inference_mode():
            vectors = self._model.get_audio_features(
                input_features=features["input_features"].to(self._device), is_longer=long.to(self._device)
            )
        return self._numbers(vectors)

    def _most_tokens(self) -> int:
        # RoBERTa's positions begin behind the padding id.
        config = self._model.config.text_config
        return int(config.max_position_embeddings - config.pad_token_id - 1)

    def _numbers(self, vectors: Any) -> np.ndarray:
        """transformers 5 gives an object, earlier ones the tensor itself."""
        tensor = getattr(vectors, "pooler_output", vectors)
        return self._torch.nn.functional.normalize(tensor, dim=-1).float().cpu().numpy()


def _weights_digest(model: Any) -> str:
    """SHA-256 (hex) over names, shapes and numbers, whatever files they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
