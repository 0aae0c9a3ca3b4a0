"""Samples of live weights: the music that ``generate`` would write of them, wherever they lie, compiled but once."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from midillm_jax import config as configs
from midillm_jax.config import Config, FinetuneConfig, MeshConfig, SamplesConfig
from midillm_jax.errors import UserError
from midillm_jax.inference.compose import compose, load_model
from midillm_jax.inference.request import MusicRequest
from midillm_jax.model import finetune, hf_write, sharding
from midillm_jax.model.llama import Params
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.render import find_soundfont
from midillm_jax.music.signatures import signatures
from midillm_jax.text.tokenizer import load_tokenizer
from midillm_jax.training.board import Board
from midillm_jax.training.samples import Sample, Samples, shares
from midillm_jax.training.step import Training, make_training
from midillm_jax.training.weights import fresh_state

PROMPTS = ("", "A calm waltz.", "A fast march with drums.")
SHARES = ("valid_share", "looping_share", "flooded_share", "empty_share")
PROGRAM = """
import json, sys
from pathlib import Path
from midillm_jax import config as configs
from midillm_jax.model import sharding
from midillm_jax.training import hosts
from midillm_jax.training.board import Board
from midillm_jax.training.samples import Samples
from midillm_jax.training.step import make_training
from midillm_jax.training.weights import fresh_state

with hosts.joined():
    run = configs.from_json(Path(sys.argv[1]).read_text(), "run")
    training = make_training(run, sharding.make_mesh(run.mesh))
    params = fresh_state(training)["params"]
    samples = Samples(training, Path(run.folder))
    print(json.dumps([samples.write(step, params, None, print) for step in (0, 5)]))
"""


@pytest.fixture
def sampled(run: Config) -> Config:
    """The run of the room's tests with three prompts."""
    return dataclasses.replace(
        run, samples=SamplesConfig(every_steps=4, prompts=PROMPTS, max_seconds=20.0, max_notes=16)
    )


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without FluidSynth."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def said() -> list[str]:
    return []


def training_of(run: Config) -> Training:
    return make_training(run, sharding.make_mesh(run.mesh, jax.devices()[:1]))


def params_of(training: Training) -> Params:
    params: Params = fresh_state(training)["params"]
    return params


