"""What an evaluation may say besides: of text, of failed pieces, and without what training has nearly seen.

    text.json          nats of each document

Each part has a section of the page, a key of results.json and, where it is one number, a line.
"""

import dataclasses
import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from midillm_jax.data.shards import Piece, SplitReader
from midillm_jax.errors import UserError
from midillm_jax.evaluation import failed, inputs, near_duplicates, subsets, text_scores
from midillm_jax.evaluation.failed import Failed
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.inputs import HeldOut
from midillm_jax.evaluation.likelihood import PieceNats, summarize
from midillm_jax.evaluation.music_scores import MusicScores
from midillm_jax.evaluation.subsets import Scores
from midillm_jax.evaluation.text_scores import Document, DocumentNats, TextScores
from midillm_jax.files import write_whole
from midillm_jax.text.tokenizer import load_tokenizer

TEXT = "text.json"

Tell = Callable[[str, int, int | None], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is asked for."""

    text: Path | None = None
    """Held-out text, as shards or plain."""
    text_tokens: int = 20_000
    base: Path | None = None
    """The text model that the model was trained from."""
    near_duplicates: bool = False
    """Whether scores are also taken without held-out pieces that nearly are one of the train split."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was found of it before the work begins."""

    settings: Settings
    documents: tuple[Document, ...]
    identity: dict[str, Any]
    """What decides the results; JSON-able."""


def plan(settings: Settings, model: Path, seed: int) -> Plan:
    """Reads the text and looks at the base.

    Raises:
        UserError: there is no text, or the base is not of the model's vocabulary, or one of them is missing.
    """
    if settings.base is not None and settings.text is None:
        raise UserError(f"--base {settings.base}: the distance is taken on text; give --text too")
    documents: list[Document] = []
    base = None
    if settings.text is not None:
        tokenizer = load_tokenizer(model)
        documents = text_scores.read_documents(settings.text, tokenizer, settings.text_tokens, seed)
        if settings.base is not None:
            base = inputs.model_fingerprint(settings.base, "--base")
            text_scores.check_base(settings.base, tokenizer)
    identity = {
        "text": inputs.fingerprint([each.ids for each in documents]) if documents else None,
        "base": base,
        "near_duplicates": settings.near_duplicates,
    }
    return Plan(settings, tuple(documents), identity)


@dataclasses.dataclass(frozen=True)
class Further:
    """What was found."""

    text: TextScores | None
    failed: Failed
    whole: Scores
    """Of all pieces."""
    duplicates: int | None
    """Held-out pieces that nearly are one of the train split; None if they were not looked for."""
    new: Scores | None
    """Without those; None where none or all are."""

    def lines(self) -> tuple[str, ...]:
        """The results in words."""
        return (self.failed.line(), *(() if self.text is None else (self.text.line(),)))

    def to_json(self) -> dict[str, Any]:
        return {
            "text": None if self.text is None else self.text.to_json(),
            "failed": self.failed.to_json(),
            "near_duplicates": {
                "held_out": self.duplicates,
                "threshold": near_duplicates.THRESHOLD,
                "without": None if self.new is None else self.new.to_json(),
            },
        }

    def sections(self) -> tuple[str, ...]:
        """Of the page."""
        found = []
        if self.text is not None:
            found.append(f'<h2>Text</h2><article class="card"><p>{html.escape(self.text.line())}</p></article>')
        found.append(self.failed.section(self.whole))
        if self.duplicates is not None:
            note = (
                f"{self.duplicates} of the held-out pieces share {round(100 * near_duplicates.THRESHOLD)} % or more of "
                "their runs of intervals with a piece of the train split."
            )
            if self.new is None:
                found.append(f'<h2>Near duplicates</h2><article class="card"><p>{html.escape(note)}</p></article>')
            else:
                found.append(subsets.section("Without near duplicates of training", note, self.new, self.whole))
        return tuple(found)


def score(
    planned: Plan,
    text: TextScores | None,
    train: SplitReader,
    held_out: HeldOut,
    nats: Sequence[PieceNats],
    generated: Sequence[Generated],
    unseen: Sequence[Generated],
    music: MusicScores,
    seed: int,
    tell: Tell,
) -> Further:
    """Takes the scores that were planned.

    Args:
        planned: of :func:`plan`.
        text: of :func:`score_text`.
        train, held_out: the data.
        nats: of each held-out piece.
        generated, unseen, music: as for music_scores.score, and its result.
        seed: of the resamples.
        tell: called with what is going on.
    """
    duplicates, new = None, None
    if planned.settings.near_duplicates:
        near = near_duplicates.find(
            train, held_out.pieces, lambda done, total: tell("looking for near duplicates", done, total)
        )
        duplicates = sum(near)
        if any(near) and not all(near):
            names = {piece.name for piece, is_near in zip(held_out.pieces, near, strict=True) if is_near}
            new_prompts = [piece.prompt.name not in names for piece in generated]
            some = [each for each, is_near in zip(nats, near, strict=True) if not is_near]
            new = subsets.score(generated, new_prompts, unseen, music, summarize(some, seed), seed)
    return Further(
        text=text,
        failed=failed.score(generated, unseen, held_out.pieces, music, seed),
        whole=subsets.score(generated, [True] * len(generated), unseen, music, summarize(nats, seed), seed),
        duplicates=duplicates,
        new=new,
    )


def score_given(
    generated: Sequence[Generated], asked: Sequence[Generated], real: Sequence[Piece], music: MusicScores, seed: int
) -> Further:
    """What can be said of music that no model here made: there is no text, and what it was trained on is not known.

    Args:
        generated, asked, real, music: as for music_scores.score, and its result.
        seed: of the resamples.
    """
    return Further(
        text=None,
        failed=failed.score(generated, asked, real, music, seed),
        whole=subsets.score(generated, [True] * len(generated), asked, music, None, seed),
        duplicates=None,
        new=None,
    )


def score_text(
    planned: Plan, model: Path, identity: str, length: int, out: Path, seed: int, tell: Tell
) -> TextScores | None:
    """Scores the text that was planned, or takes its nats from the evaluation's folder; None where there is none.

    Args:
        planned: of :func:`plan`.
        model: its folder.
        identity: fingerprint of the model.
        length: tokens of a row.
        out: the evaluation's folder.
        seed: of the resamples.
        tell: called with what is going on.
    """
    if not planned.documents:
        return None
    key = inputs.fingerprint([identity, length, planned.identity["text"], planned.identity["base"]])
    path = out / TEXT
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return text_scores.summarize([DocumentNats(**fields) for fields in stored["documents"]], seed)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or cut off, or of another format
    tell("loading the model", 0, None)
    scored = text_scores.score(
        model,
        planned.settings.base,
        planned.documents,
        load_tokenizer(model),
        length,
        lambda done, total: tell("scoring text", done, total),
    )
    document = {"key": key, "documents": [dataclasses.asdict(each) for each in scored]}
    write_whole(path, json.dumps(document, indent=1) + "\n")
    return text_scores.summarize(scored, seed)
