"""Pieces as audio that a network hears: the same synthesizer, length and loudness for all, kept on disk.

All music is played from its notes alone (onset, duration, instrument, pitch, velocity), whether a model wrote them or a
file held them: controllers and pitch bends of files are left out, so that no side has what the other cannot have.
"""

import dataclasses
import hashlib
import importlib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.inputs import fingerprint
from midillm_jax.music import render
from midillm_jax.music.midi import NoteTable, write_midi
from midillm_jax.music.vocab import TICKS_PER_SECOND

LOUDNESS = -18.0
"""LUFS (ITU-R BS.1770), as in the demo of MIDI-LLM (arXiv 2511.03942)."""
PEAK = 10 ** (-1 / 20)
"""Amplitude that no sample passes; a piece with higher peaks stays quieter."""
_LEAST_SECONDS = 0.4
"""Of sound whose loudness is defined: one block of BS.1770."""
_SILENCE_SECONDS = 1.0
"""Of the silence that stands for a piece of which nothing can be heard."""


@dataclasses.dataclass(frozen=True)
class Rendering:
    """All that decides what a piece sounds like."""

    synthesizer: str
    """Name and version."""
    soundfont: str
    """SHA-256 (hex) of the file."""
    sample_rate: int
    seconds: float
    """From the first onset on; what comes later is cut before it is played."""
    loudness: float
    """LUFS."""
    channels: str = "mean of left and right"
    played_from: str = "notes: onset, duration, program, pitch, velocity"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def rendering(seconds: float) -> Rendering:
    """The rendering of this machine.

    Raises:
        UserError: FluidSynth or the soundfont is missing, or the length is out of range.
    """
    if not 1 <= seconds <= 600:
        raise UserError(f"--audio-seconds {seconds:g}: expected 1 to 600")
    _, soundfont = render.find_player()
    for name in ("soundfile", "pyloudnorm", "scipy"):
        importlib.import_module(name)  # rather now than when the first piece is played
    with soundfont.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    version = f"FluidSynth {render.synthesizer_version()}"
    return Rendering(version, digest, render.SAMPLE_RATE, seconds, LOUDNESS)


class Player:
    """Plays pieces, each once: what was played lies in a folder under its content and rendering."""

    def __init__(self, how: Rendering, folder: Path) -> None:
        self.how = how
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def key(self, notes: NoteTable) -> str:
        """SHA-256 (hex) that two pieces share if they sound the same."""
        return fingerprint([self.how.to_json(), hashlib.sha256(self._midi(notes)).hexdigest()])

    def audio(self, notes: NoteTable) -> np.ndarray:
        """The piece, float32 [frames] at the rendering's rate, full scale 1; silence where nothing can be heard."""
        import soundfile

        path = self._folder / f"{self.key(notes)}.flac"
        if not path.is_file():
            partial = path.with_name(path.name + ".partial")
            soundfile.write(partial, self._play(notes), self.how.sample_rate, format="FLAC", subtype="PCM_16")
            partial.replace(path)
        samples, _ = soundfile.read(path, dtype="float32")
        return samples

    def _midi(self, notes: NoteTable) -> bytes:
        return write_midi(beginning(notes, self.how.seconds))

    def _play(self, notes: NoteTable) -> np.ndarray:
        silence = np.zeros(round(_SILENCE_SECONDS * self.how.sample_rate), np.float32)
        if not len(notes):
            return silence
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "piece.mid")
            path.write_bytes(self._midi(notes))
            samples = render.played(path).mean(axis=1)
        return levelled(samples[: round(self.how.seconds * self.how.sample_rate)], self.how)


def beginning(notes: NoteTable, seconds: float) -> NoteTable:
    """The first seconds of a piece, its first onset at 0, notes that go on for longer cut off; no tempos or meters."""
    if not len(notes):
        return notes
    onsets = notes.onsets - notes.onsets[0]
    end = round(seconds * TICKS_PER_SECOND)
    kept = onsets < end
    durations = np.minimum(notes.durations[kept], end - onsets[kept])
    return NoteTable(onsets[kept], durations, notes.notes[kept], notes.velocities[kept])


def levelled(samples: np.ndarray, how: Rendering) -> np.ndarray:
    """Mono samples [frames] without their silent end, at the loudness asked for as far as the peak allows."""
    import pyloudnorm

    sounding = np.flatnonzero(np.abs(samples) > 10 ** (-60 / 20))
    if not len(sounding):
        return np.zeros(round(_SILENCE_SECONDS * how.sample_rate), np.float32)
    samples = samples[: sounding[-1] + 1]
    least = math.ceil(_LEAST_SECONDS * how.sample_rate)
    if len(samples) < least:
        samples = np.pad(samples, (0, least - len(samples)))
    # Measured at full scale, or the gate of BS.1770, which is absolute, takes quiet music for silence.
    samples = samples * (PEAK / float(np.abs(samples).max()))
    found = pyloudnorm.Meter(how.sample_rate).integrated_loudness(samples.astype(np.float64))
    gain = min(1.0, 10 ** ((how.loudness - found) / 20)) if math.isfinite(found) else 1.0
    return (samples * gain).astype(np.float32)


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """float32 [frames] at another rate, by a polyphase filter."""
    from scipy import signal

    if rate == wanted:
        return samples
    common = math.gcd(rate, wanted)
    return signal.resample_poly(samples, wanted // common, rate // common).astype(np.float32)
