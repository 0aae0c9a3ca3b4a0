"""Somebody else's files through the command, at tiny size: the band plays what its captions say."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midillm_jax import evaluate
from midillm_jax.data.demo import write_band
from midillm_jax.errors import UserError
from midillm_jax.evaluation.frechet import LEAST_ROWS
from midillm_jax.evaluation.intervals import wilson
from midillm_jax.music.midi import NoteTable, write_midi
from midillm_jax.music.render import find_soundfont
from tests.evaluation.tiny_networks import tagger

PIECES = 12


@pytest.fixture(scope="module")
def band(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``made`` is what another system may leave, a flat folder; ``real`` a band of its own, with captions."""
    root = tmp_path_factory.mktemp("given")
    for name, seed in (("made", 1), ("real", 2)):
        write_band(root / name, PIECES, seed=seed, profile="small", documents=0)
    return root


def run(band: Path, out: Path, *more: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        evaluate.main(["--generated", str(band / "made" / "midi"), "--out", str(out), "--show", "1", *more])
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def scored(band: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "out"
    run(band, out, "--captions", str(band / "made" / "captions.jsonl"), "--references", str(band / "real"))
    return out


def test_music_that_does_as_it_was_asked_scores_so(scored: Path) -> None:
    found = json.loads((scored / "results.json").read_text())
    drums = found["drums_as_asked"]
    assert drums["prompts"] + drums["silent_prompts"] == PIECES
    assert drums["share"]["value"] == 1 > drums["shuffled"]["value"]
    assert found["bits_per_note"] is None
    measures = {each["name"]: each for each in found["music"]["control"]["measures"]}
    assert measures["instrument_f1"]["share"]["value"] == 1 > measures["instrument_f1"]["shuffled"]["value"]
    assert {each["name"] for each in found["music"]["ceiling"]["measures"]} >= {"drums", "instrument_f1"}
    assert all(each["references"] <= PIECES for each in found["music"]["quality"])
    assert set(found["further"]["failed"]["real"]) == {"looping", "flooded", "empty", "rejected"}
    assert "bits a note" not in (scored / "index.html").read_text()


def test_the_table_has_a_row_a_piece(scored: Path) -> None:
    with (scored / "pieces.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads((scored / "results.json").read_text())["pieces"]
    assert [row["midi"] for row in rows] == [piece["midi"] for piece in found]
    assert [int(row["has_drums"]) for row in rows] == [piece["has_drums"] for piece in found]
    assert all((scored / row["midi"]).is_file() and 0 < float(row["scale_consistency"]) <= 1 for row in rows)


def test_without_captions_there_are_no_scores_of_them(band: Path, tmp_path: Path) -> None:
    found = run(band, tmp_path / "out", "--references", str(band / "real"))
    assert found["drums_as_asked"] is None
    assert found["music"]["control"]["measures"] == []
    assert len(found["music"]["quality"]) > 5
    page = (tmp_path / "out" / "index.html").read_text()
    assert "No captions were given" in page
    assert "of the real ones" in page
    assert "As asked</h2>" not in page


def test_a_second_run_does_nothing_and_other_references_are_another_evaluation(
    band: Path, scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ("--captions", str(band / "made" / "captions.jsonl"), "--references", str(band / "real"))
    before = (scored / "results.json").stat().st_mtime_ns
    first = run(band, scored, *table)
    assert (scored / "results.json").stat().st_mtime_ns == before
    assert "the results of this music with these options already" in capsys.readouterr().out
    fewer = run(band, scored, *table, "--most-references", "5")
    assert fewer["inputs"]["references"] != first["inputs"]["references"]
    assert max(each["references"] for each in fewer["music"]["quality"]) == 5
    run(band, scored, *table)


def test_two_systems_are_compared_by_prompt(
    band: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one's files have the same names in turned order, so that each plays what another was asked."""
    made = sorted((band / "made" / "midi").iterdir())
    other = tmp_path / "other"
    other.mkdir()
    for source, target in zip(made, [*made[1:], made[0]], strict=True):
        shutil.copy(source, other / target.name)
    table = str(band / "made" / "captions.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        evaluate.main(["--generated", str(other), "--captions", table, "--out", str(tmp_path / "out"), "--show", "0"])
    capsys.readouterr()
    evaluate.main(["compare", str(tmp_path / "out"), str(scored)])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("drums as asked, %, ")
    assert "B 100.00" in said[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--references", "nowhere"), "nowhere: no such folder"),
        (("--captions", "nowhere"), "--captions nowhere: no such file"),
        (("--most-references", "0"), "--most-references 0"),
        (("--references", "a", "--data", "b"), "give one of them"),
        (("--model", "m"), "there is no option --model"),
        (("--embedding", "vggish"), "--embedding vggish: no such network"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(band: Path, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(band, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_failed_music_is_counted_and_left_out_for_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that loops, one that is next to nothing, and one of the band's, which plays on."""
    (tmp_path / "made").mkdir()
    write_band(tmp_path / "band", 1, seed=1, profile="full", documents=0)
    (piece,) = (tmp_path / "band" / "midi").iterdir()
    shutil.copy(piece, tmp_path / "made" / "good.mid")
    bar = np.arange(0, 200, 25)
    onsets = np.concatenate([bar + 200 * n for n in range(20)]).astype(np.int32)
    many = np.full(len(onsets), 20, np.int32), np.tile(np.arange(60, 68), 20).astype(np.int32)
    for name, count in (("loop", len(onsets)), ("few", 5)):
        notes = NoteTable(onsets[:count], many[0][:count], many[1][:count], np.full(count, 90, np.uint8))
        (tmp_path / "made" / f"{name}.mid").write_bytes(write_midi(notes))
    real = ["--references", str(tmp_path / "band")]
    evaluate.main(["--generated", str(tmp_path / "made"), "--out", str(tmp_path / "out"), "--show", "0", *real])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    failed = found["further"]["failed"]
    shares = {name: share["value"] for name, share in failed["shares"].items()}
    assert shares == pytest.approx({"looping": 1 / 3, "flooded": 0, "empty": 1 / 3, "rejected": 2 / 3})
    assert failed["real"]["rejected"]["value"] == 0
    assert failed["without"]["generated"] == 1
    signs = {piece["prompt_from"]: (piece["looping"], piece["flooded"], piece["empty"]) for piece in found["pieces"]}
    assert signs == {"few.mid": (False, False, True), "good.mid": (False,) * 3, "loop.mid": (True, False, False)}
    said = f"failed music: {wilson(2, 3).percent()} of 3 pieces are rejected"
    assert said in found["lines"]
    assert said in capsys.readouterr().out.splitlines()
    page = (tmp_path / "out" / "index.html").read_text()
    assert f"rejected {wilson(2, 3).percent()}; of the real ones {wilson(0, 1).percent()} are rejected." in page
    assert '<th class="number">all 3</th><th class="number">1 of them</th>' in page


@pytest.mark.slow
def test_the_sound_of_it_is_scored(band: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the page and the comparison, with the synthesizer and a network that hears a spectrum."""
    if shutil.which("fluidsynth") is None or find_soundfont() is None:
        pytest.skip("fluidsynth or a soundfont is not installed")
    write_band(tmp_path / "made", LEAST_ROWS, seed=3, profile="small", documents=0)
    write_band(tmp_path / "real", LEAST_ROWS, seed=4, profile="small", documents=0)
    network = tagger(tmp_path / "n.onnx", ["rock", "jazz", "piano"])
    common = ["--captions", str(tmp_path / "made" / "captions.jsonl"), "--references", str(tmp_path / "real")]
    common += ["--show", "0", "--embedding", f"musicnn:{network}", "--audio-cache", str(tmp_path / "cache")]
    for name in ("a", "b"):
        out = str(tmp_path / name)
        evaluate.main(["--generated", str(tmp_path / "made"), "--out", out, "--audio-seconds", "2", *common])
        played = sorted((tmp_path / "cache" / "played").iterdir())
        assert 2 * LEAST_ROWS < len(played) <= 2 * LEAST_ROWS + LEAST_ROWS // 2
    (found,) = json.loads((tmp_path / "a" / "results.json").read_text())["audio_scores"]["embeddings"]
    assert found["fad"]["rows"] == found["fad"]["reference_rows"] == LEAST_ROWS
    assert found["protocol"]["rendering"]["seconds"] == 2
    assert "How it sounds" in (tmp_path / "a" / "index.html").read_text()
    capsys.readouterr()
    evaluate.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert any(line.startswith("FAD by musicnn, 40 pieces: A ") for line in capsys.readouterr().out.splitlines())
