"""``python -m midillm_jax.generate --prompt "..."``: music from words, as .mid, picture and sound.

    python -m midillm_jax.generate [new] --prompt "A calm waltz for flute and piano."
    python -m midillm_jax.generate continue FILE --from "bar 17" --seconds 30
    python -m midillm_jax.generate infill FILE --bars 9-16
    python -m midillm_jax.generate accompany FILE --keep piano --add "bass, drums"
    python -m midillm_jax.generate replace FILE --tracks drums
    python -m midillm_jax.generate edit FILE "make bars 9 to 16 sparser and swap the piano for strings"
    python -m midillm_jax.generate text --prompt "The fugue"

``generate NAME --help`` lists the options of each.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from midillm_jax import commands
from midillm_jax.composing import asked_change, by_words, options, outputs
from midillm_jax.composing import takes as ranking
from midillm_jax.composing.asked_piece import AskedPiece
from midillm_jax.errors import UserError
from midillm_jax.inference import changes, compose, engine, request, windows
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.edit_plan import plan_text, read_plan
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.parts import ScoreNotes, read_notes
from midillm_jax.music.score import Score, read_score, write_score
from midillm_jax.music.timing import midi_file
from midillm_jax.music.vocab import MAX_ONSET_TICKS, TICKS_PER_SECOND

_WINDOW_SECONDS = MAX_ONSET_TICKS / TICKS_PER_SECOND
_PROG = "python -m midillm_jax.generate"


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


def main(arguments: list[str]) -> None:
    """Loads the model, writes the music, says where it is."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name == "text":
        _text(arguments[1:])
        return
    if name is not None and name not in options.KINDS:
        raise UserError(f"{_PROG}: there is no {name!r}; name one of {', '.join((*options.KINDS, 'text'))}")
    kind = options.KINDS[name or "new"]
    prog = _PROG if name is None else f"{_PROG} {name}"
    chosen = commands.parse(
        kind, arguments[1:] if name else arguments, prog=prog, description=kind.__doc__ if name else __doc__
    )
    commands.enable_compile_cache()
    if isinstance(chosen, options.New):
        ranking.check(chosen.candidates, chosen.outputs, "--")
        piece = options.piece_of(chosen)
        wanted = _wanted(chosen, piece)
        with outputs.folder(chosen.out):
            _write_new(chosen, piece, wanted)
        return
    assert isinstance(chosen, options.OfFile)
    if isinstance(chosen, options.Edit):
        _edit(chosen)
        return
    assert isinstance(chosen, options.Change)
    _write_change(chosen)


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


def _wanted(chosen: options.New, piece: AskedPiece) -> request.MusicRequest:
    """The request for a new piece; its length counts only where it fits a window, which also says what is wrong."""
    wanted = chosen.wanted(
        max_seconds=min(chosen.seconds, _WINDOW_SECONDS),
        max_notes=request.MusicRequest.max_notes if chosen.max_notes is None else chosen.max_notes,
        programs=piece.may_play(),
    )
    return dataclasses.replace(wanted, outputs=chosen.candidates or chosen.outputs)


def _score(path: Path) -> tuple[Score, ScoreNotes]:
    score = read_score(path.read_bytes(), str(path))
    music = read_notes(score)
    if not music.notes:
        raise UserError(f"{path}: has no notes; give a file with music to start from")
    return score, music


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


@dataclasses.dataclass(frozen=True)
class _Take:
    """A new piece."""

    table: NoteTable
    closed: bool
    tokens: int
    told: tuple[str, ...] = ()
    """What was done to it."""


def _write_new(chosen: options.New, piece: AskedPiece, wanted: request.MusicRequest) -> None:
    with _progress() as update:
        model = _load(chosen)
        takes, seconds = _take(model, chosen, chosen.as_recommended(wanted, model), update)
    takes = [_fitted(take, piece) for take in takes]
    order = list(range(len(takes)))
    if chosen.candidates is not None:
        ranked = ranking.ranked([take.table for take in takes], piece.facts())
        print(ranking.account(ranked, chosen.outputs), file=sys.stderr)
        order = [take.number for take in ranked[: chosen.outputs]]
    name = outputs.file_name(chosen.prompt, chosen.seed)
    unheard: set[str] = set()
    for index, number in enumerate(order):
        take, path = takes[number], chosen.out / f"{name}-{index + 1}.mid"
        midi = midi_file(take.table, chosen.seed + number, chosen.tempo)
        unheard.update(outputs.save(path, midi, chosen.prompt, chosen.roll))
        told = "".join(f", {each}" for each in take.told) + ("" if take.closed else ", cut where the room ended")
        print(
            f"{path}: {len(take.table)} notes, {take.table.seconds():.1f} s, {outputs.instruments(take.table)}, "
            f"{take.tokens / max(seconds, 1e-9):.0f} tokens/s{told}"
        )
    for reason in sorted(unheard):  # the same one for every piece where FluidSynth is missing
        print(reason)


