"""The command: files, lines and exit codes, as a person meets them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import mido
import pytest
from PIL import Image

from midillm_jax import commands, generate
from midillm_jax.config import ModelConfig
from midillm_jax.model.hf_write import write_hf
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.text.tokenizer import train_sentencepiece

BLOCKED = ("array_record", "grain", "numba", "orbax", "tensorboard", "tensorboardX", "tensorstore")
"""The [train] extra: generation works where it is not installed. (optax is not among them: flax itself needs it.)"""

_RUN_BLOCKED = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
from midillm_jax import commands, generate
commands.run(generate.main)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("model")
    config = ModelConfig(
        text_vocab_size=300,
        d_model=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        d_ff=64,
        context_length=512,
        rope_theta=1000.0,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
    )
    words = [f"a {colour} {thing} plays" for colour in ("warm", "cold", "bright") for thing in ("drum", "horn", "lute")]
    tokenizer = train_sentencepiece(words, base / "words.model", 300)
    return write_hf(base / "export", config, Definition(config, INFERENCE).init(jax.random.key(0)), tokenizer)


def arguments(model: Path, out: Path, *more: str) -> list[str]:
    return ["--model", str(model), "--prompt", "A warm, bright drum!", "--outputs", "2", "--out", str(out), *more]


def run(*given: str) -> None:
    commands.run(generate.main, given)


def test_without_the_train_extra_it_writes_what_it_says(model: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "MIDILLM_SOUNDFONT"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN_BLOCKED, *arguments(model, tmp_path / "out")],
        env=environment | {"PATH": str(tmp_path)},  # no fluidsynth there
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *pieces, sound = done.stdout.splitlines()
    assert "FluidSynth" in sound
    assert "install" in sound
    names = [f"a-warm-bright-drum-seed0-{number}" for number in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}{ending}" for name in names for ending in (".mid", ".png")
    )
    for line, name in zip(pieces, names, strict=True):
        path = tmp_path / "out" / f"{name}.mid"
        notes = sum(message.type == "note_on" for message in mido.MidiFile(path))
        assert line.startswith(f"{path}: {notes} notes, ")
        assert " tokens/s" in line
        with Image.open(path.with_suffix(".png")) as picture:
            assert min(picture.size) > 100


def test_the_same_seed_writes_the_same_bytes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for folder, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        run(*arguments(model, tmp_path / folder, "--seed", seed, "--max-notes", "20"))
    first, second, other = (
        [path.read_bytes() for path in sorted((tmp_path / folder).glob("*.mid"))] for folder in ("one", "two", "three")
    )
    assert len(first) == 2
    assert first == second
    assert first[0] != first[1]
    assert first != other
    pictures = [[path.read_bytes() for path in sorted((tmp_path / folder).glob("*.png"))] for folder in ("one", "two")]
    assert pictures[0] == pictures[1]
    assert capsys.readouterr().out.count("FluidSynth") == 3, "one line a run"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--model", "nowhere"), "nowhere: no such folder"),
        (("--top-p", "1.5"), "top_p is 1.5"),
        (("--outputs", "0"), "outputs is 0"),
        (("--programs", "200"), "programs holds 200"),
        (("--prompt", "drum " * 600), "a sequence of this model holds 512"),
        (("--out", __file__), "cannot be made"),
    ],
)
def test_mistakes_end_with_one_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments(model, tmp_path / "out"), *more)
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert said in shown.err
    assert len([line for line in shown.err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in shown.err
    assert not list(tmp_path.rglob("*.mid"))


def text(*given: str, blocked: bool = False) -> "subprocess.CompletedProcess[str]":
    program = ["-c", _RUN_BLOCKED] if blocked else ["-m", "midillm_jax.generate"]
    return subprocess.run(
        [sys.executable, *program, "text", *given], capture_output=True, text=True, timeout=300, check=False
    )


def test_it_goes_on_with_a_text(model: Path) -> None:
    given = ("--model", str(model), "--prompt", "a warm drum", "--max-tokens", "30", "--temperature", "0.8")
    given += ("--top-p", "0.95", "--seed", "5")
    first = text(*given, blocked=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith("\n")
    assert len(first.stdout) > 5
    assert not first.stdout.startswith("a warm drum")
    assert "30 tokens, " in first.stderr.splitlines()[-1]
    assert text(*given).stdout == first.stdout
    long = text(*given[:4], "--max-tokens", "600")
    assert long.returncode == 2
    assert long.stderr.splitlines()[-1].startswith("error: the prompt takes ")
    assert not long.stdout
    unknown = text(*given, "--max-notes", "4")
    assert unknown.returncode == 2
    assert "there is no option --max-notes" in unknown.stderr
