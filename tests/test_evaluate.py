"""The command from a prepared folder and a model folder to a page, at tiny size: an untrained model."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import mido
import numpy as np
import pytest

from midillm_jax import evaluate
from midillm_jax.config import ModelConfig
from midillm_jax.data.demo import write_band
from midillm_jax.data.shards import Manifest, Piece, ShardWriter, pack_piece, write_manifest
from midillm_jax.errors import UserError
from midillm_jax.evaluation.frechet import LEAST_ROWS
from midillm_jax.inference.jax_engine import JaxEngine
from midillm_jax.model import hf_write
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.music.midi import read_midi
from midillm_jax.music.render import find_soundfont
from midillm_jax.text.prompt import PROMPT_PREFIX
from midillm_jax.text.tokenizer import train_sentencepiece
from tests.evaluation.tiny_networks import tagger

MODEL = ModelConfig(
    text_vocab_size=320,
    d_model=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    d_ff=24,
    context_length=320,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
)
HELD_OUT = 12
SCORED = HELD_OUT - 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pairs``: 30 pieces to train on and 12 held out, one with a caption of those, one with the notes; ``model``."""
    root = tmp_path_factory.mktemp("corpus")
    write_band(root / "band", 30 + HELD_OUT, seed=0, profile="small", documents=0)
    rows = [json.loads(line) for line in (root / "band" / "captions.jsonl").read_text().splitlines()]
    rows[-1]["caption"] = rows[0]["caption"]
    rows[-2]["location"] = rows[1]["location"]
    splits = {}
    for name, part in (("train", rows[:30]), ("validation", rows[30:])):
        with ShardWriter(root / "pairs", name) as writer:
            for row in part:
                notes = read_midi((root / "band" / row["location"]).read_bytes())
                piece = Piece(notes, (row["caption"],), "band", row["location"], row["location"])
                writer.write(pack_piece(piece), len(notes))
        splits[name] = writer.split
    write_manifest(root / "pairs", Manifest("pairs", splits, {"band": len(rows)}, (), {}, {}))
    tokenizer = train_sentencepiece([PROMPT_PREFIX, *(row["caption"] for row in rows)], root / "t.model", 320)
    hf_write.write_hf(root / "model", MODEL, Definition(MODEL, INFERENCE).init(jax.random.key(0)), tokenizer)
    run = root / "run"
    run.mkdir()
    (run / "log.csv").write_text("step,kind,loss,text_loss,bits_per_note\n1,train,3.0,2.5,20.0\n")
    return root


def arguments(corpus: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--model", str(corpus / "model"), "--data", str(corpus / "pairs"), "--out", str(out), "--max-notes", "12"),
        *more,
    ]


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


