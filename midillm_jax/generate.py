"""``python -m midillm_jax.generate --model DIR --prompt "..."``: music from words, as .mid, picture and sound.

``python -m midillm_jax.generate text --model DIR --prompt "..."`` lets the model go on with a text instead.
"""

import contextlib
import dataclasses
import importlib.util
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from midillm_jax import commands
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.inference import compose, engine, request
from midillm_jax.music import render
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.midi import NoteTable

_NAME_LETTERS = 48


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes NAME.mid and NAME.png for each output, and its sound where FluidSynth is installed."""

    model: Path
    """Folder that `python -m midillm_jax.export` wrote, or OWNER/NAME of a model on the Hugging Face Hub."""
    prompt: str | None = None
    """What the music should be like; without it, the model is free."""
    outputs: int = request.MusicRequest.outputs
    """Pieces to write."""
    seed: int = request.MusicRequest.seed
    """The same seed gives the same files."""
    temperature: float = request.MusicRequest.temperature
    """Above 1 is wilder, below 1 tamer, 0 always takes the most likely note."""
    top_p: float = request.MusicRequest.top_p
    """Only the most likely ids that together hold this probability can be drawn."""
    seconds: float = request.MusicRequest.max_seconds
    """No note starts later than this."""
    max_notes: int = request.MusicRequest.max_notes
    """Notes a piece has at most."""
    programs: tuple[int, ...] = ()
    """General MIDI programs that may play, 128 for drums; all if none is given."""
    backend: compose.Backend = "auto"
    """Engine (docs/serving.md); auto takes llamacpp for a GGUF export, else jax where it is installed."""
    quantization: str | None = None
    """How vLLM quantises the weights as it loads them, such as fp8 on a GPU."""
    out: Path = Path("music")
    """Folder for the files."""


@dataclasses.dataclass(frozen=True)
class TextArguments:
    """Writes text to the standard output as it comes, with the JAX engine."""

    model: Path
    """Folder that `python -m midillm_jax.export` wrote, or OWNER/NAME of a model on the Hugging Face Hub."""
    prompt: str
    """The text goes on where this ends, and does not repeat it."""
    max_tokens: int = 200
    """Tokens to write, unless the model ends the text before."""
    temperature: float = 0.8
    """Above 1 is wilder, below 1 tamer, 0 always takes the most likely token."""
    top_p: float = 0.95
    """Only the most likely tokens that together hold this probability can be drawn."""
    seed: int = 0
    """The same seed gives the same text."""


def main(arguments: list[str]) -> None:
    """Loads the model, writes the music, says where it is."""
    if arguments[:1] == ["text"]:
        _text(arguments[1:])
        return
    chosen = commands.parse(Arguments, arguments, prog="python -m midillm_jax.generate", description=__doc__)
    wanted = request.MusicRequest(
        prompt=chosen.prompt,
        outputs=chosen.outputs,
        seed=chosen.seed,
        temperature=chosen.temperature,
        top_p=chosen.top_p,
        max_notes=chosen.max_notes,
        max_seconds=chosen.seconds,
        programs=chosen.programs or None,
    )
    commands.enable_compile_cache()
    with _folder(chosen.out):
        _write_music(chosen, wanted)


def _text(arguments: list[str]) -> None:
    """Goes on with a text."""
    chosen = commands.parse(
        TextArguments,
        arguments,
        prog="python -m midillm_jax.generate text",
        description="Goes on with a text. Only text can be drawn: the rows of the music are left out.",
    )
    from midillm_jax.inference import text_sampler

    wanted = text_sampler.TextRequest(chosen.prompt, chosen.max_tokens, chosen.temperature, chosen.top_p, chosen.seed)
    commands.enable_compile_cache()
    columns = (TextColumn("loading the model"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task("", total=None)
        model = text_sampler.load_text_model(chosen.model)
    count, began = 0, time.perf_counter()
    for piece, count in model.write(wanted):  # noqa: B007 (told below)
        print(piece, end="", flush=True)
    print()
    speed = count / (time.perf_counter() - began)
    print(f"{count} tokens, {speed:.0f} tokens/s with compiling", file=sys.stderr)


def _write_music(chosen: Arguments, wanted: request.MusicRequest) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[notes]}"), TimeElapsedColumn())
    # On stderr: what stands on stdout afterwards are the files.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading the model", total=None, notes="")
        model = compose.load_model(chosen.model, chosen.backend, chosen.quantization)

        def report(now: engine.Progress) -> None:
            stages = {"compile": "compiling", "prefill": "reading the prompt", "decode": "writing", "done": "writing"}
            bar.update(
                task,
                description=stages[now.stage],
                total=now.total,
                completed=now.triples,
                notes=f"{now.triples} of at most {now.total} notes",
            )

        composed = compose.compose(model, wanted, report)
    name = _file_name(chosen.prompt, chosen.seed)
    unheard: set[str] = set()
    for index, piece in enumerate(composed.pieces):
        path = chosen.out / f"{name}-{index + 1}.mid"
        write_whole(path, piece.midi)
        render.piano_roll(piece.table, path.with_suffix(".png"), chosen.prompt)
        unheard.update(_play(path))
        speed = len(piece.amt_ids) / max(composed.seconds["decode"], 1e-9)
        cut = "" if piece.closed else ", cut where the room ended"
        print(
            f"{path}: {len(piece.table)} notes, {piece.table.seconds():.1f} s, {_instruments(piece.table)}, "
            f"{speed:.0f} tokens/s{cut}"
        )
    for reason in sorted(unheard):  # the same one for every piece where FluidSynth is missing
        print(reason)


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
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


def _file_name(prompt: str | None, seed: int) -> str:
    """A file name that tells the prompt: its first words in small ASCII letters, and the seed."""
    words = re.findall(r"[a-z0-9]+", (prompt or "music").lower())
    name = "-".join(words)[:_NAME_LETTERS].strip("-") or "music"
    return f"{name}-seed{seed}"


def _play(path: Path) -> list[str]:
    """Writes the sound beside a MIDI file, or gives the one line that says what is missing for it."""
    ending = ".wav" if importlib.util.find_spec("soundfile") is None else ".flac"
    try:
        render.audio(path, path.with_suffix(ending))
    except UserError as error:
        return [str(error)]
    return []


def _instruments(table: NoteTable) -> str:
    return ", ".join(PROGRAM_NAMES[program] for program in table.programs())


if __name__ == "__main__":
    commands.run(main)