def midis(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.mid"))]


def silent(sentence: str) -> None:
    assert "FluidSynth" in sentence


def test_a_finetuning_sounds_as_its_merged_weights(sampled: Config, tmp_path: Path, mute: None) -> None:
    changes = FinetuneConfig(lora_rank=4, lora_alpha=8.0)
    plain = dataclasses.replace(sampled, compute_dtype="float32", init_from="unused")
    tuned = training_of(dataclasses.replace(plain, finetune=changes))
    trained, frozen = finetune.split(tuned.definition.init(jax.random.key(0)), changes)
    params = finetune.join(jax.tree.map(lambda leaf: leaf + 0.02, trained), frozen)
    merged = finetune.merged(params, changes)
    without = finetune.merged(finetune.join(jax.tree.map(np.zeros_like, trained), frozen), changes)
    for name, training, weights in (
        ("adapted", tuned, params),
        ("merged", training_of(plain), merged),
        ("frozen", training_of(plain), without),
    ):
        Samples(training, tmp_path / name).write(0, jax.tree.map(jax.numpy.asarray, weights), None, silent)
    adapted, *others = (midis(tmp_path / name / "samples" / "0") for name in ("adapted", "merged", "frozen"))
    assert [adapted == other for other in others] == [True, False]


def test_every_prompt_gives_music_and_figures(sampled: Config, mute: None, said: list[str]) -> None:
    training, folder = training_of(sampled), Path(sampled.folder)
    figures = Samples(training, folder).write(4, params_of(training), None, said.append)
    assert tuple(figures) == SHARES
    assert figures["valid_share"] == 1
    assert [path.name for path in (folder / "samples").iterdir()] == ["4"]
    names = sorted(path.name for path in (folder / "samples" / "4").iterdir())
    assert names == [f"{number:02d}{ending}" for number in range(3) for ending in (".mid", ".png")] + ["samples.json"]
    document = json.loads((folder / "samples" / "4" / "samples.json").read_text())
    assert (document["step"], document["figures"]) == (4, figures)
    assert [piece["prompt"] for piece in document["pieces"]] == list(PROMPTS)
    for midi, piece in zip(midis(folder / "samples" / "4"), document["pieces"], strict=True):
        table = read_midi(midi)
        assert 1 <= len(table) == piece["notes"] <= 16
        assert table.onsets.max() < 2_000
        # Read back, a note of no length has got a tick.
        found = dataclasses.asdict(signatures(table))
        assert found["most_together"] == piece["most_together"]
        assert found["longest_silence"] == pytest.approx(piece["longest_silence"], abs=0.011)
    assert figures["empty_share"] == np.mean([piece["empty"] for piece in document["pieces"]])
    assert len(said) == 1
    assert "FluidSynth" in said[0]


def test_the_music_is_what_generate_writes_of_an_export(sampled: Config, mute: None, tmp_path: Path) -> None:
    training = training_of(sampled)
    params = params_of(training)
    Samples(training, Path(sampled.folder)).write(0, params, None, silent)
    tokenizer = load_tokenizer(sampled.data.tokenizer)
    model = load_model(hf_write.write_hf(tmp_path / "model", sampled.model, params, tokenizer, trained_with=sampled))
    for number, (prompt, midi) in enumerate(zip(PROMPTS, midis(Path(sampled.folder) / "samples" / "0"), strict=True)):
        request = MusicRequest(prompt or None, seed=number, max_notes=16, max_seconds=20.0)
        assert compose(model, request).pieces[0].midi == midi


def test_a_step_is_compared_with_the_one_before(sampled: Config, mute: None) -> None:
    """The same weights give the same music; others, other music, and nothing is compiled again."""
    training, folder = training_of(sampled), Path(sampled.folder)
    samples, params = Samples(training, folder), params_of(training)
    samples.write(0, params, None, silent)
    other = jax.tree.map(lambda leaf: leaf * 1.5, params)
    compiled: list[str] = []

    def heard(event: str, seconds: float, **_: object) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)
    samples.write(4, params, None, silent)
    samples.write(8, other, None, silent)
    assert not compiled
    jax.jit(lambda x: x * 3 + 1)(np.arange(7))
    assert compiled, "the listener hears what is compiled"
    before, same, changed = (midis(folder / "samples" / step) for step in ("0", "4", "8"))
    assert before == same
    assert before != changed


def test_a_lower_compute_type_is_that_of_training(sampled: Config, mute: None) -> None:
    run = dataclasses.replace(sampled, compute_dtype="bfloat16")
    training = training_of(run)
    figures = Samples(training, Path(run.folder)).write(0, params_of(training), None, silent)
    assert figures["valid_share"] == 1


def test_tensorboard_gets_a_picture_a_prompt(sampled: Config, mute: None, tmp_path: Path) -> None:
    training = training_of(sampled)
    samples, params = Samples(training, Path(sampled.folder)), params_of(training)
    board = Board(tmp_path / "board", 0)
    for step in (0, 4):
        samples.write(step, params, board, silent)
    assert board.flush() is None
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0}).Reload()
    assert len(events.Tags()["images"]) == 3
    for number, tag in enumerate(sorted(events.Tags()["images"])):
        shown = events.Images(tag)
        assert [image.step for image in shown] == [0, 4]
        with Image.open(Path(sampled.folder) / "samples" / "4" / f"{number:02d}.png") as picture:
            assert (shown[1].width, shown[1].height) == picture.size


def test_tensorboard_gets_the_sound(sampled: Config, tmp_path: Path, said: list[str]) -> None:
    if shutil.which("fluidsynth") is None or find_soundfont() is None:
        pytest.skip("fluidsynth or a soundfont is not installed")
    soundfile = pytest.importorskip("soundfile", reason="soundfile, which encodes what fluidsynth plays, is missing")
    run = dataclasses.replace(sampled, samples=dataclasses.replace(sampled.samples, prompts=("A calm waltz.",)))
    training = training_of(run)
    board = Board(tmp_path / "board", 0)
    Samples(training, Path(run.folder)).write(3, params_of(training), board, said.append)
    assert board.flush() is None
    assert not said
    frames, rate = soundfile.read(Path(run.folder) / "samples" / "3" / "00.flac")
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"audio": 0}).Reload()
    (tag,) = events.Tags()["audio"]
    (sound,) = events.Audio(tag)
    assert (sound.step, sound.sample_rate) == (3, 22_050)
    assert sound.length_frames / sound.sample_rate == pytest.approx(len(frames) / rate, abs=0.01)


