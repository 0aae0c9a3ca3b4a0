"""CLAP's wiring with random weights: its numbers mean nothing, but chunks and words must reach it as they should."""

from pathlib import Path

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.evaluation.clap import Clap
from tests.evaluation import tiny_networks

SECOND = 48_000


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Clap:
    pytest.importorskip("torch", reason="torch is not installed")
    return Clap(str(tiny_networks.clap(tmp_path_factory.mktemp("tiny-clap"))))


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SECOND)).astype(np.float32)


def test_a_piece_is_cut_into_tens_of_seconds_and_every_one_is_heard(clap: Clap) -> None:
    """Each chunk alone gives what it gives within the piece, and twice the same: nothing is cropped at random."""
    samples = noise(25, 0)
    heard = clap.hear(samples)
    assert heard.chunks.shape == (3, 12)
    assert heard.weights.tolist() == pytest.approx([0.4, 0.4, 0.2])
    np.testing.assert_allclose(np.linalg.norm(heard.chunks, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(clap.hear(samples).chunks, heard.chunks)
    for number in range(3):
        alone = clap.hear(samples[number * 10 * SECOND : (number + 1) * 10 * SECOND])
        np.testing.assert_allclose(alone.chunks[0], heard.chunks[number], atol=1e-5)
    assert np.abs(heard.chunks[0] - heard.chunks[1]).max() > 1e-5, "it hears a difference at all"


def test_words_have_one_vector_whatever_stands_beside_them(clap: Clap) -> None:
    texts = ["a slow waltz", "loud drums " * 50, "x"]
    vectors = clap.read(texts)
    assert vectors.shape == (3, 12)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(clap.read(texts[:1])[0], vectors[0], atol=1e-6)


def test_the_protocol_names_the_weights(clap: Clap, tmp_path: Path) -> None:
    same = Clap(str(tiny_networks.clap(tmp_path / "elsewhere")))
    assert same.protocol() == clap.protocol()
    assert (clap.protocol()["sample_rate"], clap.protocol()["chunk_seconds"]) == (48_000, 10)
    assert clap.name.startswith("clap:tiny-clap")


def test_no_checkpoint_is_said_so(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(UserError, match=r"--embedding clap:.*: no CLAP checkpoint .* such as laion/larger_clap_music"):
        Clap(str(tmp_path))
