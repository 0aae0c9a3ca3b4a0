"""A piece to look at and to listen to: the piano roll of roll.py, and audio played by FluidSynth."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.music.roll import piano_roll

__all__ = [
    "SAMPLE_RATE",
    "audio",
    "find_player",
    "find_soundfont",
    "how_to_install_audio",
    "piano_roll",
    "played",
    "synthesizer_version",
]

SAMPLE_RATE = 44_100
"""Hz; what soundfonts are recorded at."""
_TIMEOUT_SECONDS = 300
_SILENCE = 10 ** (-60 / 20)
"""Amplitude (1 is full scale) under which the end is cut and the whole counts as silent."""
_TAIL_SECONDS = 0.3
_LOUDNESS = 10 ** (-20 / 20)
"""Root mean square that the sounding part is brought to, as far as the peak allows."""
_PEAK = 10 ** (-1 / 20)
_CHUNK_FRAMES = 65_536
_ENCODINGS: dict[str, tuple[str, str]] = {
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
}
"""soundfile's names for what an ending asks of it."""
_SOUNDFONT_FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/sounds/sf2",
    "/usr/local/share/soundfonts",
    "~/.local/share/sounds/sf2",
    "~/.local/share/soundfonts",
    "/opt/homebrew/share/sounds/sf2",
    "/opt/homebrew/share/soundfonts",
    "~/Library/Audio/Sounds/Banks",
    "/Library/Audio/Sounds/Banks",
    "C:/soundfonts",
    "C:/ProgramData/soundfonts",
    "~/soundfonts",
)
_SOUNDFONT_NAMES = ("FluidR3_GM.sf2", "default-GM.sf2", "default.sf2")
"""Taken before any other in a folder."""


def find_soundfont() -> Path | None:
    """The soundfont to play with: ``MIDILLM_SOUNDFONT`` if it is set, else the first in the usual folders.

    Raises:
        UserError: the variable names no file.
    """
    named = os.environ.get("MIDILLM_SOUNDFONT")
    if named:
        if not Path(named).is_file():
            raise UserError(
                f"MIDILLM_SOUNDFONT names {named}, which is not a file; set it to a .sf2 or .sf3 or unset it."
            )
        return Path(named)
    for folder in (Path(name).expanduser() for name in _SOUNDFONT_FOLDERS):
        found = sorted([*folder.glob("*.sf2"), *folder.glob("*.sf3")])
        if found:
            return min(found, key=lambda path: (path.name not in _SOUNDFONT_NAMES, found.index(path)))
    return None


def how_to_install_audio() -> str:
    """One line for this platform: how to get FluidSynth and a General MIDI soundfont."""
    if sys.platform == "darwin":
        return "brew install fluid-synth, and put a General MIDI .sf2 into ~/Library/Audio/Sounds/Banks"
    if sys.platform == "win32":
        return "choco install fluidsynth, and set MIDILLM_SOUNDFONT to a General MIDI .sf2"
    for tool, command in (
        ("apt-get", "sudo apt-get install fluidsynth fluid-soundfont-gm"),
        ("dnf", "sudo dnf install fluidsynth fluid-soundfont-gm"),
        ("pacman", "sudo pacman -S fluidsynth soundfont-fluid"),
    ):
        if shutil.which(tool):
            return command
    return "install fluidsynth, and set MIDILLM_SOUNDFONT to a General MIDI .sf2"