def test_what_cannot_be_written_is_said_and_training_goes_on(sampled: Config, mute: None, said: list[str]) -> None:
    folder = Path(sampled.folder)
    folder.mkdir()
    (folder / "samples").write_text("in the way")
    training = training_of(sampled)
    figures = Samples(training, folder).write(4, params_of(training), None, said.append)
    assert figures["valid_share"] == 1
    assert len(said) == 1
    assert "samples" in said[0]
    assert "could not be written" in said[0]


def test_what_an_interrupted_run_left_is_replaced(sampled: Config, mute: None) -> None:
    folder = Path(sampled.folder)
    for name in ("4", "4.partial"):
        (folder / "samples" / name).mkdir(parents=True)
        (folder / "samples" / name / "old.mid").write_text("")
    training = training_of(sampled)
    Samples(training, folder).write(4, params_of(training), None, silent)
    assert [path.name for path in (folder / "samples").iterdir()] == ["4"]
    assert not (folder / "samples" / "4" / "old.mid").exists()


@pytest.mark.parametrize(("every", "steps"), [(0, []), (4, [0, 4, 6]), (3, [0, 3, 6])])
def test_when_samples_are_due(sampled: Config, every: int, steps: list[int]) -> None:
    run = dataclasses.replace(sampled, samples=dataclasses.replace(sampled.samples, every_steps=every))
    samples = Samples(training_of(run), Path(run.folder))
    assert [step for step in range(7) if samples.due(step)] == steps


def test_a_prompt_without_room_is_refused_before_training(sampled: Config) -> None:
    run = dataclasses.replace(sampled, samples=dataclasses.replace(sampled.samples, prompts=("", "drums " * 200)))
    with pytest.raises(UserError, match=r"samples.prompts.1: the prompt takes \d+ tokens, .* holds 192"):
        Samples(training_of(run), Path(run.folder))


def test_shares_are_of_all_samples() -> None:
    def sample(onsets: np.ndarray, notes: np.ndarray, *, valid: bool = True) -> Sample:
        whole = np.full(len(onsets), 20, np.int32)
        table = NoteTable(onsets.astype(np.int32), whole, notes.astype(np.int32), np.full(len(onsets), 72, np.uint8))
        return Sample("", valid, table, signatures(table))

    tune = np.random.default_rng(0).integers(40, 80, 120)
    found = shares(
        [
            sample(25 * np.arange(120), tune),
            sample(25 * np.arange(120), np.tile(tune[:8], 15)),
            sample(25 * np.arange(120), np.tile(tune[:8], 15), valid=False),
            sample(np.arange(120) // 60 * 1_000, np.arange(120)),
        ]
    )
    assert found == {"valid_share": 0.75, "looping_share": 0.5, "flooded_share": 0.25, "empty_share": 0.25}


def ended(run: Config, folder: Path, processes: int) -> list[str]:
    """What PROGRAM prints in each of so many processes, which share four devices."""
    config = folder / "run.json"
    config.write_text(configs.to_json(run))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "PATH": "",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // processes}",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(processes),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(config)],
            env=shared | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    printed = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, printed
    return [text.splitlines()[-1] for text in printed]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_weights_on_many_devices_give_the_same_music(
    sampled: Config, mute: None, tmp_path: Path, processes: int
) -> None:
    """Split over four devices, of one process or of two, of which the first writes and has the figures."""
    training = training_of(sampled)
    figures = Samples(training, tmp_path / "one").write(0, params_of(training), None, silent)
    printed = ended(dataclasses.replace(sampled, mesh=MeshConfig(fsdp=2, tensor=2)), tmp_path, processes)
    assert json.loads(printed[0]) == [figures, figures]
    assert all(json.loads(text) == [{}, {}] for text in printed[1:])
    for step in ("0", "5"):
        assert midis(Path(sampled.folder) / "samples" / step) == midis(tmp_path / "one" / "samples" / "0")
