"""Failed music among what was made: how much of it has a sign of failure, and every score without it.

The signs are those of music/signatures.py; a piece that has any is *rejected*.
"""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any

from midillm_jax.data.shards import Piece
from midillm_jax.evaluation import subsets
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.intervals import Interval, wilson
from midillm_jax.evaluation.music_scores import MusicScores
from midillm_jax.evaluation.subsets import Scores
from midillm_jax.music.signatures import Signatures, signatures

PIECE_SIGNS = ("looping", "flooded", "empty")
REJECTED = "rejected"
SIGNS = (*PIECE_SIGNS, REJECTED)
"""Fields of Signatures; the last is any of the others."""


@dataclasses.dataclass(frozen=True)
class Failed:
    """What was found."""

    signs: Mapping[str, Interval]
    """Share of the generated pieces with each of SIGNS."""
    real: Mapping[str, Interval] | None
    """The same of the real pieces beside them; None where there are none."""
    of_piece: tuple[tuple[str, ...], ...]
    """The signs of each generated piece."""
    without: Scores | None
    """Scores without rejected pieces; None where none or all are rejected."""

    def line(self) -> str:
        """The result in words."""
        return f"failed music: {self.signs[REJECTED].percent()} of {len(self.of_piece)} pieces are rejected"

    def to_json(self) -> dict[str, Any]:
        return {
            "shares": _shares(self.signs),
            "real": None if self.real is None else _shares(self.real),
            "without": None if self.without is None else self.without.to_json(),
        }

    def section(self, whole: Scores) -> str:
        """Of the page; ``whole`` are the scores of all pieces."""
        shares = ", ".join(f"{name} {self.signs[name].percent()}" for name in SIGNS)
        beside = "" if self.real is None else f"; of the real ones {self.real[REJECTED].percent()} are rejected"
        note = f"Signs of failed music (music/signatures.py), share of pieces: {shares}{beside}."
        if self.without is None:
            return f'<h2>Failed pieces</h2><article class="card"><p>{html.escape(note)}</p></article>'
        return subsets.section("Failed pieces", note, self.without, whole)


def score(
    generated: Sequence[Generated],
    unseen: Sequence[Generated],
    real: Sequence[Piece],
    music: MusicScores,
    seed: int,
) -> Failed:
    """Looks for the signs, and takes the scores once more without the pieces that have one.

    Args:
        generated, unseen, real, music: as for music_scores.score, and its result.
        seed: of the resamples.
    """
    found = [signatures(piece.table) for piece in generated]
    kept = [not each.rejected for each in found]
    without = None
    if any(kept) and not all(kept):
        without = subsets.score(generated, kept, unseen, music, None, seed)
    return Failed(
        signs=_counted(found),
        real=_counted([signatures(piece.notes) for piece in real]) if real else None,
        of_piece=tuple(tuple(name for name in PIECE_SIGNS if getattr(each, name)) for each in found),
        without=without,
    )


def _counted(found: Sequence[Signatures]) -> dict[str, Interval]:
    return {name: wilson(sum(getattr(each, name) for each in found), len(found)) for name in SIGNS}


def _shares(signs: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: dataclasses.asdict(share) for name, share in signs.items()}
