"""musicnn's spectrogram against sounds whose bands are known, and its tags; the network itself is a tiny one."""

from pathlib import Path

import numpy as np
import pytest

from midillm_jax.evaluation.musicnn import FRAMES, Musicnn
from tests.evaluation.tiny_networks import tagger

RATE = 16_000


@pytest.fixture
def network(tmp_path: Path) -> Musicnn:
    return Musicnn(tagger(tmp_path / "n.onnx", ["rock", "jazz", "slow"]))


def tone(hertz: float, seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def slaney_mel(hertz: float) -> float:
    """Linear up to 1 kHz, then logarithmic (M. Slaney, "Auditory Toolbox", 1998)."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


@pytest.mark.parametrize("hertz", [440.0, 1_500.0, 6_000.0])
def test_a_tone_is_in_its_band(network: Musicnn, hertz: float) -> None:
    bands = network.spectrogram(tone(hertz, 1.0))
    assert bands.shape == (1 + RATE // 256, 96)
    expected = slaney_mel(hertz) / slaney_mel(RATE / 2) * 97 - 1
    assert abs(int(bands[30].argmax()) - expected) <= 1


def test_loudness_is_logarithmic_and_silence_is_nothing(network: Musicnn) -> None:
    loud, quiet = (network.spectrogram(gain * tone(1_000, 1.0))[30].max() for gain in (1.0, 0.1))
    assert loud - quiet == pytest.approx(2, abs=0.02)
    assert not network.spectrogram(np.zeros(RATE, np.float32)).any()


def test_a_piece_is_heard_to_its_end(network: Musicnn) -> None:
    """Three seconds of a low tone and one of a high one: the last patch counts by its frames."""
    low, high = tone(300, 3.0), tone(3_000, 1.0)
    heard = network.hear(np.concatenate([low, high]))
    assert heard.chunks.shape == (2, 96)
    frames = 1 + 4 * RATE // 256
    assert heard.weights.tolist() == pytest.approx([FRAMES / frames, 1 - FRAMES / frames])
    assert heard.tags is not None
    assert heard.tags.shape == (2, 3)
    np.testing.assert_allclose(heard.tags, 1 / (1 + np.exp(-heard.chunks[:, :3])), rtol=1e-5)
    assert network.tags == ("rock", "jazz", "slow")
    assert heard.chunks[0].argmax() < heard.chunks[1].argmax()
