"""Audio of a length and loudness, from the synthesizer where it is installed, and from plain tones where it is not."""

import shutil
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest

from midillm_jax.errors import UserError
from midillm_jax.evaluation.rendering import PEAK, Player, Rendering, beginning, levelled, rendering, resampled
from midillm_jax.music import render
from midillm_jax.music.midi import NoteTable

RATE = 44_100
HOW = Rendering("none", "0" * 64, RATE, 3.0, -18.0)


def table(onsets: list[int], durations: list[int], notes: list[int]) -> NoteTable:
    velocities = np.full(len(onsets), 90, np.uint8)
    return NoteTable(np.array(onsets, np.int32), np.array(durations, np.int32), np.array(notes, np.int32), velocities)


def tone(seconds: float, gain: float) -> np.ndarray:
    return (gain * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("gain", [0.002, 0.02, 0.9])
def test_any_tone_comes_to_the_loudness(gain: float) -> None:
    found = levelled(tone(2, gain), HOW)
    assert pyloudnorm.Meter(RATE).integrated_loudness(found.astype(np.float64)) == pytest.approx(-18, abs=0.05)


def test_peaks_stay_under_full_scale() -> None:
    """A click a second is quiet on the whole and cannot be made louder."""
    clicks = np.zeros(3 * RATE, np.float32)
    clicks[::RATE] = 0.01
    assert np.abs(levelled(clicks, HOW)).max() == pytest.approx(PEAK, rel=1e-5)


def test_silence_and_moments_have_no_loudness_and_pass() -> None:
    assert levelled(np.zeros(RATE * 5, np.float32), HOW).tolist() == [0.0] * RATE
    short = levelled(tone(0.1, 0.5), HOW)
    assert 0.1 < np.abs(short).max() <= PEAK
    trailing = levelled(np.concatenate([tone(1, 0.5), np.zeros(RATE, np.float32)]), HOW)
    assert len(trailing) == pytest.approx(RATE, abs=50)


def test_resampling_keeps_length_and_pitch() -> None:
    found = resampled(tone(1, 0.5), RATE, 16_000)
    assert len(found) == 16_000
    spectrum = np.abs(np.fft.rfft(found * np.hanning(16_000)))
    assert spectrum.argmax() == 440
    assert resampled(found, 16_000, 16_000) is found


def test_a_piece_begins_with_its_first_note_and_is_cut() -> None:
    found = beginning(table([500, 600, 790, 800], [50, 300, 5, 5], [60, 61, 62, 63]), 3.0)
    assert found.onsets.tolist() == [0, 100, 290]
    assert found.durations.tolist() == [50, 200, 5]
    assert not len(beginning(table([], [], []), 3.0))


def test_what_is_heard_decides_the_key_and_nothing_else(tmp_path: Path) -> None:
    player = Player(HOW, tmp_path)
    one = table([0, 100], [50, 50], [60, 62])
    later = table([700, 800], [50, 50], [60, 62])
    longer = table([0, 100, 400], [50, 50, 50], [60, 62, 64])
    other = table([0, 100], [50, 50], [60, 63])
    assert player.key(one) == player.key(later) == player.key(longer) != player.key(other)
    louder = Player(Rendering("none", "0" * 64, RATE, 3.0, -12.0), tmp_path)
    assert louder.key(one) != player.key(one)


def test_a_missing_player_or_length_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--audio-seconds 0: expected 1 to 600"):
        rendering(0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="Audio needs FluidSynth, which was not found: "):
        rendering(10)


@pytest.fixture
def player(tmp_path: Path) -> Player:
    if shutil.which("fluidsynth") is None or render.find_soundfont() is None:
        pytest.skip("fluidsynth or a soundfont is not installed")
    return Player(rendering(2.0), tmp_path / "played")


def test_a_piece_is_played_once(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = table([100, 150, 900], [100, 400, 100], [60, 64, 67])
    first = player.audio(piece)
    assert RATE < len(first) <= 2 * RATE
    assert pyloudnorm.Meter(RATE).integrated_loudness(first.astype(np.float64)) == pytest.approx(-18, abs=0.5)
    monkeypatch.setattr(render, "played", lambda path: pytest.fail("played again"))
    np.testing.assert_array_equal(player.audio(piece), first)
    assert not list(player._folder.glob("*.partial"))


def test_a_piece_without_notes_is_silence(player: Player) -> None:
    assert not player.audio(table([], [], [])).any()
