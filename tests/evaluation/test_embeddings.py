"""Networks by name, from files of each kind, against what numpy makes of the same numbers."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from midillm_jax.errors import UserError
from midillm_jax.evaluation import embeddings
from midillm_jax.evaluation.networks import cut
from tests.evaluation.tiny_networks import samples_to_vectors, write_onnx

RATE, SECONDS = 2_000, 0.5
FRAMES = round(RATE * SECONDS)


def named(kind: str, path: Path) -> str:
    return f"{kind}:{path},rate={RATE},seconds={SECONDS}"


def test_the_last_chunk_is_repeated_and_counts_by_its_length() -> None:
    chunks, weights = cut(np.arange(10, dtype=np.float32), 4)
    assert chunks.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]]
    assert weights.tolist() == [0.4, 0.4, 0.2]
    short, whole = cut(np.array([1, 2, 3], np.float32), 7)
    assert short.tolist() == [[1, 2, 3, 1, 2, 3, 1]]
    assert whole.tolist() == [1.0]


def test_an_onnx_network_hears_all_of_a_piece(tmp_path: Path) -> None:
    """Twenty chunks and a half, more than are run at once."""
    matrix = samples_to_vectors(tmp_path / "n.onnx", FRAMES, 6)
    samples = np.random.default_rng(1).normal(size=FRAMES * 20 + FRAMES // 2).astype(np.float32)
    heard = embeddings.load(named("onnx", tmp_path / "n.onnx")).hear(samples)
    assert heard.chunks.shape == (21, 6)
    np.testing.assert_allclose(heard.chunks[3], samples[3 * FRAMES : 4 * FRAMES] @ matrix, rtol=1e-4, atol=1e-4)
    whole = sum(samples[n * FRAMES : (n + 1) * FRAMES] @ matrix for n in range(20))
    tail = np.concatenate([samples[-FRAMES // 2 :]] * 2) @ matrix
    np.testing.assert_allclose(heard.mean(), (whole + tail / 2) / 20.5, rtol=1e-3, atol=1e-4)


def test_frames_of_a_chunk_are_averaged(tmp_path: Path) -> None:
    reshape = helper.make_node("Reshape", ["x", "sizes"], ["y0"])
    path = write_onnx(tmp_path / "n.onnx", [reshape], ["b", FRAMES], 1, sizes=np.array([0, FRAMES // 10, 10]))
    samples = np.arange(FRAMES, dtype=np.float32)
    heard = embeddings.load(named("onnx", path)).hear(samples)
    np.testing.assert_allclose(heard.mean(), samples.reshape(-1, 10).mean(0), rtol=1e-5)


def test_torchscript_is_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0], 2, -1).mean(-1)

    path = tmp_path / "n.pt"
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.script(Halves()).save(path)
    samples = np.arange(FRAMES, dtype=np.float32)
    network = embeddings.load(named("torch", path))
    assert network.hear(samples).mean().tolist() == pytest.approx([(FRAMES / 2 - 1) / 2, (FRAMES * 1.5 - 1) / 2])
    assert network.name == "torch:n.pt"


def test_the_protocol_is_of_the_weights_and_not_of_the_place(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        samples_to_vectors(tmp_path / name / "n.onnx", FRAMES, 4, seed)
    one, same, other = (embeddings.load(named("onnx", tmp_path / name / "n.onnx")) for name in "abc")
    assert one.protocol() == same.protocol()
    assert one.name == other.name == "onnx:n.onnx"
    assert one.protocol()["weights"] != other.protocol()["weights"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vggish", r"--embedding vggish: no such network; expected one of clap:CHECKPOINT, musicnn"),
        ("clap:", "no such network"),
        ("musicnn:", "no such network"),
        ("onnx:n.onnx", "expected onnx:FILE,rate=HERTZ,seconds=LENGTH"),
        ("onnx:n.onnx,rate=16000,seconds=1,hop=3", "expected onnx:FILE,rate=HERTZ"),
        ("onnx:n.onnx,rate=16000,seconds=none", "expected onnx:FILE,rate=HERTZ"),
        ("onnx:nowhere.onnx,rate=16000,seconds=1", "nowhere.onnx cannot be read"),
        ("musicnn:nowhere.onnx", r"no nowhere\.onnx with its tags in nowhere\.json; `python launch/musicnn\.py`"),
        ("basic-pitch:nowhere.onnx", "pip install --no-deps basic-pitch==0.4.0"),
    ],
)
def test_what_is_not_there_is_said_with_its_remedy(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        embeddings.load(name)


def test_a_file_that_is_no_network_or_takes_other_chunks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match="no ONNX network that can be run"):
        embeddings.load(named("onnx", tmp_path / "n.onnx"))
    samples_to_vectors(tmp_path / "n.onnx", FRAMES - 1, 4)
    network = embeddings.load(named("onnx", tmp_path / "n.onnx"))
    with pytest.raises(UserError, match=rf"onnx:n\.onnx: given samples of shape \[1, {FRAMES}\], the network refused"):
        network.hear(np.zeros(FRAMES, np.float32))


def test_a_pickled_module_is_not_loaded(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "n.pt")
    with pytest.raises(UserError, match="no TorchScript"):
        embeddings.load(named("torch", tmp_path / "n.pt"))
