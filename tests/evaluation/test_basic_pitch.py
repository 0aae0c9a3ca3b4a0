"""basic-pitch's windows and pooling, with a network of its form whose frames hold the energy of their samples."""

from pathlib import Path

import numpy as np
import pytest

from midillm_jax.evaluation.basic_pitch import WINDOW, BasicPitch
from tests.evaluation.tiny_networks import transcriber


@pytest.fixture
def network(tmp_path: Path) -> BasicPitch:
    return BasicPitch(transcriber(tmp_path / "nmp.onnx"))


def test_the_silence_that_fills_the_last_window_is_not_heard(network: BasicPitch) -> None:
    """A piece of one loudness has that mean and no deviation, wherever it ends."""
    heard = network.hear(np.full(WINDOW * 2 + WINDOW // 3, 0.5, np.float32))
    assert heard.chunks.shape == (1, 880)
    mean, deviation = np.split(heard.mean(), 2)
    # The frame in which it ends is partly silent.
    np.testing.assert_allclose(mean, 0.25, rtol=0.01)
    assert deviation.max() < 0.02


def test_what_changes_deviates(network: BasicPitch) -> None:
    quiet, loud = np.full(WINDOW, 0.1, np.float32), np.full(WINDOW, 0.7, np.float32)
    mean, deviation = np.split(network.hear(np.concatenate([quiet, loud])).mean(), 2)
    np.testing.assert_allclose(mean, (0.01 + 0.49) / 2, rtol=1e-3)
    np.testing.assert_allclose(deviation, 0.24, rtol=1e-3)
