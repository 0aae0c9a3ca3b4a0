"""The command: files, lines and exit codes, as a person meets them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import mido
import pytest
from PIL import Image

from midillm_jax import commands, generate
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import event_diff, read_score
from tests.inference.parts import band_files, untrained

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
    return untrained(tmp_path_factory.mktemp("model"))


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


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piece of the band that has drums."""
    for path in band_files(tmp_path_factory.mktemp("song"), 12):
        if {note.part.program for note in read_notes(read_score(path.read_bytes())).notes} >= {128}:
            return path
    raise AssertionError("no such piece")


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (("continue", "--from", "bar 3", "--seconds", "6"), "continue"),
        (("infill", "--bars", "2-3"), "infill"),
        (("infill", "--between", "1s", "2.5s", "--add", "harp"), "infill"),
        (("accompany", "--add", "harp", "--keep", "drums"), "accompany"),
        (("replace", "--tracks", "drums", "--bars", "2-3", "--velocity", "70", "--candidates", "3"), "replace"),
    ],
)
def test_a_file_gets_new_music(
    model: Path,
    song: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: tuple[str, ...],
    kind: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no fluidsynth there
    before = song.read_bytes()
    run(asked[0], str(song), *asked[1:], "--model", str(model), "--out", str(tmp_path / "out"), "--seed", "2")
    shown = capsys.readouterr()
    line = shown.out.splitlines()[0]
    (written,) = (tmp_path / "out").glob("*.mid")
    assert written.name.endswith(f"-{kind}-seed2-1.mid")
    assert ("3 takes: " in shown.err and "; kept " in shown.err) == ("--candidates" in asked)
    assert line.startswith(f"{written}: from bar ")
    assert " notes new" in line
    assert written.with_suffix(".png").exists()
    assert song.read_bytes() == before
    old, new = read_score(before), read_score(written.read_bytes())
    assert old.ticks_per_beat == new.ticks_per_beat
    if kind == "accompany":
        assert {note.part.program for note in read_notes(new).notes} <= {46, 128}
    if kind == "replace":
        fresh = [change for change in event_diff(old, new) if change.added and change.message[0] & 0xF0 == 0x90]
        assert all(change.message[2] == 70 for change in fresh)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("improvise",), "there is no 'improvise'; name one of new, continue, infill"),
        (("infill", "FILE"), "name the stretch to fill"),
        (("infill", "FILE", "--bars", "900-901"), "is beyond its end"),
        (("infill", "FILE", "--bars", "1-2", "--between", "1s", "2s"), "give one of them"),
        (("continue", "FILE", "--from", "chorus"), "is no place"),
        (("accompany", "FILE", "--add", "spoons"), "'spoons' is no instrument"),
        (("replace", "FILE", "--tracks", "bagpipe"), "has no 'bagpipe'"),
        (("replace", "FILE", "--tracks", "drums", "--quantize", "1/7"), "is no grid"),
        (("replace", "FILE", "--tracks", "drums", "--velocity", "200"), "--velocity 200: expected 1 to 127"),
        (("replace", "FILE", "--tracks", "drums", "--strength", "2"), "--strength 2: expected 0"),
        (
            ("infill", "FILE", "--bars", "2", "--candidates", "1", "--outputs", "3"),
            "--candidates 1: expected 3 or more",
        ),
        (("edit", "FILE", "mute the drums", "--candidates", "2"), "there is no option --candidates"),
        (("continue", "nowhere.mid"), "nowhere.mid"),
        (("continue", __file__), "MThd"),
    ],
)
def test_mistakes_with_a_file_are_said_before_a_model_is_loaded(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], said: str
) -> None:
    given = [str(song) if word == "FILE" else word for word in asked]
    with pytest.raises(SystemExit) as ended:
        run(*given, "--model", "no-model-here", "--out", str(tmp_path / "out"))
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in shown
    assert "no-model-here" not in shown
    assert not (tmp_path / "out").exists()


def test_past_a_window_the_piece_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = json.loads((model / "generation_config.json").read_text())
    never_ends = tmp_path / "model"
    shutil.copytree(model, never_ends)
    (never_ends / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 2}))
    run("new", "--model", str(never_ends), "--seconds", "250", "--programs", "0", "--out", str(tmp_path / "out"))
    (path,) = (tmp_path / "out").glob("*.mid")
    assert 150 < mido.MidiFile(path).length < 262
    assert f"{path}: " in capsys.readouterr().out


