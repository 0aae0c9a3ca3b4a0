"""The stage that plays and hears, with sines for a synthesizer and a spectrum for a network: enough to hear pitch."""

import json
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.shards import Piece
from midillm_jax.errors import UserError
from midillm_jax.evaluation import audio, audio_page
from midillm_jax.evaluation.audio import Listener, scrambled
from midillm_jax.evaluation.frechet import LEAST_ROWS
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.inputs import Prompt
from midillm_jax.evaluation.musicnn import Musicnn
from midillm_jax.evaluation.rendering import Rendering
from midillm_jax.music import render
from midillm_jax.music.midi import NoteTable, read_midi
from tests.evaluation.tiny_networks import samples_to_vectors, tagger

COUNT = LEAST_ROWS


def sines(path: Path) -> np.ndarray:
    """Stereo at the synthesizer's rate, a sine a note."""
    notes = read_midi(path.read_bytes())
    out = np.zeros((round(notes.seconds() * render.SAMPLE_RATE) + 1, 2), np.float32)
    for onset, duration, note in zip(notes.onsets, notes.durations, notes.notes, strict=True):
        time = np.arange(int(duration) * render.SAMPLE_RATE // 100) / render.SAMPLE_RATE
        start = int(onset) * render.SAMPLE_RATE // 100
        tone = 0.1 * np.sin(2 * np.pi * 440 * 2 ** ((int(note) % 128 - 69) / 12) * time)
        out[start : start + len(time)] += tone[:, None]
    return out


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was played."""
    found: list[Path] = []
    monkeypatch.setattr(render, "played", lambda path: found.append(path) or sines(path))
    return found


def tune(seed: int, low: int) -> NoteTable:
    rng = np.random.default_rng(seed)
    notes = (low + rng.integers(0, 12, 6)).astype(np.int32)
    onsets = np.arange(6, dtype=np.int32) * 20
    return NoteTable(onsets, np.full(6, 20, np.int32), notes, np.full(6, 90, np.uint8))


def made(low: int, first: int = 1_000) -> list[Generated]:
    names = ["rock", "jazz", "no tag here"]
    return [
        Generated(Prompt(names[n % 3], f"{n}"), Path(f"{n}.mid"), tune(first + n, low), closed=True)
        for n in range(COUNT)
    ]


def real() -> list[Piece]:
    return [Piece(tune(n, 60), ("slow rock",), "real", str(n), f"{n}.mid") for n in range(COUNT)]


@pytest.fixture
def listener(tmp_path: Path) -> Listener:
    network = Musicnn(tagger(tmp_path / "n.onnx", ["rock", "jazz", "slow"]))
    how = Rendering("sines", "0" * 64, render.SAMPLE_RATE, 2.0, -18.0)
    return Listener(how, (network,), tmp_path / "cache")


def score(listener: Listener, pieces: list[Generated], references: list[Piece]) -> audio.AudioScores:
    return audio.score(listener, pieces, pieces, references, "of them", 0, lambda stage, done, total: None)


def test_music_of_another_register_is_farther_from_the_real(listener: Listener, played: list[Path]) -> None:
    (near,), (far,) = (score(listener, made(low), real()).embeddings for low in (60, 84))
    assert near.fad is not None
    assert far.fad is not None
    assert near.fad.corrected.high < far.fad.corrected.low
    assert near.sight is not None
    assert far.sight is not None
    assert near.sight.rows == COUNT // 2
    assert near.sight.real == far.sight.real, "the real ones have not changed"
    assert far.sight.generated > 10 * far.sight.real
    assert near.sight.scrambled != near.sight.real


def test_what_was_played_and_heard_is_kept(
    listener: Listener, played: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = score(listener, made(60), real())
    assert len(played) == COUNT * 2 + COUNT // 2
    monkeypatch.setattr(Musicnn, "hear", lambda self, samples: pytest.fail("heard again"))
    assert score(listener, made(60), real()) == first
    assert len(played) == COUNT * 2 + COUNT // 2


def test_words_are_matched_and_the_real_pieces_say_what_can_be_reached(listener: Listener, played: list[Path]) -> None:
    (found,) = score(listener, made(60), real()).embeddings
    (match,) = found.matches
    assert match.prompts == sum(n % 3 < 2 for n in range(COUNT))
    assert match.real is not None
    assert not match.wins, "tunes are drawn without looking at their prompts"
    (alone,) = score(listener, made(60), []).embeddings
    assert alone.fad is None
    assert alone.matches[0].own == match.own


def test_the_protocol_says_all_that_decides_a_distance(listener: Listener, played: list[Path]) -> None:
    scores = score(listener, made(60), real())
    protocol = scores.embeddings[0].protocol
    assert protocol["references"] == "of them"
    assert (protocol["pieces"], protocol["reference_pieces"]) == (COUNT, COUNT)
    assert protocol["rendering"]["soundfont"] == "0" * 64
    assert {"network", "weights", "sample_rate", "chunk_seconds", "pooling", "rows"} <= protocol.keys()
    assert json.loads(json.dumps(scores.to_json()))["embeddings"][0]["protocol"] == protocol
    page = audio_page.section(scores)
    assert all(str(value) in page for name, value in protocol.items() if name not in ("rendering", "network"))
    assert "with its pitches scrambled" in page
    assert len(scores.lines()) == 2


def test_silent_pieces_are_counted_and_not_dropped(listener: Listener, played: list[Path]) -> None:
    pieces = made(60)
    nothing = NoteTable(*(np.zeros(0, np.int32),) * 3, np.zeros(0, np.uint8))
    pieces[3] = Generated(pieces[3].prompt, pieces[3].path, nothing, closed=True)
    scores = score(listener, pieces, real())
    assert scores.silent == 1
    assert scores.embeddings[0].fad is not None
    assert scores.embeddings[0].fad.rows == COUNT
    assert "Of 1 generated pieces nothing can be heard" in audio_page.section(scores)


def test_scrambling_moves_pitches_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    notes = np.array([60, 128 * 30 + 70, 128 * 128 + 36, 2, 126] * 100, np.int32)
    piece = NoteTable(np.arange(500, dtype=np.int32), np.full(500, 9, np.int32), notes, np.full(500, 90, np.uint8))
    moved = scrambled(piece, rng)
    assert (moved.notes // 128 == notes // 128).all()
    shifts = moved.notes - notes
    assert (np.abs(shifts) <= 6).all()
    assert (shifts[2::5] == 0).all(), "drums"
    assert set(shifts[0::5]) == set(range(-6, 7))
    assert moved.onsets is piece.onsets


def test_what_cannot_be_scored_is_refused_before_anything_is_played(listener: Listener, tmp_path: Path) -> None:
    audio.require_enough(None, 0, 0, 0)
    audio.require_enough(listener, COUNT, COUNT, 0)
    audio.require_enough(listener, 3, 0, 3)
    with pytest.raises(UserError, match=f"a FAD of 3 pieces from {COUNT} real ones; expected at least {COUNT}"):
        audio.require_enough(listener, 3, COUNT, 3)
    with pytest.raises(UserError, match="--embedding musicnn: nothing to hold the music against"):
        audio.require_enough(listener, COUNT, 0, 0)
    samples_to_vectors(tmp_path / "w.onnx", 8_000, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "rendering", lambda seconds: listener.rendering)
        names = (f"onnx:{tmp_path / 'w.onnx'},rate=8000,seconds=1",)
        deaf = audio.listener(audio.Settings(names, 2.0, None), tmp_path / "out")
        with pytest.raises(UserError, match=r"onnx:w\.onnx: nothing to hold the music against"):
            audio.require_enough(deaf, COUNT, 0, 40)
        with pytest.raises(UserError, match="two have one name"):
            audio.listener(audio.Settings(names * 2, 2.0, None), tmp_path / "out")
    assert audio.listener(audio.Settings((), 2.0, None), tmp_path / "out") is None
    assert not (tmp_path / "out").exists()
