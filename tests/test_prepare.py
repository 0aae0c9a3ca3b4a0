"""The command as a person calls it: in this process where its work is of interest, in its own for exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from midillm_jax import prepare
from midillm_jax.data.shards import open_split, read_manifest, unpack_piece, unpack_text
from midillm_jax.errors import UserError
from midillm_jax.text.tokenizer import load_tokenizer


def call(*arguments: object) -> None:
    prepare.main([str(argument) for argument in arguments])


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "midillm_jax.prepare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def band(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 made-up pieces with captions and 12 texts."""
    folder = tmp_path_factory.mktemp("prepare") / "band"
    call("demo", "--out", folder, "--pieces", 12, "--seed", 3, "--profile", "small")
    return folder


def test_from_files_to_shards(band: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: every subcommand, each on what the one before wrote."""
    call("midi", "--input", band, "--out", tmp_path / "midi", "--validation-share", 0.3, "--workers", 1)
    call("pairs", "--input", band, "--out", tmp_path / "pairs", "--validation-share", 0.3, "--workers", 1)
    music, paired = read_manifest(tmp_path / "midi"), read_manifest(tmp_path / "pairs")
    assert (music.kind, paired.kind) == ("midi", "pairs")
    assert sum(split.records for split in music.splits.values()) == 12
    # A piece falls on the same side whether its captions are read or not.
    assert music.splits["train"].lengths == paired.splits["train"].lengths
    rows = [json.loads(line) for line in (band / "captions.jsonl").read_text().splitlines()]
    wanted = {row["location"]: row["caption"] for row in rows}
    reader = open_split(tmp_path / "pairs", "train")
    for i in range(len(reader)):
        piece = unpack_piece(reader[i])
        caption = wanted[piece.name]
        assert list(piece.captions) == ([caption] if isinstance(caption, str) else caption)

    call("caption", "--input", band, "--out", tmp_path / "own" / "captions.jsonl")
    call("pairs", "--input", tmp_path / "own", "--out", tmp_path / "own-pairs", "--workers", 1)
    own = read_manifest(tmp_path / "own-pairs")
    assert sum(split.records for split in own.splits.values()) == 12
    assert own.rejected == ()

    model = tmp_path / "text.model"
    call("tokenizer", "--input", band / "text", "--vocab-size", 400, "--out", model)
    assert "400 pieces" in capsys.readouterr().out
    call("text", "--input", band / "text", "--tokenizer", model, "--out", tmp_path / "text", "--validation-share", 0.3)
    reader = open_split(tmp_path / "text", "train", kinds=("text",), fingerprint=load_tokenizer(model).fingerprint)
    record = unpack_text(reader[0])
    assert load_tokenizer(model).decode(record.ids) == (band / "text" / record.name.split(":")[0]).read_text().strip()


def test_options_reach_the_build(band: Path, tmp_path: Path) -> None:
    call("midi", "--input", band / "midi", "--out", tmp_path / "out", "--source", "mine", "--validation-share", 0)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.sources == {"mine": 12}
    assert manifest.splits["validation"].records == 0
    flags = ["--filters.min-notes", 20, "--filters.min-seconds", 2, "--filters.max-seconds", 3600]
    again = ["midi", "--input", band / "midi", "--out", tmp_path / "out", *flags, "--filters.max-programs", 16]
    again += ["--exclude", "00000*", "0000[123]-*", "--workers", 1]
    with pytest.raises(UserError, match=r"made differently \(filters, validation share\)"):
        call(*again)
    call(*again, "--overwrite")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.filters == {"min_notes": 20, "min_seconds": 2.0, "max_seconds": 3600.0, "max_programs": 16}
    assert sum(split.records for split in manifest.splits.values()) + len(manifest.rejected) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["midi", "--input", "{}/nowhere", "--out", "{}/out"], "nowhere: no such folder; expected a folder with .mid"),
        (["midi", "--input", "{}/empty", "--out", "{}/out"], "empty: no .mid, .midi, .kar file in it"),
        (["midi", "--input", "{}/bad", "--out", "{}/out"], "nothing was usable, of 1 inputs; the first, a.mid: "),
        (["pairs", "--input", "{}/bad", "--out", "{}/out"], "captions.jsonl: no such file; expected one JSON object"),
        (["text", "--input", "{}/bad", "--tokenizer", "{}/t", "--out", "{}/out"], "bad: no .txt, "),
        (["text", "--input", "{}/a.txt", "--tokenizer", "{}/t", "--out", "{}/out"], "t: no such file or folder; exp"),
        (["tokenizer", "--input", "{}/a.txt", "--vocab-size", "9000", "--out", "{}/out"], "ask for at most "),
        (["caption", "--input", "{}/bad", "--out", "{}/out"], "a.mid"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mid").write_text("this is no MIDI file")
    (tmp_path / "a.txt").write_text("a few words\n")
    before = sorted(tmp_path.rglob("*"))
    done = run(*(argument.format(tmp_path) for argument in arguments))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_traceback_on_request(tmp_path: Path) -> None:
    done = run("midi", "--traceback", "--input", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr
    assert "UserError" in done.stderr


def test_unknown_flags_and_missing_ones(tmp_path: Path) -> None:
    done = run("midi", "--input", tmp_path, "--out", tmp_path / "out", "--validation-shore", "0.1")
    assert done.returncode == 2
    assert "--validation-share" in done.stderr
    assert run("midi", "--input", tmp_path).returncode == 2


def test_progress_and_rejects_go_where_they_belong(band: Path, tmp_path: Path) -> None:
    """Without a terminal: totals on stdout, nothing but progress lines on stderr, and jax is never imported."""
    script = (
        "import sys; from midillm_jax import prepare; prepare.main(sys.argv[1:]); "
        "print('brought along:', {'jax', 'flax', 'torch'} & set(sys.modules))"
    )
    arguments = ["midi", "--input", band, "--out", tmp_path / "out", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert "train: " in done.stdout
    assert f"{tmp_path / 'out'} is ready" in done.stdout
    assert "brought along: set()" in done.stdout


def test_captions_are_not_replaced_unasked(band: Path, tmp_path: Path) -> None:
    """They may have been mended by hand."""
    out = tmp_path / "captions.jsonl"
    call("caption", "--input", band / "midi", "--out", out)
    out.write_text("mine\n")
    with pytest.raises(UserError, match=r"captions\.jsonl: is there already; name another file, or --overwrite"):
        call("caption", "--input", band / "midi", "--out", out)
    assert out.read_text() == "mine\n"
    call("caption", "--input", band / "midi", "--out", out, "--overwrite")
    assert len(out.read_text().splitlines()) == 12
    with pytest.raises(UserError, match=r"is a folder; name the file to write"):
        call("caption", "--input", band / "midi", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["captions.jsonl"]