def audio(midi_path: Path, out_path: Path) -> Path:
    """Plays a MIDI file into ``out_path``, stereo at 44.1 kHz: .wav, or .flac, .mp3, .ogg where soundfile is installed.

    The silent end is cut and the level brought to about -20 dBFS; the file appears once it is complete.

    Raises:
        UserError: FluidSynth, a soundfont or soundfile is missing (the message says how to install it), the ending is
            none of the four, or FluidSynth failed, took too long or rendered silence.
    """
    midi_path, out_path = Path(midi_path), Path(out_path)
    ending = out_path.suffix.lower()
    if ending != ".wav" and ending not in _ENCODINGS:
        raise UserError(f"{out_path.name} ends in {ending!r}; audio is written as .wav, .flac, .mp3 or .ogg.")
    if ending in _ENCODINGS and importlib.util.find_spec("soundfile") is None:
        raise UserError(f"{ending} needs the package soundfile: run pip install soundfile, or ask for .wav.")
    samples = _levelled(played(midi_path), midi_path)
    partial = out_path.with_name(out_path.name + ".partial")
    if ending == ".wav":
        _write_wav(partial, samples)
    else:
        _encode(partial, samples, *_ENCODINGS[ending])
    os.replace(partial, out_path)
    return out_path


def find_player() -> tuple[str, Path]:
    """FluidSynth's program and the soundfont.

    Raises:
        UserError: one is missing; the message says how to install it.
    """
    synthesizer, soundfont = shutil.which("fluidsynth"), find_soundfont()
    if synthesizer is None or soundfont is None:
        missing = "FluidSynth" if synthesizer is None else "a soundfont"
        raise UserError(f"Audio needs {missing}, which was not found: {how_to_install_audio()}.")
    return synthesizer, soundfont


def synthesizer_version() -> str:
    """Of the FluidSynth that is found: ``2.3.1``. Raises UserError as :func:`find_player`."""
    program, _ = find_player()
    said = subprocess.run([program, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "unknown"


def played(midi_path: Path) -> np.ndarray:
    """What FluidSynth makes of a file, float32 [frames, 2] at SAMPLE_RATE, full scale 1, neither cut nor levelled.

    Raises:
        UserError: as :func:`find_player`, or FluidSynth failed or took too long.
    """
    synthesizer, soundfont = find_player()
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "piece.wav")
        _synthesize(synthesizer, soundfont, midi_path, wav)
        return _read_wav(wav)


def _synthesize(synthesizer: str, soundfont: Path, midi_path: Path, wav: Path) -> None:
    options = ["-n", "-i", "-q", "-F", str(wav), "-T", "wav", "-O", "s16", "-r", str(SAMPLE_RATE), "-g", "0.5"]
    command = [synthesizer, *options, str(soundfont), str(midi_path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"FluidSynth took more than {_TIMEOUT_SECONDS} seconds over {midi_path}; is the piece very long?"
        ) from error
    if done.returncode != 0 or not wav.is_file():
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UserError(f"FluidSynth could not render {midi_path} with {soundfont}: {said}")


def _read_wav(path: Path) -> np.ndarray:
    """float32 [frames, 2], full scale 1."""
    with wave.open(str(path), "rb") as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return data.reshape(-1, 2).astype(np.float32) / 32_768


def _levelled(samples: np.ndarray, midi_path: Path) -> np.ndarray:
    """The samples without their silent end, at the level aimed at."""
    peaks = np.abs(samples).max(axis=1, initial=0)
    sounding = np.flatnonzero(peaks > _SILENCE)
    if not len(sounding):
        raise UserError(f"{midi_path} rendered to silence; does it hold notes that the soundfont can play?")
    samples = samples[: sounding[-1] + round(_TAIL_SECONDS * SAMPLE_RATE)]
    level = float(np.sqrt(np.mean(samples[sounding] ** 2)))
    return samples * min(_LOUDNESS / level, _PEAK / float(peaks.max()))


def _write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32_767).astype("<i2").tobytes())


def _encode(path: Path, samples: np.ndarray, container: str, subtype: str) -> None:
    soundfile = importlib.import_module("soundfile")
    with soundfile.SoundFile(
        str(path), "w", samplerate=SAMPLE_RATE, channels=2, format=container, subtype=subtype
    ) as file:
        # libsndfile's Vorbis encoder puts a whole write on the stack.
        for start in range(0, len(samples), _CHUNK_FRAMES):
            file.write(samples[start : start + _CHUNK_FRAMES])