def _take(
    model: compose.MusicModel, chosen: options.New, wanted: request.MusicRequest, update: Callable[..., None]
) -> tuple[list[_Take], float]:
    """What the model writes, and the seconds it took without compiling."""
    if chosen.seconds <= _WINDOW_SECONDS and wanted.max_notes <= request.MusicRequest.max_notes:

        def report(now: engine.Progress) -> None:
            so_far = f"{now.triples} of at most {now.total} notes"
            update(description=_STAGES[now.stage], total=now.total, completed=now.triples, so_far=so_far)

        composed = compose.compose(model, wanted, report)
        takes = [_Take(piece.table, piece.closed, len(piece.amt_ids)) for piece in composed.pieces]
        return takes, composed.seconds["decode"]
    end = round(chosen.seconds * TICKS_PER_SECOND)
    place = windows.Place(end_ticks=end, programs=wanted.programs, max_notes=chosen.max_notes)
    began = time.perf_counter()
    written = windows.write(model, wanted, place, _told(update, chosen.seconds))
    seconds = time.perf_counter() - began
    return [_Take(decode_notes(one.events), one.closed, len(one.events)) for one in written], seconds


def _fitted(take: _Take, piece: AskedPiece) -> _Take:
    table, told = piece.fitted(take.table)
    return dataclasses.replace(take, table=table, told=tuple(told))


def _write_change(chosen: options.Change) -> None:
    # All that can be wrong with what was asked is said before the model is loaded.
    (score, music), wanted, manner = _score(chosen.file), chosen.wanted(), options.manner_of(chosen)
    ranking.check(chosen.candidates, chosen.outputs, "--")
    asked = options.change_of(chosen, score)
    change, grid = asked.change(score, music), manner.grid(score, music)
    _, length = changes.seconds_of(score, change)
    with outputs.folder(chosen.out):
        with _progress() as update:
            model = _load(chosen)
            changed, kept = asked_change.write(
                model,
                score,
                music,
                asked,
                change,
                chosen.as_recommended(wanted, model),
                manner,
                grid,
                candidates=chosen.candidates,
                tell=_told(update, length),
            )
        if kept is not None:
            print(kept, file=sys.stderr)
        for reason in _save_changed(chosen, changed):
            print(reason)


def _edit(chosen: options.Edit) -> None:
    (score, music), wanted, manner = _score(chosen.file), chosen.wanted(), options.manner_of(chosen)
    if (chosen.words is None) == (chosen.plan is None):
        raise UserError(f'{_PROG} edit: say what to change, as in edit song.mid "mute the drums", or give --plan FILE')
    if chosen.plan is not None:
        plan = read_plan(chosen.plan.read_text(encoding="utf-8"), str(chosen.plan))
    else:
        assert chosen.words is not None
        plan = by_words.plan_for(score, chosen.words)
    if chosen.show:
        print(plan_text(plan), end="")
        return
    print(plan_text(plan), end="", file=sys.stderr)
    grid = manner.grid(score, music)
    with outputs.folder(chosen.out), _progress() as update:
        model = None
        if by_words.needs_model(plan):
            model = _load(chosen)
            wanted = chosen.as_recommended(wanted, model)
        asked = [
            dataclasses.replace(wanted, seed=(wanted.seed + index) % request.MAX_SEEDS)
            for index in range(chosen.outputs)
        ]
        applied = [
            by_words.run(
                score,
                plan,
                model,
                one,
                grid=grid,
                strength=manner.strength,
                velocity=manner.velocity,
                tell=lambda stage, reached: update(description=_STAGES[stage], so_far=f"{reached:.0f} s"),
            )
            for one in asked
        ]
        changed = [asked_change.Changed(one.score, " · ".join(one.told)) for one in applied]
        unheard = _save_changed(chosen, changed)
    for reason in unheard:
        print(reason)


def _save_changed(chosen: options.OfFile, changed: list[asked_change.Changed]) -> list[str]:
    """Writes the files, says what became of each, and gives what is missing for their sound."""
    name = f"{outputs.file_name(chosen.file.stem, None)}-{type(chosen).__name__.lower()}-seed{chosen.seed}"
    unheard: set[str] = set()
    for index, one in enumerate(changed):
        path = chosen.out / f"{name}-{index + 1}.mid"
        unheard.update(outputs.save(path, write_score(one.score), chosen.prompt or chosen.file.name, chosen.roll))
        print(f"{path}: {one.account}")
    return sorted(unheard)


def _load(chosen: options.Sampling) -> compose.MusicModel:
    folder = compose.bundled_model() if chosen.model is None else chosen.model
    return compose.load_model(folder, chosen.backend, chosen.quantization)


if __name__ == "__main__":
    commands.run(main)
