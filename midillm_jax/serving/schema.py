"""What goes over HTTP. The docstrings are what /docs shows."""

import base64
import dataclasses

from pydantic import BaseModel, ConfigDict, Field

from midillm_jax.inference.compose import Composition
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.instruments import PROGRAM_NAMES


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Music(_Model):
    """What to write. A field that is left out is as `python -m midillm_jax.generate` has it."""

    prompt: str | None = None
    """Description of the music; null for music without one."""
    n: int = Field(MusicRequest.outputs, ge=1)
    """Pieces to write, each with randomness of its own."""
    seed: int = MusicRequest.seed
    """0 to 2**32 - 1. On the jax engine the same request gives the same pieces; another seed, others."""
    temperature: float = MusicRequest.temperature
    """0 always takes the most likely note; else 0.01 to 100, above 1 wilder, below 1 tamer."""
    top_p: float = MusicRequest.top_p
    """Only the most likely ids that together hold this probability can be drawn."""
    max_notes: int = MusicRequest.max_notes
    """Notes a piece has at most."""
    max_seconds: float = MusicRequest.max_seconds
    """No note starts at or after this."""
    programs: list[int] | None = None
    """General MIDI programs that may play, 0 to 127, or 128 for drums; null for all."""
    guidance: float = MusicRequest.guidance
    """How much the prompt counts: 1 as trained, 2 to 5 more, at twice the work; only on the jax engine."""
    stream: bool = False
    """Answer with server-sent events, as notes are sampled."""

    def request(self) -> MusicRequest:
        """The same for midillm_jax.inference.

        Raises:
            UserError: a value is out of its range.
        """
        fields = self.model_dump(exclude={"n", "stream", "programs"})
        programs = None if self.programs is None else tuple(self.programs)
        return MusicRequest(outputs=self.n, programs=programs, **fields)


class PieceOut(_Model):
    """One piece."""

    midi: str
    """A standard MIDI file in base64."""
    notes: int
    """How many it has."""
    seconds: float
    """When its last note ends."""
    instruments: list[str]
    """General MIDI's names, in order of their first note."""
    closed: bool
    """False if the piece was cut for want of room rather than ended."""

    @classmethod
    def of(cls, piece: Composition) -> "PieceOut":
        """The piece for the wire."""
        return cls(
            midi=base64.b64encode(piece.midi).decode(),
            notes=len(piece.table),
            seconds=piece.table.seconds(),
            instruments=[PROGRAM_NAMES[program] for program in piece.table.programs()],
            closed=piece.closed,
        )


class TimingsOut(_Model):
    """Seconds since the request came in."""

    queued: float
    """Until the engine had it."""
    first_note: float | None
    """Until the first note of any piece was sampled, waiting for others' music included; null if no piece has notes."""
    total: float
    """Until the last piece was done."""


class Answer(_Model):
    """All pieces of a request."""

    pieces: list[PieceOut]
    """In order: piece i is output i of the seed."""
    timings: TimingsOut
    model: str
    engine: str


class Problem(_Model):
    """Why there is no music."""

    detail: str
    """One sentence."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What one request may ask of a server."""

    outputs: int
    """Pieces."""
    prompt_letters: int
    body_bytes: int
    seconds: float
    """Until it is given up."""
