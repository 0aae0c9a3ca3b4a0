"""A listening test: blind, the same for a seed, and scored by who stood where."""

import base64
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midillm_jax import evaluate
from midillm_jax.errors import UserError
from midillm_jax.evaluation import listening, listening_page
from midillm_jax.evaluation.listening import a_first, draw, score, sounds
from midillm_jax.evaluation.protocol import RESULTS
from midillm_jax.music import render
from midillm_jax.music.midi import NoteTable, write_midi

PIECES = 6


def piece(pitch: int, seconds: int = 60) -> NoteTable:
    """A note a second."""
    onsets = np.arange(seconds, dtype=np.int32) * 100
    notes = np.full(seconds, pitch, np.int32)
    return NoteTable(onsets, np.full(seconds, 90, np.int32), notes, np.full(seconds, 90, np.uint8))


def folder(place: Path, pitch: int, prompts: list[str], *, audio: bool = True) -> Path:
    """As an evaluation leaves it, with what stands for sound."""
    (place / "pieces").mkdir(parents=True)
    made = []
    for number, prompt in enumerate(prompts):
        path = place / "pieces" / f"{number:03d}.mid"
        path.write_bytes(write_midi(piece(pitch + number)))
        if audio:
            path.with_suffix(".flac").write_bytes(f"{place.name} {number}".encode())
        made.append({"prompt": prompt, "midi": f"pieces/{number:03d}.mid"})
    (place / RESULTS).write_text(json.dumps({"pieces": made}))
    return place


PROMPTS = [f"prompt {number}" for number in range(PIECES)]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders with audio, on a machine that has no synthesizer."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return folder(tmp_path / "model a", 40, PROMPTS), folder(tmp_path / "model b", 60, PROMPTS)


