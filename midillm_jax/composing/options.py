"""What can be asked of ``generate``: a class for each kind, whose fields are the options of its command."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from midillm_jax.composing.asked_change import AskedChange, Manner
from midillm_jax.composing.asked_piece import AskedPiece
from midillm_jax.composing.outputs import Roll
from midillm_jax.errors import UserError
from midillm_jax.inference import changes, compose, request
from midillm_jax.music import clock
from midillm_jax.music.score import Score
from midillm_jax.music.vocab import TICKS_PER_SECOND


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
    guidance: float = request.MusicRequest.guidance
    """How much the prompt counts: 1 as trained, 2 to 5 more, at twice the work (jax engine only)."""
    backend: compose.Backend = "auto"
    """Engine (docs/serving.md); auto takes llamacpp for a GGUF export, else jax where it is installed."""
    quantization: str | None = None
    """How vLLM quantises the weights as it loads them, such as fp8 on a GPU."""
    out: Path = Path("music")
    """Folder for the files."""
    roll: Roll = "png"
    """The picture of each piece: png, svg (sharp at any size), or both."""

    def wanted(self, **more: object) -> request.MusicRequest:
        """The same for midillm_jax.inference, where what is not given has a default."""
        asked = {
            name: getattr(self, name) for name in ("prompt", "outputs", "seed", "temperature", "top_p", "guidance")
        }
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
    instruments: str | None = None
    """The same in words, such as "fiddle, guitar, drums"."""
    tempo: float | None = None
    """Quarter notes a minute: the piece is played faster or slower until it has them."""
    key: str | None = None
    """Such as "A minor": the piece is moved there, or to the relative key if it is in the other mode."""
    candidates: int | None = None
    """Takes to write, of which --outputs are kept: those that did not fail and do most of what was asked."""


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
class Change(OfFile):
    """What all requests for new music in a file have."""

    candidates: int | None = None
    """Takes to write, of which --outputs are kept: those that did not fail and have the instruments and the key asked
    for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continue(Change):
    """Goes on from a place in a file; what was there from then on is gone."""

    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Where, such as 30s, 1:05 or "bar 17"; the end of its last bar if not given."""
    seconds: float = 30.0
    """New music at most; the model may end it before."""
    add: str | None = None
    """Instruments that may play besides those of the file, such as "bass, drums"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infill(Change):
    """Writes a stretch of a file anew, so that it leads from what is before to what is behind."""

    between: tuple[str, str] | None = None
    """From where to where, such as 20s 35s, or "bar 9" "bar 17"."""
    bars: str | None = None
    """The same in whole bars, such as 9-16."""
    add: str | None = None
    """Instruments that may play besides those of the file, such as "bass, drums"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accompany(Change):
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
class Replace(Change):
    """Writes some parts of a file anew, to go with all others."""

    tracks: str
    """Parts to write anew, by instrument, track name or "track 2"."""
    between: tuple[str, str] | None = None
    """Only from where to where, such as 20s 35s."""
    bars: str | None = None
    """Only in these bars, such as 9-16."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit(OfFile):
    """Changes a file as words say. The plan is shown; docs/editing_by_words.md says what can be asked."""

    words: tyro.conf.Positional[str | None] = None
    """Such as "make bars 9 to 16 sparser and swap the piano for strings"."""
    plan: Path | None = None
    """A file with a plan, a line an operation, in place of words."""
    show: bool = False
    """Write the plan to the standard output, to be changed and given to --plan, and do nothing."""


KINDS: dict[str, type[Sampling]] = {
    "new": New,
    "continue": Continue,
    "infill": Infill,
    "accompany": Accompany,
    "replace": Replace,
    "edit": Edit,
}


def piece_of(chosen: New) -> AskedPiece:
    """The new piece that is asked for.

    Raises:
        UserError: as AskedPiece.
    """
    return AskedPiece(chosen.prompt, chosen.programs, chosen.instruments, chosen.tempo, chosen.key, dashes="--")


def manner_of(chosen: OfFile) -> Manner:
    """How new notes are to be put into the file.

    Raises:
        UserError: as Manner.
    """
    return Manner(chosen.quantize, chosen.strength, chosen.velocity, dashes="--")


def change_of(chosen: Change, score: Score) -> AskedChange:
    """What of a score is to be written anew.

    Raises:
        UserError: a place that was named is not there, or none is where one is needed.
    """
    if isinstance(chosen, Continue):
        if not chosen.seconds >= 1 / TICKS_PER_SECOND:
            raise UserError(f"--seconds {chosen.seconds:g}: expected 0.01 or more")
        start = None if chosen.start is None else clock.place(score, chosen.start)
        return AskedChange("continue", start, seconds=chosen.seconds, instruments=chosen.add)
    assert isinstance(chosen, Infill | Accompany | Replace)
    span = changes.span(score, chosen.between, chosen.bars)
    if isinstance(chosen, Accompany):
        return AskedChange("accompany", span=span, instruments=chosen.add, tracks=chosen.keep)
    if isinstance(chosen, Replace):
        return AskedChange("replace", span=span, tracks=chosen.tracks)
    if span is None:
        raise UserError("infill: name the stretch to fill, --between 20s 35s or --bars 9-16")
    return AskedChange("infill", span=span, instruments=chosen.add)
