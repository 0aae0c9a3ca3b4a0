"""How fast music was written: its length over the time that an engine took for it, the real-time factor."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from midillm_jax.evaluation.generation import Generated


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What one engine wrote, on the machine that wrote it."""

    engine: str
    pieces: int
    music_seconds: float
    seconds: float
    """Wall time of prefill and decoding, batches as the evaluation made them; compiling is left out."""

    @property
    def real_time_factor(self) -> float:
        """Seconds of music a second."""
        return self.music_seconds / self.seconds if self.seconds else 0.0

    def line(self) -> str:
        """In words."""
        return (
            f"{self.real_time_factor:.3g} s of music a second of prefill and decoding ({self.pieces:,} pieces, "
            f"{self.music_seconds:,.0f} s of music, {self.seconds:,.1f} s)"
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"real_time_factor": self.real_time_factor}


def by_engine(generated: Sequence[Generated]) -> tuple[Decoding, ...]:
    """A row an engine; pieces of which it is not known how they were made are left out."""
    known = [(piece.table.seconds(), piece.written) for piece in generated if piece.written is not None]
    rows = []
    for engine in dict.fromkeys(written.engine for _, written in known):
        music, seconds = zip(*((music, how.seconds) for music, how in known if how.engine == engine), strict=True)
        rows.append(Decoding(engine, len(music), sum(music), sum(seconds)))
    return tuple(rows)
