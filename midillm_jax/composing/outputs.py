"""Pieces as files: their names, pictures and sounds, in a folder that is there only if something came of it."""

import contextlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.music import clock, render
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.score import read_score

Roll = Literal["png", "svg", "both"]
"""What piano rolls are drawn as."""
_NAME_LETTERS = 48


@contextlib.contextmanager
def folder(folder: Path) -> Iterator[None]:
    """Makes the folder before the work, so that a bad name fails at once; takes it away if nothing came of it."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: this folder cannot be made ({error.strerror}); name another") from None
    try:
        yield
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()


def file_name(prompt: str | None, seed: int | None) -> str:
    """A file name that tells the prompt: its first words in small ASCII letters, and the seed if there is one."""
    words = re.findall(r"[a-z0-9]+", (prompt or "music").lower())
    name = "-".join(words)[:_NAME_LETTERS].strip("-") or "music"
    return name if seed is None else f"{name}-seed{seed}"


def save(path: Path, midi: bytes, title: str | None, roll: Roll) -> list[str]:
    """Writes a piece, its picture and its sound; gives what is missing for the sound."""
    write_whole(path, midi)
    table, bars = read_midi(midi), clock.bar_lines(read_score(midi))
    for kind in ("png", "svg") if roll == "both" else (roll,):
        render.piano_roll(table, path.with_suffix(f".{kind}"), title, bars)
    return _play(path)


def _play(path: Path) -> list[str]:
    """Writes the sound beside a MIDI file, or gives the one line that says what is missing for it."""
    ending = ".wav" if importlib.util.find_spec("soundfile") is None else ".flac"
    try:
        render.audio(path, path.with_suffix(ending))
    except UserError as error:
        return [str(error)]
    return []


def instruments(table: NoteTable) -> str:
    """General MIDI's names of those that play."""
    return ", ".join(PROGRAM_NAMES[program] for program in table.programs())
