"""The plan of an edit, run on a score: by rule where that does, by a model where new notes are asked for."""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.prompt_players import asked_instruments, asks_for_drums
from midillm_jax.inference.changes import Change
from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.editing import write_into
from midillm_jax.inference.engine import Stage
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.edit_operations import Applied, Target, apply
from midillm_jax.music.edit_plan import Plan, Regenerate
from midillm_jax.music.edit_words import plan_of
from midillm_jax.music.grid import Grid
from midillm_jax.music.parts import Part, track_names
from midillm_jax.music.score import Score
from midillm_jax.music.vocab import DRUM_PROGRAM


def plan_for(score: Score, words: str) -> Plan:
    """What words ask for; see docs/editing_by_words.md.

    Raises:
        UserError: some of them are not understood, which it names; or they ask for nothing.
    """
    plan = plan_of(words, track_names(score).values())
    if not plan:
        raise UserError(f"{words!r} asks for nothing; say what to change, such as 'mute the drums in bars 1-4'")
    return plan


def needs_model(plan: Plan) -> bool:
    """Whether new notes are asked for."""
    return any(isinstance(operation, Regenerate) for operation in plan)


def programs_in(text: str) -> tuple[int, ...] | None:
    """The programs of the instruments that a text names, drums among them; None where it names none."""
    found = {program for one in asked_instruments(text) or () for program in one}
    if asks_for_drums(text):
        found.add(DRUM_PROGRAM)
    return tuple(sorted(found)) or None


def run(
    score: Score,
    plan: Plan,
    model: MusicModel | None,
    request: MusicRequest,
    *,
    grid: Grid | None = None,
    strength: float = 1.0,
    velocity: int | None = None,
    tell: Callable[[Stage, float], None] | None = None,
    hear: Callable[[int, np.ndarray], None] | None = None,
    check: Callable[[Score], None] | None = None,
) -> Applied:
    """The score after a plan.

    Args:
        score: any.
        plan: of operations.
        model: what writes new notes; may be None for a plan that asks for none.
        request: seed and sampling, and the words for operations that have none of their own.
        grid: as in :func:`~midillm_jax.inference.editing.write_into`; so are the others up to ``hear``.
        check: hears of the score after each operation; what it raises ends the work.

    Raises:
        UserError: a span or part is not in the score, or an operation cannot be done to it.
        ValueError: new notes are asked for, and there is no model.
    """

    def regenerate(score: Score, operation: Regenerate, target: Target) -> Score:
        if model is None:
            raise ValueError("new notes are asked for, and there is no model")
        change = Change(target.start, target.end, target.parts, _programs(operation, target.parts))
        asked = dataclasses.replace(request, prompt=operation.text or request.prompt, outputs=1)
        (edited,) = write_into(
            model, score, change, asked, grid=grid, strength=strength, velocity=velocity, tell=tell, hear=hear
        )
        return edited.score

    return apply(score, plan, regenerate, seed=request.seed, check=check)


def _programs(operation: Regenerate, parts: Collection[Part]) -> tuple[int, ...] | None:
    """What may play: the instruments of what is replaced, or for what is added those that its words name."""
    if operation.parts is not None:
        return tuple(sorted({part.program for part in parts})) or None
    return programs_in(operation.text)