@pytest.fixture(scope="module")
def evaluated(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation, on a machine that cannot play."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        evaluate.main(arguments(corpus, out, "--show", "2", "--runs", str(corpus / "run")))
    return out


def untimed(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "decoding"}


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def test_everything_is_written(evaluated: Path) -> None:
    found = results(evaluated)
    assert found["bits_per_note"]["pieces"] == found["drums_as_asked"]["prompts"] == SCORED
    assert any("1 held-out pieces" in note and "word for word" in note for note in found["notes"])
    assert any("1 held-out pieces" in note and "the same notes" in note for note in found["notes"])
    assert found["passed_over"] == {"known_notes": 1, "known_captions": 1, "long_captions": 0, "known_prompts": 0}
    assert len(found["pieces"]) == SCORED
    (speed,) = found["decoding"]
    assert (speed["engine"], speed["pieces"]) == ("jax", SCORED)
    assert speed["music_seconds"] == pytest.approx(sum(piece["seconds"] for piece in found["pieces"]))
    assert speed["real_time_factor"] == pytest.approx(speed["music_seconds"] / speed["seconds"])
    for number, piece in enumerate(found["pieces"]):
        notes = read_midi((evaluated / piece["midi"]).read_bytes())
        assert piece["has_drums"] == (128 in notes.programs())
        assert 1 <= piece["notes"] == len(notes) <= 12
        assert any(message.type == "note_on" for message in mido.MidiFile(evaluated / piece["midi"]))
        assert (evaluated / piece["midi"]).with_suffix(".png").is_file() == (number < 2)
    page = (evaluated / "index.html").read_text()
    assert "FluidSynth or a soundfont is missing" in page
    assert "<audio" not in page
    assert "<polyline" in page
    links = Links(page).found
    assert {piece["midi"] for piece in found["pieces"]} <= set(links)
    assert all((evaluated / link).is_file() for link in links)
    assert not list(evaluated.rglob("*.partial"))


def test_an_untrained_model_is_not_said_to_be_good(evaluated: Path) -> None:
    """It is as surprised as a uniform guess over each slot's ids, give or take its random weights."""
    found = results(evaluated)["bits_per_note"]
    uniform = np.log2([20_001, 2_001, 33_026])
    for slot, bits in zip(("onset", "duration", "note"), uniform, strict=True):
        # A little more, as rests and the end are paid for by the notes.
        assert bits - 0.1 < found["model_by_slot"][slot] < bits * 1.15
    assert found["ngram"]["value"] < found["unigram"]["value"] < found["model"]["value"]
    assert sum(found["ngram_by_slot"].values()) == pytest.approx(found["ngram"]["value"])
    assert found["better_by"]["value"] == pytest.approx(found["unigram"]["value"] - found["model"]["value"])
    assert found["wins"] is found["beats_ngram"] is False


def test_a_second_run_does_nothing(
    corpus: Path, evaluated: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in evaluated.rglob("*")}
    monkeypatch.setattr(shutil, "which", lambda name: None)
    evaluate.main(arguments(corpus, evaluated, "--show", "2", "--runs", str(corpus / "run")))
    assert {path: path.stat().st_mtime_ns for path in evaluated.rglob("*")} == before
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("nothing to do")
    assert said[1].startswith("bits a note on 10 unseen pieces: ")
    assert said[2].startswith("bits a note of a 5-gram on them: ")
    assert said[3].startswith("drums as asked on 10 unseen prompts: ")
    assert said[4].startswith("failed music: ")
    assert said[5] == f"the page is {evaluated / 'index.html'}"


def test_an_interrupted_run_goes_on(
    corpus: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some pieces: they stay as they are, the rest is made, and the results are those of one run."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    out = tmp_path / "out"
    shutil.copytree(evaluated, out)
    for path in (out / "results.json", out / "index.html", *(out / "pieces").glob("00[1-7].*")):
        path.unlink()
    (out / "pieces" / "008.mid").unlink()
    (out / "pieces" / "009.json").write_text("{")
    kept = {path: path.stat().st_mtime_ns for path in (out / "pieces").glob("000.*")}
    asked: list[int] = []
    generate = JaxEngine.generate
    monkeypatch.setattr(
        JaxEngine,
        "generate",
        lambda self, requests, report=None: asked.append(len(requests)) or generate(self, requests, report),
    )
    evaluate.main(arguments(corpus, out, "--show", "2", "--runs", str(corpus / "run")))
    assert asked == [9]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert untimed(results(out)) == untimed(results(evaluated))
    for number in range(10):
        name = f"pieces/{number:03d}.mid"
        assert (out / name).read_bytes() == (evaluated / name).read_bytes()
    assert "drums as asked on 10 unseen prompts" in capsys.readouterr().out


def test_other_prompts_in_the_same_folder(
    corpus: Path, evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of a file replace the captions, pieces of before go, and what training saw is not scored."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    seen = json.loads((corpus / "band" / "captions.jsonl").read_text().splitlines()[3])["caption"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"a waltz with drums\n\n{seen}\nsomething slow\n")
    out = tmp_path / "out"
    shutil.copytree(evaluated, out)
    evaluate.main(arguments(corpus, out, "--prompts-file", str(prompts), "--show", "1", "--guidance", "2"))
    found = results(out)
    assert found["inputs"]["sampling"]["guidance"] == 2
    assert "guidance <b>2</b>" in (out / "index.html").read_text()
    assert json.loads((out / "pieces" / "000.json").read_text())["request"]["guidance"] == 2
    assert [piece["prompt"] for piece in found["pieces"]] == ["a waltz with drums", seen, "something slow"]
    assert (found["drums_as_asked"]["prompts"], found["drums_as_asked"]["silent_prompts"]) == (1, 1)
    assert found["instruments_as_asked"] is None
    assert found["bits_per_note"] == results(evaluated)["bits_per_note"]
    assert sorted(path.name for path in (out / "pieces").iterdir()) == [
        *("000.json", "000.mid", "000.png", "001.json", "001.mid", "002.json", "002.mid")
    ]


def test_a_named_set_with_text_beside_its_base(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three held-out pieces, one of the train split and one that is nowhere; the base is the model itself."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    names = [json.loads(line)["location"] for line in (corpus / "band" / "captions.jsonl").read_text().splitlines()]
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join([*(Path(name).stem for name in names[30:33]), Path(names[0]).stem, "nowhere"]))
    text = tmp_path / "text"
    text.mkdir()
    for number in range(10):
        (text / f"{number}.txt").write_text(f"A waltz in 3/4, number {number}, with drums and a slow piano.")
    out = tmp_path / "out"
    more = ["--ids", str(ids), "--text", str(text), "--base", str(corpus / "model"), "--near-duplicates", "--show", "0"]
    evaluate.main(arguments(corpus, out, *more))
    found = results(out)
    assert found["bits_per_note"]["pieces"] == len(found["pieces"]) == 3
    assert {piece["prompt_from"] for piece in found["pieces"]} == set(names[30:33])
    (note,) = [note for note in found["notes"] if "named set" in note]
    assert note == (
        "Of the 5 ids of the named set 3 are among the held-out pieces; 1 stand in the train split and are not scored."
    )
    scored = found["further"]["text"]
    assert scored["documents"] == 10
    # Hardly better or worse than a guess among 320 ids, which is 5.77 nats.
    assert scored["nats_a_token"]["value"] == pytest.approx(np.log(320), abs=0.3)
    assert scored["divergence"]["value"] == pytest.approx(0, abs=1e-4)
    assert isinstance(found["further"]["near_duplicates"]["held_out"], int)
    page = (out / "index.html").read_text()
    assert "nats a token (perplexity" in page
    assert "named set <b>ids.txt</b>" in page
    assert "nats a token from the base" in capsys.readouterr().out
    (out / "results.json").unlink()
    monkeypatch.setattr("midillm_jax.evaluation.text_scores.score", lambda *_: pytest.fail("the nats were kept"))
    evaluate.main(arguments(corpus, out, *more))
    assert results(out) == found


@pytest.mark.slow
def test_the_sound_of_a_models_music_is_scored(corpus: Path, tmp_path: Path) -> None:
    """Beside real music of a folder; as many prompts as a distance needs."""
    if shutil.which("fluidsynth") is None or find_soundfont() is None:
        pytest.skip("fluidsynth or a soundfont is not installed")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{'rock' if n % 2 else 'slow jazz'} number {n}\n" for n in range(LEAST_ROWS)))
    network = tagger(tmp_path / "n.onnx", ["rock", "jazz", "slow"])
    more = ["--prompts-file", str(prompts), "--show", "0", "--audio-seconds", "2"]
    more += ["--references", str(corpus / "band"), "--embedding", f"musicnn:{network}"]
    evaluate.main(arguments(corpus, tmp_path / "out", *more))
    (found,) = results(tmp_path / "out")["audio_scores"]["embeddings"]
    assert found["fad"]["rows"] == LEAST_ROWS
    assert found["protocol"]["reference_pieces"] == 30 + HELD_OUT
    (match,) = found["matches"]
    assert match["prompts"] == LEAST_ROWS


def test_results_can_be_compared(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With themselves: every measure is there, and nothing is resolved."""
    evaluate.main(["compare", str(evaluated), str(evaluated)])
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said] == [
        *("bits a note", "bits for the onset", "bits for the duration", "bits for the note"),
        *("drums as asked", "instruments as asked"),
    ]
    assert all("not resolved at this size (B is better by 0.00 [0.00, 0.00]" in line for line in said)


def test_a_model_beside_music_that_was_given(
    corpus: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that do as the model's prompts ask, under names that put them in another order than the model's."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    made, table, out = tmp_path / "made", tmp_path / "captions.jsonl", tmp_path / "out"
    made.mkdir()
    pieces = results(evaluated)["pieces"]
    rows = [{"location": f"{len(pieces) - n:02d}.mid", "caption": piece["prompt"]} for n, piece in enumerate(pieces)]
    for row, piece in zip(rows, pieces, strict=True):
        shutil.copy(corpus / "band" / piece["prompt_from"], made / row["location"])
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate.main(["--generated", str(made), "--captions", str(table), "--out", str(out), "--show", "0"])
    capsys.readouterr()
    right = f"{100 * np.mean([piece['asks_for_drums'] == piece['has_drums'] for piece in pieces]):.2f}"
    evaluate.main(["compare", str(evaluated), str(out)])
    drums, instruments = capsys.readouterr().out.splitlines()
    assert drums.startswith(f"drums as asked, %, {SCORED} items: A {right}, B 100.00: ")
    assert re.match(r"instruments as asked, F1 in %, .* B 100\.00: B is better by ", instruments)
    evaluate.main(["compare", str(out), str(evaluated)])
    drums, instruments = capsys.readouterr().out.splitlines()
    assert f"A 100.00, B {right}: " in drums
    assert "A 100.00" in instruments, "the files' words are the model's, whose pieces are known"
    rows[0]["caption"] = "something else with drums"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate.main(["--generated", str(made), "--captions", str(table), "--out", str(out), "--show", "0"])
    with pytest.raises(UserError, match="music's prompts"):
        evaluate.main(["compare", str(evaluated), str(out)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--model", "nowhere"], "--model nowhere: no such folder"),
        (["--data", "nowhere"], "nowhere holds no manifest.json"),
        (["--runs", "nowhere"], "nowhere: holds no log.csv"),
        (["--prompts-file", "nowhere"], "--prompts-file nowhere: cannot be read"),
        (["--pieces", "0"], "--pieces 0"),
        (["--ids", "nowhere"], "nowhere: no such file"),
        (["--text", "nowhere"], "nowhere"),
        (["--base", "nowhere"], "--base nowhere: the distance is taken on text; give --text too"),
        (["--top-p", "0"], "top_p is 0"),
        (["--guidance", "-1"], "guidance is -1"),
        (["--seed", "-1"], "seed is -1"),
        (["--references", "nowhere"], "nowhere: no such folder"),
        (["--embedding", "vggish"], "--embedding vggish: no such network"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(corpus: Path, tmp_path: Path, changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate.main(arguments(corpus, tmp_path / "out", *changes))
    assert not (tmp_path / "out").exists()
