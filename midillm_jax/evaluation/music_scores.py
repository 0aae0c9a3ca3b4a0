"""What the generated music itself tells: whether it is what was asked for, and how like real music it is."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from midillm_jax.data.shards import Piece
from midillm_jax.evaluation import control, quality
from midillm_jax.evaluation.control import ControlSummary
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.evaluation.prompt_players import asks_for_drums
from midillm_jax.evaluation.quality import Nearness, Quality
from midillm_jax.evaluation.symbolic import (
    DrumsAsAsked,
    InstrumentsAsAsked,
    drums_as_asked,
    has_drums,
    instruments_as_asked,
)


@dataclasses.dataclass(frozen=True)
class MusicScores:
    """Measures of a set of pieces, beside the same of the held-out ones."""

    control: ControlSummary
    """Of music from unseen prompts, by what the prompts say in words."""
    ceiling: ControlSummary
    """Of the held-out pieces and their own captions: what the estimators hear there is the most a model can reach."""
    quality: tuple[Nearness, ...]
    """Of all generated pieces, beside the held-out ones."""
    measured: tuple[Quality, ...]
    """Of each generated piece."""
    references: tuple[Quality, ...]
    """Of each held-out piece."""

    def to_json(self) -> dict[str, Any]:
        return {
            "control": self.control.to_json(),
            "ceiling": self.ceiling.to_json(),
            "quality": [dataclasses.asdict(each) for each in self.quality],
        }


def score(
    generated: Sequence[Generated],
    unseen: Sequence[Generated],
    held_out: Sequence[Piece],
    seed: int,
    report: Callable[[int, int], None],
) -> MusicScores:
    """Listens to all pieces.

    Args:
        generated: all of them.
        unseen: those of prompts that training did not see.
        held_out: real pieces; those with a caption are held against it.
        seed: of the resamples.
        report: called with how many pieces are done, and of how many.
    """
    total, done = len(generated) + len(held_out), 0
    measured: tuple[list[quality.Quality], list[quality.Quality]] = ([], [])
    for kind, tables in enumerate(([each.table for each in generated], [each.notes for each in held_out])):
        for table in tables:
            report(done, total)
            measured[kind].append(quality.measure(table))
            done += 1
    captioned = [each for each in held_out if each.captions]
    return MusicScores(
        control=control.summary(
            [control.hear(each.table) for each in unseen], [read_prompt(each.prompt.text) for each in unseen], seed
        ),
        ceiling=control.summary(
            [control.hear(each.notes) for each in captioned],
            [read_prompt(each.captions[0]) for each in captioned],
            seed,
        ),
        quality=quality.summary(*measured, seed),
        measured=tuple(measured[0]),
        references=tuple(measured[1]),
    )


def symbolic_scores(generated: Sequence[Generated], seed: int) -> tuple[DrumsAsAsked, InstrumentsAsAsked | None]:
    """Drums, and instruments where every prompt describes a piece."""
    asked = [asks_for_drums(piece.prompt.text) for piece in generated]
    drums = drums_as_asked(asked, [has_drums(piece.table) for piece in generated], seed)
    wanted = [piece.prompt.programs for piece in generated]
    known = [programs for programs in wanted if programs is not None]
    if not known or len(known) < len(wanted):
        return drums, None
    return drums, instruments_as_asked(known, [piece.table.programs() for piece in generated], seed)