def test_a_models_folder_recommends_how_to_sample(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tame = tmp_path / "model"
    shutil.copytree(model, tame)
    config = json.loads((model / "generation_config.json").read_text())
    (tame / "generation_config.json").write_text(json.dumps(config | {"temperature": 0.5, "top_p": 0.3}))
    asked = ("--max-notes", "9", "--seed", "6")
    run("--model", str(tame), "--out", str(tmp_path / "one"), *asked)
    run("--model", str(model), "--out", str(tmp_path / "two"), *asked, "--temperature", "0.5", "--top-p", "0.3")
    run("--model", str(model), "--out", str(tmp_path / "three"), *asked)
    one, two, three = (next((tmp_path / name).glob("*.mid")).read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
    (tame / "generation_config.json").write_text(json.dumps(config | {"top_p": 7}))
    with pytest.raises(SystemExit):
        run("--model", str(tame), "--out", str(tmp_path / "four"))
    assert "generation_config.json: top_p is 7" in capsys.readouterr().err


def test_a_file_is_edited_by_words_without_a_model(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    out = ("--out", str(tmp_path / "out"), "--model", "no-model-here")
    run("edit", str(song), "mute the drums and play everything an octave up in bars 1-2", *out, "--roll", "both")
    shown = capsys.readouterr()
    assert shown.err.splitlines()[:2] == ["all: remove [drums]", "bars 1-2: transpose +12 semitones [all]"]
    (written,) = (tmp_path / "out").glob("*.mid")
    assert shown.out.startswith(f"{written}: all: remove [drums]: ")
    assert written.with_suffix(".png").exists()
    drawn = ElementTree.fromstring(written.with_suffix(".svg").read_text(encoding="utf-8"))
    words = {each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {song.name, "bar", "1"} <= words
    old, new = (read_notes(read_score(path.read_bytes())).notes for path in (song, written))
    assert {note.part.program for note in new} == {note.part.program for note in old} - {128}


def test_a_plan_is_shown_changed_and_done(
    model: Path, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run("edit", str(song), "mute the drums", "--show", "--out", str(tmp_path / "out"))
    shown = capsys.readouterr().out
    assert shown == "all: remove [drums]\n"
    assert not (tmp_path / "out").exists()
    plan = tmp_path / "plan.txt"
    plan.write_text(shown.replace("remove", 'regenerate "wild"') + '# a line for people\nall: add "a harp"\n')
    run("edit", str(song), "--plan", str(plan), "--model", str(model), "--out", str(tmp_path / "out"))
    (written,) = (tmp_path / "out").glob("*.mid")
    old, new = (read_notes(read_score(path.read_bytes())).notes for path in (song, written))
    assert {note.part.program for note in new} <= {note.part.program for note in old} | {46}
    assert any(note.part.program == 46 for note in new)
    kept = [(note.onset, note.pitch) for note in old if note.part.program != 128]
    assert set(kept) <= {(note.onset, note.pitch) for note in new}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((), "say what to change"),
        (("make the chorus louder",), "'chorus' is not understood"),
        (("mute the bagpipe",), "has no 'bagpipe'"),
        (("mute the drums in bars 900-901",), "bars 900-901"),
        (("--plan", "PLAN"), "line 1"),
    ],
)
def test_an_edit_that_cannot_be_done_leaves_nothing(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], said: str
) -> None:
    plan = tmp_path / "plan.txt"
    plan.write_text("all: dance\n")
    given = [str(plan) if word == "PLAN" else word for word in asked]
    with pytest.raises(SystemExit) as ended:
        run("edit", str(song), *given, "--out", str(tmp_path / "out"))
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_of_several_takes_the_best_are_kept_in_the_key_and_tempo_asked_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    given = (
        "--instruments",
        "flute, drums",
        "--key",
        "D major",
        "--tempo",
        "100",
        "--candidates",
        "4",
        "--outputs",
        "2",
    )
    run("--model", str(model), "--out", str(tmp_path / "out"), "--prompt", "A flute.", *given)
    shown = capsys.readouterr()
    assert "4 takes: " in shown.err
    assert "kept " in shown.err
    files = sorted((tmp_path / "out").glob("*.mid"))
    assert len(files) == 2
    for path in files:
        notes = read_notes(read_score(path.read_bytes())).notes
        assert {note.part.program for note in notes} <= {73, 128}
    assert "no beat is heard" in shown.out or "to 100 bpm" in shown.out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--key", "H major"), "'H major' is no key"),
        (("--tempo", "1000"), "--tempo 1000: expected 20 to 400"),
        (("--candidates", "1", "--outputs", "2"), "--candidates 1: expected 2 or more"),
        (("--instruments", "spoons"), "'spoons' is no instrument"),
        (("--guidance", "99"), "guidance is 99"),
    ],
)
def test_mistakes_with_a_new_piece_are_said_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*asked, "--model", "no-model-here", "--out", str(tmp_path / "out"))
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "no-model-here" not in shown
