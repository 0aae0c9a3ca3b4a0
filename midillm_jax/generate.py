"""``python -m midillm_jax.generate --prompt "..."``: music from words, as .mid, picture and sound.

    python -m midillm_jax.generate [new] --prompt "A calm waltz for flute and piano."
    python -m midillm_jax.generate continue FILE --from "bar 17" --seconds 30
    python -m midillm_jax.generate infill FILE --bars 9-16
    python -m midillm_jax.generate accompany FILE --keep piano --add "bass, drums"
    python -m midillm_jax.generate replace FILE --tracks drums
    python -m midillm_jax.generate text --prompt "The fugue"

``generate NAME --help`` lists the options of each.
"""

import contextlib
import dataclasses
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from midillm_jax import commands
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.inference import changes, compose, editing, engine, request, windows
from midillm_jax.music import clock, grid, render
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.midi import NoteTable, read_midi, write_midi
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import Score, read_score, write_score
from midillm_jax.music.timing import played
from midillm_jax.music.vocab import MAX_ONSET_TICKS, TICKS_PER_SECOND

_NAME_LETTERS = 48
_WINDOW_SECONDS = MAX_ONSET_TICKS / TICKS_PER_SECOND
_PROG = "python -m midillm_jax.generate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """What all requests for music have."""

    model: Path | None = None
    """Folder that `python -m midillm_jax.export` wrote, or OWNER/NAME of a model on the Hugging Face Hub; the small
    model that comes with the package if none is given."""
    prompt: str | None = None
    """What the music should be like; without it, the model is free."""
    outputs: int = request.MusicRequest.outputs
    """Pieces to write."""
    seed: int = request.MusicRequest.seed
    """The same seed gives the same files."""
    temperature: float | None = None
    """Above 1 is wilder, below 1 tamer, 0 always takes the most likely note; what the model's folder recommends (its
    generation_config.json) if not given."""
    top_p: float | None = None
    """Only the most likely ids that together hold this probability can be drawn; likewise."""
    backend: compose.Backend = "auto"
    """Engine (docs/serving.md); auto takes llamacpp for a GGUF export, else jax where it is installed."""
    quantization: str | None = None
    """How vLLM quantises the weights as it loads them, such as fp8 on a GPU."""
    out: Path = Path("music")
    """Folder for the files."""

    def wanted(self, **more: object) -> request.MusicRequest:
        """The same for midillm_jax.inference, where what is not given has a default."""
        asked = {name: getattr(self, name) for name in ("prompt", "outputs", "seed", "temperature", "top_p")}
        given = {name: value for name, value in asked.items() if value is not None or name == "prompt"}
        return request.MusicRequest(**given, **more)  # type: ignore[arg-type]

    def as_recommended(self, wanted: request.MusicRequest, model: compose.MusicModel) -> request.MusicRequest:
        """The request with the sampling that a model's folder recommends, where none was asked for."""
        return dataclasses.replace(
            wanted,
            temperature=model.temperature if self.temperature is None else self.temperature,
            top_p=model.top_p if self.top_p is None else self.top_p,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class New(Sampling):
    """Writes a new piece: NAME.mid and NAME.png for each output, and its sound where FluidSynth is installed."""

    seconds: float = request.MusicRequest.max_seconds
    """No note starts later than this. Past 100 seconds, the model goes on from the later half of what it wrote."""
    max_notes: int | None = None
    """Notes a piece has at most; up to 100 seconds, 682 if not given, which is about what a sequence holds."""
    programs: tuple[int, ...] = ()
    """General MIDI programs that may play, 128 for drums; all if none is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfFile(Sampling):
    """What all requests that change a file have."""

    file: tyro.conf.Positional[Path]
    """A .mid file of yours. It stays as it is; the new one goes to --out."""
    quantize: str = "auto"
    """Grid for new notes: off, note lengths such as 1/16 or 1/8+1/8t, or auto: what the file keeps to, if anything."""
    strength: float = 1.0
    """How far new notes are moved onto it, 0 to 1."""
    velocity: int | None = None
    """Of all new notes, 1 to 127; if not given, by rules (accents, voices, density) around the file's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continue(OfFile):
    """Goes on from a place in a file; what was there from then on is gone."""

    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Where, such as 30s, 1:05 or "bar 17"; the end of its last bar if not given."""
    seconds: float = 30.0
    """New music at most; the model may end it before."""
    add: str | None = None
    """Instruments that may play besides those of the file, such as "bass, drums"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infill(OfFile):
    """Writes a stretch of a file anew, so that it leads from what is before to what is behind."""

    between: tuple[str, str] | None = None
    """From where to where, such as 20s 35s, or "bar 9" "bar 17"."""
    bars: str | None = None
    """The same in whole bars, such as 9-16."""
    add: str | None = None
    """Instruments that may play besides those of the file, such as "bass, drums"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accompany(OfFile):
    """Writes further instruments to a file."""

    add: str
    """Instruments to write, such as "bass, drums"."""
    keep: str | None = None
    """Parts of the file to keep, by instrument, track name or "track 2"; the others are left out. All if not given."""
    between: tuple[str, str] | None = None
    """Only from where to where, such as 20s 35s."""
    bars: str | None = None
    """Only in these bars, such as 9-16."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replace(OfFile):
    """Writes some parts of a file anew, to go with all others."""

    tracks: str
    """Parts to write anew, by instrument, track name or "track 2"."""
    between: tuple[str, str] | None = None
    """Only from where to where, such as 20s 35s."""
    bars: str | None = None
    """Only in these bars, such as 9-16."""


@dataclasses.dataclass(frozen=True)
class TextArguments:
    """Writes text to the standard output as it comes, with the JAX engine."""

    prompt: str
    """The text goes on where this ends, and does not repeat it."""
    model: Path | None = None
    """As for music."""
    max_tokens: int = 200
    """Tokens to write, unless the model ends the text before."""
    temperature: float = 0.8
    """Above 1 is wilder, below 1 tamer, 0 always takes the most likely token."""
    top_p: float = 0.95
    """Only the most likely tokens that together hold this probability can be drawn."""
    seed: int = 0
    """The same seed gives the same text."""


KINDS: dict[str, type[Sampling]] = {
    "new": New,
    "continue": Continue,
    "infill": Infill,
    "accompany": Accompany,
    "replace": Replace,
}


def main(arguments: list[str]) -> None:
    """Loads the model, writes the music, says where it is."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name == "text":
        _text(arguments[1:])
        return
    if name is not None and name not in KINDS:
        raise UserError(f"{_PROG}: there is no {name!r}; name one of {', '.join((*KINDS, 'text'))}")
    kind = KINDS[name or "new"]
    prog = _PROG if name is None else f"{_PROG} {name}"
    chosen = commands.parse(
        kind, arguments[1:] if name else arguments, prog=prog, description=kind.__doc__ if name else __doc__
    )
    commands.enable_compile_cache()
    if isinstance(chosen, New):
        wanted = _wanted(chosen)
        with _folder(chosen.out):
            _write_new(chosen, wanted)
        return
    assert isinstance(chosen, OfFile)
    # All that can be wrong with what was asked is said before the model is loaded.
    score, wanted = _score(chosen.file), chosen.wanted()
    change, onto = _change(chosen, score), changes.grid_of(score, chosen.quantize)
    with _folder(chosen.out):
        _write_change(chosen, score, change, onto, wanted)


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
        model = text_sampler.load_text_model(chosen.model or compose.bundled_model())
    count, began = 0, time.perf_counter()
    for piece, count in model.write(wanted):  # noqa: B007 (told below)
        print(piece, end="", flush=True)
    print()
    speed = count / (time.perf_counter() - began)
    print(f"{count} tokens, {speed:.0f} tokens/s with compiling", file=sys.stderr)


def _wanted(chosen: New) -> request.MusicRequest:
    """The request for a new piece; its length counts only where it fits a window, which also says what is wrong."""
    seconds = min(chosen.seconds, _WINDOW_SECONDS)
    notes = request.MusicRequest.max_notes if chosen.max_notes is None else chosen.max_notes
    return chosen.wanted(max_seconds=seconds, max_notes=notes, programs=chosen.programs or None)


def _score(path: Path) -> Score:
    data = path.read_bytes()
    score = read_score(data, str(path))
    if not read_notes(score).notes:
        raise UserError(f"{path}: has no notes; give a file with music to start from")
    return score


def _change(chosen: OfFile, score: Score) -> changes.Change:
    if chosen.velocity is not None and not 1 <= chosen.velocity <= 127:
        raise UserError(f"--velocity {chosen.velocity}: expected 1 to 127")
    if not 0 <= chosen.strength <= 1:
        raise UserError(f"--strength {chosen.strength:g}: expected 0 (not moved) to 1 (onto the grid)")
    if isinstance(chosen, Continue):
        if not chosen.seconds >= 1 / TICKS_PER_SECOND:
            raise UserError(f"--seconds {chosen.seconds:g}: expected 0.01 or more")
        start = None if chosen.start is None else clock.place(score, chosen.start)
        return changes.continuation(score, start, chosen.seconds, chosen.add)
    assert isinstance(chosen, Infill | Accompany | Replace)
    span = changes.span(score, chosen.between, chosen.bars)
    if isinstance(chosen, Accompany):
        return changes.accompaniment(score, chosen.add, chosen.keep, span)
    if isinstance(chosen, Replace):
        return changes.replacement(score, chosen.tracks, span)
    if span is None:
        raise UserError(f"{_PROG} infill: name the stretch to fill, --between 20s 35s or --bars 9-16")
    return changes.infilling(score, *span, chosen.add)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[..., None]]:
    """A bar on stderr, as what stands on stdout are the files. Its function takes what rich's ``update`` does."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[so_far]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading the model", total=None, so_far="")
        yield lambda **fields: bar.update(task, **fields)


_STAGES = {"compile": "compiling", "prefill": "reading what is there", "decode": "writing", "done": "writing"}


def _told(update: Callable[..., None], seconds: float) -> Callable[[engine.Stage, float], None]:
    def tell(stage: engine.Stage, reached: float) -> None:
        so_far = f"{reached:.0f} of at most {seconds:.0f} s"
        update(description=_STAGES[stage], total=seconds, completed=reached, so_far=so_far)

    return tell


def _write_new(chosen: New, wanted: request.MusicRequest) -> None:
    long = chosen.seconds > _WINDOW_SECONDS or wanted.max_notes > request.MusicRequest.max_notes
    with _progress() as update:
        model = _load(chosen)
        wanted = chosen.as_recommended(wanted, model)
        began = time.perf_counter()
        if long:
            place = windows.Place(
                end_ticks=round(chosen.seconds * TICKS_PER_SECOND), programs=wanted.programs, max_notes=chosen.max_notes
            )
            written = windows.write(model, wanted, place, _told(update, chosen.seconds))
            tables = [decode_notes(one.events) for one in written]
            pieces = [
                (write_midi(played(table, chosen.seed + number)), table, one.closed)
                for number, (table, one) in enumerate(zip(tables, written, strict=True))
            ]
            seconds, tokens = time.perf_counter() - began, [3 * len(table) for table in tables]
        else:

            def report(now: engine.Progress) -> None:
                so_far = f"{now.triples} of at most {now.total} notes"
                update(description=_STAGES[now.stage], total=now.total, completed=now.triples, so_far=so_far)

            composed = compose.compose(model, wanted, report)
            pieces = [(piece.midi, piece.table, piece.closed) for piece in composed.pieces]
            seconds, tokens = composed.seconds["decode"], [len(piece.amt_ids) for piece in composed.pieces]
    name = _file_name(chosen.prompt, chosen.seed)
    unheard: set[str] = set()
    for index, (midi, table, closed) in enumerate(pieces):
        path = chosen.out / f"{name}-{index + 1}.mid"
        unheard.update(_save(path, midi, table, chosen.prompt))
        cut = "" if closed else ", cut where the room ended"
        print(
            f"{path}: {len(table)} notes, {table.seconds():.1f} s, {_instruments(table)}, "
            f"{tokens[index] / max(seconds, 1e-9):.0f} tokens/s{cut}"
        )
    for reason in sorted(unheard):  # the same one for every piece where FluidSynth is missing
        print(reason)


def _write_change(
    chosen: OfFile, score: Score, change: changes.Change, onto: grid.Grid | None, wanted: request.MusicRequest
) -> None:
    tempos = clock.tempo_map(score)
    length = change.seconds if change.end is None else tempos.seconds(change.end) - tempos.seconds(change.start)
    assert length is not None
    with _progress() as update:
        model = _load(chosen)
        wanted = chosen.as_recommended(wanted, model)
        edited = editing.write_into(
            model,
            score,
            change,
            wanted,
            grid=onto,
            strength=chosen.strength,
            velocity=chosen.velocity,
            tell=_told(update, length),
        )
    name = f"{_file_name(chosen.file.stem, None)}-{type(chosen).__name__.lower()}-seed{chosen.seed}"
    unheard: set[str] = set()
    for index, one in enumerate(edited):
        path = chosen.out / f"{name}-{index + 1}.mid"
        midi = write_score(one.score)
        unheard.update(_save(path, midi, read_midi(midi), chosen.prompt or chosen.file.name))
        print(f"{path}: {changes.account(score, change, one)}")
    for reason in sorted(unheard):
        print(reason)


def _load(chosen: Sampling) -> compose.MusicModel:
    folder = compose.bundled_model() if chosen.model is None else chosen.model
    return compose.load_model(folder, chosen.backend, chosen.quantization)


def _save(path: Path, midi: bytes, table: NoteTable, title: str | None) -> list[str]:
    """Writes a piece, its picture and its sound; gives what is missing for the sound."""
    write_whole(path, midi)
    render.piano_roll(table, path.with_suffix(".png"), title)
    return _play(path)


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


def _file_name(prompt: str | None, seed: int | None) -> str:
    """A file name that tells the prompt: its first words in small ASCII letters, and the seed if there is one."""
    words = re.findall(r"[a-z0-9]+", (prompt or "music").lower())
    name = "-".join(words)[:_NAME_LETTERS].strip("-") or "music"
    return name if seed is None else f"{name}-seed{seed}"


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