def heard(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def silent(done: int, total: int) -> None:
    pass


def test_both_pieces_of_a_pair_are_of_its_prompt_and_stand_as_drawn(two: tuple[Path, Path]) -> None:
    test = draw(*two, pairs=PIECES, seed=3)
    assert sorted(pair.prompt for pair in test.pairs) == PROMPTS
    found = sounds(test, 45, silent)
    for pair, (first, second), order in zip(test.pairs, found, a_first(3, PIECES), strict=True):
        number = pair.prompt.split()[1]
        expected = [f"model a {number}".encode(), f"model b {number}".encode()]
        assert [heard(first), heard(second)] == (expected if order else expected[::-1])
        assert first.startswith("data:audio/flac;base64,")
    assert draw(*two, pairs=PIECES, seed=3) == test
    assert draw(*two, pairs=4, seed=3).pairs != draw(*two, pairs=4, seed=4).pairs


def test_music_without_words_is_not_asked_about(tmp_path: Path) -> None:
    """As files that were given without captions have none."""
    a, b = (folder(tmp_path / name, 40, ["", "a waltz", ""]) for name in "ab")
    assert [pair.prompt for pair in draw(a, b, pairs=PIECES, seed=0).pairs] == ["a waltz"]


def test_each_stands_first_half_of_the_time_in_an_order_of_its_own() -> None:
    for pairs in (1, 2, 9, 12):
        for seed in range(20):
            assert sum(a_first(seed, pairs)) in (pairs // 2, (pairs + 1) // 2)
    orders = {tuple(a_first(seed, 12)) for seed in range(30)}
    assert len(orders) > 20
    firsts = [a_first(seed, 9)[0] for seed in range(60)]
    assert 15 < sum(firsts) < 45


def test_the_page_needs_no_network_and_shows_no_names(two: tuple[Path, Path], tmp_path: Path) -> None:
    nasty = ['A </script><b>waltz</b> & "more"', *PROMPTS[1:]]
    for place in two:
        results = json.loads((place / RESULTS).read_text())
        results["pieces"][0]["prompt"] = nasty[0]
        (place / RESULTS).write_text(json.dumps(results))
    out = tmp_path / "listen.html"
    evaluate.main(["listen", *map(str, two), "--out", str(out)])
    text = out.read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert text.count("</script>") == 2, "the data and the code"
    shown = text.replace(text.split('type="application/json">')[1].split("</script>")[0], "")
    assert "model a" not in shown
    assert "model b" not in shown
    data = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    assert sorted(pair["prompt"] for pair in data["pairs"]) == sorted(nasty)
    assert data["id"] == draw(*two, pairs=12, seed=0).id
    assert all(set(pair) == {"prompt", "sounds"} for pair in data["pairs"]), "nothing says which is which"


def test_without_sound_there_is_no_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    a, b = (folder(tmp_path / name, 50, PROMPTS, audio=False) for name in "ab")
    with pytest.raises(UserError, match=r"no audio of this piece.*FluidSynth or a soundfont is missing .*picture will"):
        sounds(draw(a, b, pairs=2, seed=0), 45, silent)


def test_pieces_are_played_from_their_start_as_long_as_asked(tmp_path: Path) -> None:
    if not (shutil.which("fluidsynth") and render.find_soundfont()):
        pytest.skip("fluidsynth or a soundfont is not installed")
    soundfile = pytest.importorskip("soundfile", reason="soundfile, which encodes what fluidsynth plays, is missing")
    a, b = folder(tmp_path / "a", 50, ["one"], audio=False), folder(tmp_path / "b", 60, ["one"], audio=False)
    ((first, second),) = sounds(draw(a, b, pairs=1, seed=0), 4.0, silent)
    for url in (first, second):
        assert url.startswith("data:audio/mpeg;base64,")
        samples, rate = soundfile.read(io.BytesIO(heard(url)))
        assert 3.9 < len(samples) / rate < 8, "four notes of a second, and what rings on"
        assert np.abs(samples).max() > 0.05


def results(test: listening.Test, answers: list[dict[str, Any]]) -> str:
    names = {"a": test.names[0], "b": test.names[1]}
    fields = {"format": 1, "test": test.id, "seed": test.seed, "pairs": len(test.pairs), "answers": answers}
    return json.dumps(fields | names)


def prefers_b(test: listening.Test, pairs: int) -> list[dict[str, Any]]:
    """B's music in all of the first pairs, and the first piece's words."""
    order = a_first(test.seed, len(test.pairs))[:pairs]
    return [
        {"pair": number, "music": "second" if first else "first", "words": "first"}
        for number, first in enumerate(order)
    ]


def test_answers_are_counted_for_who_stood_there(two: tuple[Path, Path], tmp_path: Path) -> None:
    test = draw(*two, pairs=6, seed=5)
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(results(test, prefers_b(test, 6)))
    other.write_text(results(test, [{"pair": 2, "music": "neither", "words": "neither"}]))
    music, words = score([one]).preferences
    assert (music.a, music.b, music.neither, music.better) == (0, 6, 0, "B")
    assert music.b_preferred is not None
    assert music.b_preferred.value == 1
    assert music.b_preferred.low == pytest.approx(0.6097, abs=1e-4)
    assert (words.a, words.b, words.better) == (3, 3, None), "who answers 'first' always prefers nobody"
    both = score([one, other])
    assert (both.listeners, both.answered) == (2, 7)
    assert [each.neither for each in both.preferences] == [1, 1]
    assert "B in 100 % [61, 100] of those that name one: B is preferred" in both.lines()[1]
    assert score([other]).preferences[0].line().endswith("nobody heard a difference")


def test_a_coin_is_hardly_ever_taken_for_a_preference(two: tuple[Path, Path], tmp_path: Path) -> None:
    test = draw(*two, pairs=6, seed=5)
    rng = random.Random(0)
    resolved = 0
    for _ in range(200):
        answers = [{"pair": n, "music": rng.choice(["first", "second"]), "words": "neither"} for n in range(6)]
        (tmp_path / "r.json").write_text(results(test, answers))
        resolved += score([tmp_path / "r.json"]).preferences[0].better is not None
    assert resolved <= 16, "all six for one side happen in 1 of 32"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is no results file"),
        ("{", "is no results file"),
        ({"answers": [{"pair": 9, "music": "first", "words": "first"}]}, "is no results file"),
        ({"answers": [{"pair": 0, "music": "third", "words": "first"}]}, "is no results file"),
        ({"answers": [{"pair": 0, "music": "first"}]}, "is no results file"),
        ({"format": 2}, "is no results file"),
        ({"answers": []}, "holds no answers"),
    ],
)
def test_other_files_are_refused(two: tuple[Path, Path], tmp_path: Path, content: Any, message: str) -> None:
    test = draw(*two, pairs=6, seed=5)
    file = tmp_path / "results.json"
    whole = json.loads(results(test, prefers_b(test, 6)))
    file.write_text(content if isinstance(content, str) else json.dumps(whole | content))
    with pytest.raises(UserError, match=message):
        score([file])


def test_results_of_other_tests_and_the_same_twice_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    files = []
    for seed in (1, 2):
        test = draw(*two, pairs=6, seed=seed)
        files.append(tmp_path / f"{seed}.json")
        files[-1].write_text(results(test, prefers_b(test, 6)))
    with pytest.raises(UserError, match="of another listening test"):
        score(files)
    with pytest.raises(UserError, match="given twice"):
        score([files[0], files[0]])


def test_folders_that_cannot_be_compared_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are one folder"):
        draw(two[0], two[0], 3, 0)
    with pytest.raises(UserError, match="no prompt in common"):
        draw(two[0], folder(tmp_path / "c", 50, ["something else"]), 3, 0)
    with pytest.raises(UserError, match=r"holds no results\.json"):
        draw(two[0], tmp_path, 3, 0)
    (two[1] / "pieces" / "002.mid").unlink()
    with pytest.raises(UserError, match=r"002\.mid: no such file"):
        draw(*two, 3, 0)
    with pytest.raises(UserError, match="--pairs 0"):
        draw(*two, 0, 0)
    with pytest.raises(UserError, match="0 folders and no --out"):
        evaluate.main(["listen"])


def test_the_questions_on_the_page_are_those_that_are_scored() -> None:
    test = listening.Test(0, ("a", "b"), ())
    text = listening_page.render(test, [])
    for name, words in listening.QUESTIONS.items():
        assert words in text
        assert text.count(f'type="radio" name="{name}"') == len(listening.SIDES)
