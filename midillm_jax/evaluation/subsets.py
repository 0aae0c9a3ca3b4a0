"""Every score once more, of some of the pieces only: those that are no failed music, those that training has not
nearly seen.
"""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

from midillm_jax.evaluation import control, quality, tables
from midillm_jax.evaluation.control import ControlSummary
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.likelihood import Likelihood
from midillm_jax.evaluation.music_scores import MusicScores, symbolic_scores
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.evaluation.quality import Nearness
from midillm_jax.evaluation.symbolic import DrumsAsAsked, InstrumentsAsAsked


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of a set of generated pieces and, where it bears on them, of held-out ones."""

    generated: int
    likelihood: Likelihood | None
    """None where held-out pieces have no part in it, or none is left."""
    drums: DrumsAsAsked
    instruments: InstrumentsAsAsked | None
    control: ControlSummary
    quality: tuple[Nearness, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "generated": self.generated,
            "bits_per_note": None if self.likelihood is None else self.likelihood.to_json(),
            "drums_as_asked": self.drums.to_json(),
            "instruments_as_asked": None if self.instruments is None else self.instruments.to_json(),
            "control": self.control.to_json(),
            "quality": [dataclasses.asdict(each) for each in self.quality],
        }


def score(
    generated: Sequence[Generated],
    kept: Sequence[bool],
    unseen: Sequence[Generated],
    music: MusicScores,
    likelihood: Likelihood | None,
    seed: int,
) -> Scores:
    """Scores of the pieces that are kept.

    Args:
        generated: all of them.
        kept: whether each is kept.
        unseen: those of prompts that training did not see.
        music: their scores, which hold what was measured of each.
        likelihood: of the held-out pieces that are kept.
        seed: of the resamples.
    """
    paths = {piece.path for piece, keep in zip(generated, kept, strict=True) if keep}
    asked = [piece for piece in unseen if piece.path in paths]
    drums, instruments = symbolic_scores(asked, seed)
    if all(kept):
        return Scores(len(paths), likelihood, drums, instruments, music.control, music.quality)
    measured = [one for one, keep in zip(music.measured, kept, strict=True) if keep]
    return Scores(
        generated=len(paths),
        likelihood=likelihood,
        drums=drums,
        instruments=instruments,
        control=control.summary(
            [control.hear(piece.table) for piece in asked], [read_prompt(piece.prompt.text) for piece in asked], seed
        ),
        quality=quality.summary(measured, music.references, seed),
    )


def section(title: str, note: str, scores: Scores, whole: Scores) -> str:
    """A section of the page: each score of the whole set beside that of the subset."""
    rows = []
    if whole.likelihood is not None:
        part = scores.likelihood
        rows.append(("bits a note", whole.likelihood.model.numbers(), "" if part is None else part.model.numbers()))
    if whole.instruments is not None:
        part_f1 = "" if scores.instruments is None else scores.instruments.f1.percent()
        rows.append(
            ("instruments of the piece that the caption describes, F1", whole.instruments.f1.percent(), part_f1)
        )
    controls = {each.name: each.share.percent() for each in scores.control.measures}
    for each in whole.control.measures:
        rows.append((tables.CONTROLS[each.name], each.share.percent(), controls.get(each.name, "")))
    overlaps = {each.name: each.overlap.percent() for each in scores.quality}
    for near in whole.quality:
        name = f"{near.name.replace('_', ' ')}, overlapped area"
        rows.append((name, near.overlap.percent(), overlaps.get(near.name, "")))
    cells = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="number">{all_of_them}</td><td class="number">{some}</td></tr>'
        for name, all_of_them, some in rows
    )
    table = (
        f'<table><tr><th>score</th><th class="number">all {whole.generated}</th>'
        f'<th class="number">{scores.generated} of them</th></tr>{cells}</table>'
    )
    return (
        f'<h2>{html.escape(title)}</h2><article class="card scroll"><p class="note">{html.escape(note)}</p>'
        f"{table if rows else ''}</article>"
    )
