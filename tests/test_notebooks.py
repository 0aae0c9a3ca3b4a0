"""The notebooks: they run as they stand, what they show comes from what they say, and they install themselves."""

import base64
import functools
import importlib.util
import io
import json
import re
import shlex
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import soundfile
from IPython.core.inputtransformer2 import TransformerManager

from midillm_jax import commands, config_check, export, prepare, train
from midillm_jax.composing import options
from midillm_jax.inference import compose
from notebooks import execute
from tests.model import hub_server

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = "slseanwu/MIDI-LLM_Llama-3.2-1B"
TASKS = ("generate", "infill_and_edit", "train_tiny", "evaluate", "tpu")

_TINY = (
    "--steps 2 --model.num-layers 1 --model.d-model 32 --model.d-ff 64 --data.row-length 128 --eval.batches 1 "
    "--optimizer.warmup-steps 1 --loss.kind full"
)
LESS = {
    "midillm_jax.generate --prompt": "--candidates 2 --outputs 1 --max-notes 12",
    "midillm_jax.generate --model": "--max-notes 12",
    "--bars 9-12": "--bars 9-9",
    "--bars 1-8": "--bars 1-1",
    "prepare demo --out demo/": "--pieces 40",
    "prepare demo --out my_band": "--pieces 20",
    "prepare demo --out unseen": "--pieces 16",
    "prepare pairs": "--workers 1",
    "prepare midi": "--workers 1",
    "prepare text": "--workers 1",
    # Both stages have rows of one shape, so that the second finds its step compiled.
    "demo_stage1.py": f"{_TINY} --data.music-rows 2 --data.text-rows 2 --data.streams 2",
    "demo_stage2.py": f"{_TINY} --data.music-rows 4",
    "midillm_jax.evaluate --model": "--pieces 2 --max-notes 12",
    # Text alone on the smallest table: most of what libtpu's time goes to is left out.
    "--compile-only": "--model.num-layers 1 --model.d-model 128 --model.num-heads 2 --model.num-kv-heads 1 "
    "--model.d-ff 256 --model.text-vocab-size 512 --model.music-vocab-size 0 --finetune.no-music-rows "
    "--data.row-length 128 --data.text-rows 8 --data.music-rows 0 --attention dot --remat none",
}
"""Words of a command -> options that keep it short."""
LEFT = {
    "generate": ("music/published/*.mid",),
    "infill_and_edit": ("changed/song-infill-*.mid", "changed/song-accompany-*-edit-*.mid"),
    "train_tiny": ("demo/model/model.safetensors", "my/model/model.safetensors", "my/music/*.mid"),
    "evaluate": ("report/results.json", "report_real/results.json"),
    "tpu": ("plan_1.json", "plan_8.json", "my/pairs"),
}
"""What a notebook has made once it has run."""


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def said(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")


def test_there_is_one_for_each_task() -> None:
    assert set(execute.NOTEBOOKS) == set(TASKS)
    readme = (ROOT / "README.md").read_text()
    for name in TASKS:
        assert f"](notebooks/{name}.ipynb)" in readme


@pytest.mark.parametrize("name", TASKS)
def test_it_is_short_and_begins_with_its_installation(name: str) -> None:
    notebook = execute.read(name)
    nbformat.validate(notebook)
    code = code_of(notebook)
    lines = [line for cell in code for line in cell.source.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    assert len(lines) < 90
    assert "%pip install" in code[0].source
    assert code[1].source == code_of(execute.read("generate"))[1].source, "its helpers are not those of the others"


@pytest.mark.parametrize("name", TASKS)
def test_what_it_shows_comes_from_what_it_says(name: str) -> None:
    notebook = execute.read(name)
    assert notebook.metadata[execute.EXECUTED] == execute.digest(notebook), f"python notebooks/execute.py {name}"
    code = code_of(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(map(pictures, code)) >= 1


@pytest.mark.parametrize("name", TASKS)
def test_what_it_shows_is_small_and_names_no_machine(name: str) -> None:
    path = execute.FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 1 << 20
    for cell in code_of(execute.read(name)):
        for output in cell.outputs:
            assert output.output_type != "error"
            data = output.get("data", {})
            text = json.dumps([value for kind, value in data.items() if kind != "image/png"] + [output.get("text", "")])
            assert not re.search(r"(?<![\w.:/-])/(home|root|tmp|work|usr|opt|Users|var|mnt|content)/", text)
            assert str(ROOT) not in text
            assert tempfile.gettempdir() not in text
            assert "Traceback" not in text
            for sound in re.findall(r"data:audio/[^,]+,([^\"]+)", data.get("text/html", "")):
                assert len(base64.b64decode(sound)) <= 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_it_runs(name: str, tmp_path: Path) -> None:
    if name == "tpu":
        pytest.importorskip("libtpu", reason="libtpu is not installed")
    home, folder = tmp_path / "home", tmp_path / "here"
    folder.mkdir()
    # On this Hub the model in the box has the published one's name.
    files = {path.name: path.read_bytes() for path in compose.bundled_model().iterdir()}
    with hub_server.running({PUBLISHED: files}) as hub:
        hugging_face = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        ran = execute.execute(name, folder, {"MIDILLM_NOTEBOOK": json.dumps(LESS), **hugging_face})
    for pattern in LEFT[name]:
        assert list(folder.glob(pattern)), pattern
    for cell, stored in zip(code_of(ran), code_of(execute.read(name)), strict=True):
        assert (pictures(cell) > 0) >= (pictures(stored) > 0), cell.source
    nbformat.validate(execute.kept(ran))


class Shell:
    """What IPython's magic commands call, as far as the cells use them; nothing is installed."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.names: dict[str, Any] = {}

    def run_line_magic(self, name: str, line: str, *_: object, **__: object) -> None:
        self.asked.append(f"{name} {line}".format(**self.names))

    def system(self, line: str) -> None:
        self.asked.append(line)

    def run(self, source: str) -> None:
        self.names["get_ipython"] = lambda: self
        exec(TransformerManager().transform_cell(source), self.names)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "midillm_jax" else found(name))
    monkeypatch.setenv("PATH", "")


@pytest.mark.parametrize("name", TASKS)
def test_the_first_cell_does_nothing_where_all_is_there(name: str) -> None:
    shell = Shell()
    shell.run(code_of(execute.read(name))[0].source)
    assert shell.asked == []


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("name", TASKS)
def test_the_first_cell_installs_what_the_notebook_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    source, shell = code_of(execute.read(name))[0].source, Shell()
    with pytest.raises(RuntimeError, match="REPOSITORY"):
        shell.run(source)
    assert shell.asked == []
    shell.run(source.replace('REPOSITORY = ""', 'REPOSITORY = "git+https://host.example/owner/midillm_jax"'))
    package, audio = shell.asked
    requirement = re.fullmatch(r'pip install --quiet "midillm_jax\[(.+)\] @ git\+https://host.example/.+"', package)
    assert requirement is not None, package
    needed = {"generate": {"audio"}, "infill_and_edit": {"audio"}, "tpu": {"train", "audio", "tpu"}}
    assert set(requirement[1].split(",")) == needed.get(name, {"train", "audio"})
    assert "fluidsynth fluid-soundfont-gm" in audio


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the second cell defines."""
    monkeypatch.setenv("MIDILLM_NOTEBOOK", json.dumps({"print": "'b.mid: more'"}))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook's kernel sets it; undone afterwards
    shell = Shell()
    for cell in code_of(execute.read("generate"))[:2]:
        shell.run(cell.source)
    return shell.names


def test_a_command_gives_the_pieces_that_it_wrote(helpers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('my a.mid: 3 notes, c.mid'); print(sys.argv[-1])"
    assert helpers["python"](f'-c "{code}"') == ["my a.mid", "b.mid"]
    assert capsys.readouterr().out.splitlines()[1:] == ["my a.mid: 3 notes, c.mid", "b.mid: more"]
    assert helpers["python"]("-c 1") is None


def test_a_command_that_fails_stops_the_notebook(helpers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="the command failed"):
        helpers["python"]("-m midillm_jax.generate nothing")
    assert "error: " in capsys.readouterr().out.splitlines()[-1]


def accept(command: str) -> None:
    """Parses a command of ours as it would be when it runs.

    Raises:
        UserError: it would be refused.
    """
    flag, module, *arguments = shlex.split(command)
    assert flag == "-m"
    assert importlib.util.find_spec(module), module
    if module == "midillm_jax.train":
        option, config, *overrides = arguments
        assert option == "--config"
        config_check.check(train.resolve(config, overrides))
    elif module == "midillm_jax.export":
        commands.parse(export.Arguments, arguments, prog="export", description=None)
    elif module == "midillm_jax.generate":
        commands.parse(options.New, arguments, prog="generate", description=None)
    elif module == "midillm_jax.prepare":
        prepare.main(arguments)
    else:
        assert (module, arguments[0]) == ("huggingface_hub.cli.hf", "download")


@pytest.mark.parametrize("chips", [1, 4, 8])
def test_what_it_would_do_on_a_tpu_is_what_the_commands_take(chips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No TPU is at hand: the cells run with one pretended, and their commands are parsed and not carried out."""

    def parsed(subcommand: Any) -> Any:
        return functools.wraps(subcommand)(lambda *_, **__: None)

    monkeypatch.setattr(prepare, "SUBCOMMANDS", {name: parsed(each) for name, each in prepare.SUBCOMMANDS.items()})
    shell, ran = Shell(), []
    install, _, *cells = (cell.source for cell in code_of(execute.read("tpu")))
    shell.run(install)
    found = types.SimpleNamespace(returncode=0, stdout=f"{chips}\n", stderr="")
    shell.names |= {
        "subprocess": types.SimpleNamespace(run=lambda *_, **__: found),
        "python": ran.append,
        "show": lambda pieces: None,
    }
    for source in cells:
        if not source.startswith("%%"):
            shell.run(source)
    for command in ran:
        accept(command)
    text = "\n".join(ran)
    assert "--compile-only" not in text
    steps = [text.index(word) for word in ("prepare pairs", "hf download", "train --config", "export", "generate")]
    assert steps == sorted(steps)
    assert ("--optimizer.accumulation-steps 1" in text) == (chips > 1)


def test_sounds_are_kept_short() -> None:
    seconds = np.arange(30 * 44_100) / 44_100
    played, kept = io.BytesIO(), nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    soundfile.write(played, np.stack([np.sin(2764 * seconds), 0 * seconds], axis=1), 44_100, format="FLAC")
    html = f'<audio><source src="data:audio/flac;base64,{base64.b64encode(played.getvalue()).decode()}" /></audio>'
    kept.cells[0].outputs = [nbformat.v4.new_output("display_data", {"text/html": html})]
    (output,) = execute.kept(kept).cells[0].outputs
    found = re.fullmatch(r'<audio><source src="data:audio/mpeg;base64,(.+)" /></audio>', output.data["text/html"])
    assert found is not None
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found[1])))
    assert len(samples) / rate == pytest.approx(24, abs=0.2)
    assert len(base64.b64decode(found[1])) < 100_000
    # The tone is the one that was played, at its pitch.
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(2764 / (2 * np.pi), abs=1)
