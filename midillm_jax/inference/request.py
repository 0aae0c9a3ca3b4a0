"""What a person asks for, and what an engine gets. Nothing here knows a model."""

import dataclasses

from midillm_jax.errors import UserError, require
from midillm_jax.music.grammar import Limits
from midillm_jax.music.vocab import MAX_ONSET_TICKS, TICKS_PER_SECOND

MAX_SEEDS = 1 << 32
MAX_NOTES = (1 << 31) - 1
"""The grammar counts in int32."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
"""Below, all draw as at 0, beyond as from evenly likely ids; further on float32 runs out."""
MAX_GUIDANCE = 20.0
"""Far beyond what still is music."""
MIN_TOP_P = 1e-6
"""Less than the most likely of 16,513 ids can have; at what float32 takes for 0 nothing would be left to draw."""


def check_sampling(prompt: str, seed: int, temperature: float, top_p: float) -> None:
    """What requests for music and for text ask of these.

    Raises:
        UserError: a value is out of its range.
    """
    require(
        ("seed", seed, 0 <= seed < MAX_SEEDS, f"0 to {MAX_SEEDS - 1}"),
        (
            "temperature",
            temperature,
            temperature == 0 or MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE,
            f"0, or {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}",
        ),
        ("top_p", top_p, MIN_TOP_P <= top_p <= 1, "0.000001 to 1"),
    )
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # no tokenizer takes half a character
        raise UserError(f"prompt: character {error.start + 1} is half of a pair (a surrogate), not text") from None


@dataclasses.dataclass(frozen=True)
class MusicRequest:
    """Music from words. The sampling defaults are MIDI-LLM's (arXiv 2511.03942): 682 notes, top-p 0.98.

    Raises:
        UserError: a value is out of its range.
    """

    prompt: str | None
    """Description of the music; None for music without one."""
    outputs: int = 1
    """Pieces to write, each with randomness of its own."""
    seed: int = 0
    """0 .. 2**32 - 1; the same request gives the same pieces."""
    temperature: float = 1.0
    """0 always takes the most likely id; else 0.01 to 100."""
    top_p: float = 0.98
    """Only the most likely ids that together hold this probability can be drawn."""
    max_notes: int = 682
    """A piece ends after this many notes if not before."""
    max_seconds: float = MAX_ONSET_TICKS / TICKS_PER_SECOND
    """No note starts at or after this."""
    programs: tuple[int, ...] | None = None
    """General MIDI programs that may sound, 128 for drums; None for all."""
    guidance: float = 1.0
    """How much the prompt counts (classifier-free guidance, arXiv 2207.12598): logits are those without the prompt plus
    this many times what the prompt adds to them; 1 is the model as it was trained."""

    def __post_init__(self) -> None:
        most = MAX_ONSET_TICKS / TICKS_PER_SECOND
        require(("outputs", self.outputs, self.outputs >= 1, "1 or more"))
        check_sampling(self.prompt or "", self.seed, self.temperature, self.top_p)
        require(
            ("max_notes", self.max_notes, 1 <= self.max_notes <= MAX_NOTES, f"1 to {MAX_NOTES}"),
            (
                "max_seconds",
                self.max_seconds,
                1 / TICKS_PER_SECOND <= self.max_seconds <= most,
                f"0.01 to {most:g}, the window of these tokens",
            ),
            ("guidance", self.guidance, 0 <= self.guidance <= MAX_GUIDANCE, f"0 to {MAX_GUIDANCE:g}"),
        )

    def limits(self, closes: bool) -> Limits:
        """The grammar's limits; ``closes`` says whether the model learned to end a piece."""
        return Limits(
            programs=self.programs,
            end_ticks=round(self.max_seconds * TICKS_PER_SECOND),
            max_notes=self.max_notes,
            closes=closes,
        )


@dataclasses.dataclass(frozen=True)
class TokenRequest:
    """One sequence for an engine to write.

    New music, a continuation (``history``), and infilling or accompaniment (``controls``) are this one request.
    """

    prompt: tuple[int, ...]
    """Token ids up to and including the flag."""
    limits: Limits
    max_triples: int
    """Triples to write at most, rests, controls and the closing SEPARATOR counted."""
    temperature: float
    top_p: float
    seed: int
    output: int = 0
    """Which of several outputs with this seed; each draws noise of its own."""
    history: tuple[int, ...] = ()
    """amt_ids of whole triples that stand behind the flag already; they are not written again."""
    controls: tuple[int, ...] = ()
    """Control ids (three a control) for the engine to write where they are due, those in ``history`` included."""
    guidance: float = 1.0
    """Logits are those behind ``unprompted`` plus this many times the difference to those behind ``prompt``."""
    unprompted: tuple[int, ...] = ()
    """Token ids up to and including the flag, without the words; only where ``guidance`` is not 1."""

    def token_ids(self, text_vocab_size: int, *, prompted: bool = True) -> tuple[int, ...]:
        """What stands there before the engine writes: prompt and history."""
        prompt = self.prompt if prompted else self.unprompted
        return (*prompt, *(amt_id + text_vocab_size for amt_id in self.history))

    @property
    def length(self) -> int:
        """Tokens of the finished sequence at most."""
        return len(self.prompt) + len(self.history) + 3 * self.max_triples
