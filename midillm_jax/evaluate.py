"""``python -m midillm_jax.evaluate --model DIR --data DIR --out DIR``: how well a model does, as a page and numbers.

``python -m midillm_jax.evaluate --generated DIR --out DIR`` scores music that somebody else made, without a model.
``python -m midillm_jax.evaluate runs RUN [RUN ...] --out DIR`` compares training runs: curves, figures, settings.
``python -m midillm_jax.evaluate compare A B`` compares two models' results: which is better, and by how much.
``python -m midillm_jax.evaluate listen A B --out FILE`` makes a page on which people say which of two they prefer.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from midillm_jax import commands
from midillm_jax.errors import UserError
from midillm_jax.evaluation import audio, further, given, listening, listening_page, paired, protocol, runs, runs_page
from midillm_jax.evaluation.generation import Sampling
from midillm_jax.files import write_whole
from midillm_jax.inference.request import MusicRequest

_PIECES = 48
"""Held-out pieces that are scored where neither --pieces nor --ids says how many."""
_LINE_SECONDS = 5.0
"""Time between progress lines of one stage where there is no terminal."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Scores a model on held-out pieces and writes index.html, results.json and the music it made.

    Run again, it goes on where it was stopped.
    """

    model: Path
    """Folder that `python -m midillm_jax.export` wrote, or a downloaded MIDI-LLM model."""
    data: Path
    """Folder that `python -m midillm_jax.prepare pairs` made; its validation split must be new to the model."""
    out: Path
    """Folder for the page, the numbers and the music."""
    prompts_file: Path | None = None
    """Prompts to make music from, one a line, instead of the held-out captions."""
    pieces: int | None = None
    """Held-out pieces to score, and their captions to make music from; if not given 48, or with --ids all."""
    seed: int = 0
    """Draws the pieces and the music."""
    show: int = 6
    """Generated pieces with a picture and, where FluidSynth is installed, a player."""
    runs: tuple[Path, ...] = ()
    """Folders of training runs whose loss curves are shown."""
    temperature: float = MusicRequest.temperature
    """Above 1 is wilder, below 1 tamer, 0 always takes the most likely note."""
    top_p: float = MusicRequest.top_p
    """Only the most likely ids that together hold this probability can be drawn."""
    seconds: float = MusicRequest.max_seconds
    """No note starts later than this."""
    max_notes: int = MusicRequest.max_notes
    """Notes a piece has at most."""
    guidance: float = MusicRequest.guidance
    """How much the prompt counts in the music: 1 as trained, 2 to 5 more, at twice the work (jax engine only)."""
    ids: Path | None = None
    """Names of the only pieces to score, those of a published set: one a line, or MidiCaps' train.json, whose column
    test_set counts. They may be of the test split."""
    near_duplicates: bool = False
    """Also give the scores without held-out pieces that nearly are a piece of the train split."""
    text: Path | None = None
    """Held-out text that is scored too: a folder that `python -m midillm_jax.prepare text` made, or text files."""
    text_tokens: int = further.Settings.text_tokens
    """Of text; whole documents are drawn until there are as many."""
    base: Path | None = None
    """The text model that the model was trained from, for how far its words have moved from it."""
    references: Path | None = None
    """Folder of real .mid files for the audio distance, instead of the held-out pieces."""
    most_references: int = 400
    """Real pieces of that folder at most; drawn by the seed."""
    embedding: tuple[str, ...] = ()
    """Networks that hear the music as audio, for its Frechet distance from real music and its match with its prompt:
    clap:CHECKPOINT, musicnn, basic-pitch, or onnx:FILE,rate=R,seconds=S and torch:FILE,rate=R,seconds=S of your own."""
    audio_seconds: float = 60.0
    """Seconds of each piece that they hear, from its first note on."""
    audio_cache: Path | None = None
    """Folder for what was played and heard, which several evaluations may share; audio/ in --out if not given."""


@dataclasses.dataclass(frozen=True)
class GivenArguments:
    """Scores .mid files that somebody made, without a model, and writes index.html, results.json and the music."""

    generated: Path
    """Folder of .mid files, such as another system's output."""
    out: Path
    """Folder for the page, the numbers and the music."""
    captions: Path | None = None
    """What the music was made for: one JSON object a line with location and caption, as captions.jsonl and MidiCaps'
    train.json have. A location fits the file whose path it ends with, or the other way round."""
    references: Path | None = None
    """Folder of real .mid files, and of their captions.jsonl if there is one."""
    data: Path | None = None
    """Instead of --references: folder that `python -m midillm_jax.prepare pairs` made, whose held-out pieces count."""
    most_references: int = 400
    """Real pieces at most; drawn by the seed."""
    seed: int = 0
    """Draws the real pieces and the resamples."""
    show: int = 6
    """Pieces with a picture and, where FluidSynth is installed, a player."""
    embedding: tuple[str, ...] = ()
    """Networks that hear the music as audio, for its Frechet distance from real music and its match with its prompt:
    clap:CHECKPOINT, musicnn, basic-pitch, or onnx:FILE,rate=R,seconds=S and torch:FILE,rate=R,seconds=S of your own."""
    audio_seconds: float = 60.0
    """Seconds of each piece that they hear, from its first note on."""
    audio_cache: Path | None = None
    """Folder for what was played and heard, which several evaluations may share; audio/ in --out if not given."""


@dataclasses.dataclass(frozen=True)
class RunsArguments:
    """Compares training runs on one page, index.html: curves, last and best figures, settings that differ."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Folders of training runs, finished or not."""
    out: Path
    """Folder for the page."""


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Says which of two models is better, measure by measure, on the pieces and prompts that both were scored on."""

    a: Annotated[Path, tyro.conf.Positional]
    """Folder that `python -m midillm_jax.evaluate --out` wrote for one model."""
    b: Annotated[Path, tyro.conf.Positional]
    """The same for the other, with the same options."""
    out: Path | None = None
    """File for the comparison as JSON."""


@dataclasses.dataclass(frozen=True)
class ListenArguments:
    """Makes a page for a blind listening test of two models' music, or scores what listeners said on it."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="A B")] = ()
    """Two folders that `python -m midillm_jax.evaluate --out` wrote, with music for the same prompts."""
    out: Path | None = None
    """The page to write, one .html file with all its sound."""
    pairs: int = 12
    """Prompts asked about at most."""
    seconds: float = 45.0
    """Of each piece's beginning that is played."""
    seed: int = 0
    """Draws the prompts, and which model stands first."""
    score: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Results that listeners downloaded from the page, to be added up."""


def main(arguments: list[str]) -> None:
    """Evaluates a model; or compares runs or results, or lets people listen, where the first argument says so."""
    if arguments[:1] == ["runs"]:
        _compare_runs(arguments[1:])
    elif arguments[:1] == ["compare"]:
        _compare_results(arguments[1:])
    elif arguments[:1] == ["listen"]:
        _listen(arguments[1:])
    elif any(argument.partition("=")[0] == "--generated" for argument in arguments):
        _evaluate_given(arguments)
    else:
        _evaluate(arguments)


def _listen(arguments: list[str]) -> None:
    """Ends with where the page is, or with a sentence a question."""
    prog = "python -m midillm_jax.evaluate listen"
    chosen = commands.parse(ListenArguments, arguments, prog=prog, description=ListenArguments.__doc__)
    if chosen.score:
        if chosen.folders or chosen.out is not None:
            raise UserError("--score adds up results; leave out the folders and --out, or leave out --score")
        for line in listening.score(chosen.score).lines():
            print(line)
        return
    if len(chosen.folders) != 2 or chosen.out is None:
        raise UserError(
            f"{len(chosen.folders)} folders and {'no --out' if chosen.out is None else '--out'}: expected A B --out "
            "FILE.html to make a page, or --score FILE to read results"
        )
    test = listening.draw(*chosen.folders, chosen.pairs, chosen.seed)
    with _Progress() as progress:
        sounds = listening.sounds(test, chosen.seconds, lambda done, total: progress.tell("playing", done, total))
    write_whole(chosen.out, listening_page.render(test, sounds))
    print(f"{chosen.out} asks about {len(test.pairs)} pairs; open it in a browser, it needs nothing else")


def _compare_results(arguments: list[str]) -> None:
    """Ends with a sentence a measure."""
    prog = "python -m midillm_jax.evaluate compare"
    chosen = commands.parse(CompareArguments, arguments, prog=prog, description=CompareArguments.__doc__)
    found = paired.compare(chosen.a, chosen.b)
    if chosen.out is not None:
        write_whole(chosen.out, json.dumps(found.to_json(), indent=1) + "\n")
    for line in found.lines():
        print(line)


def _compare_runs(arguments: list[str]) -> None:
    """Ends with a line a run and where the page is."""
    prog = "python -m midillm_jax.evaluate runs"
    chosen = commands.parse(RunsArguments, arguments, prog=prog, description=RunsArguments.__doc__)
    found = runs.read(chosen.runs)
    page = runs_page.render(found)
    try:
        chosen.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {chosen.out}: this folder cannot be made ({error.strerror}); name another") from None
    write_whole(chosen.out / protocol.PAGE, page)
    for run in found:
        print(runs.line(run))
    print(f"the page is {chosen.out / protocol.PAGE}")


def _evaluate(arguments: list[str]) -> None:
    """Ends with the two results and where the page is."""
    chosen = commands.parse(Arguments, arguments, prog="python -m midillm_jax.evaluate", description=__doc__)
    settings = protocol.Settings(
        model=chosen.model,
        data=chosen.data,
        out=chosen.out,
        prompts_file=chosen.prompts_file,
        pieces=_PIECES if chosen.pieces is None and chosen.ids is None else chosen.pieces,
        seed=chosen.seed,
        show=chosen.show,
        runs=chosen.runs,
        sampling=Sampling(chosen.temperature, chosen.top_p, chosen.max_notes, chosen.seconds, chosen.guidance),
        ids=chosen.ids,
        further=further.Settings(chosen.text, chosen.text_tokens, chosen.base, chosen.near_duplicates),
        references=chosen.references,
        most_references=chosen.most_references,
        audio=audio.Settings(chosen.embedding, chosen.audio_seconds, chosen.audio_cache),
    )
    commands.enable_compile_cache()
    with _Progress() as progress:
        outcome = protocol.evaluate(settings, progress.tell)
    _say(outcome, chosen.out, "this model")


def _evaluate_given(arguments: list[str]) -> None:
    """Ends with what was scored and where the page is."""
    prog = "python -m midillm_jax.evaluate --generated"
    chosen = commands.parse(GivenArguments, arguments, prog=prog, description=GivenArguments.__doc__)
    settings = given.Settings(
        generated=chosen.generated,
        captions=chosen.captions,
        references=chosen.references,
        data=chosen.data,
        out=chosen.out,
        most_references=chosen.most_references,
        seed=chosen.seed,
        show=chosen.show,
        audio=audio.Settings(chosen.embedding, chosen.audio_seconds, chosen.audio_cache),
    )
    with _Progress() as progress:
        outcome = given.evaluate(settings, progress.tell)
    _say(outcome, chosen.out, "this music")


def _say(outcome: protocol.Outcome, out: Path, what: str) -> None:
    if outcome.done_before:
        print(f"{out} holds the results of {what} with these options already: nothing to do")
    for line in outcome.lines:
        print(line)
    print(f"the page is {outcome.page}")


class _Progress:
    """A live bar on a terminal; elsewhere a line a stage, and one now and then while it lasts. On stderr."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None)
        self._stage = ""
        self._said = 0.0

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """See protocol.Tell."""
        if not self._bar.disable:
            self._bar.update(self._task, description=stage, completed=done, total=total)
            return
        now = time.monotonic()
        if stage != self._stage or now - self._said >= _LINE_SECONDS:
            self._stage, self._said = stage, now
            amount = f": {done:,} of {total:,}" if done and total else ""
            print(f"{stage}{amount}", file=sys.stderr, flush=True)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


if __name__ == "__main__":
    commands.run(main, resumes=True)
