"""Music among music that is there, and music longer than a model's window: one request after another.

A window is what one sequence of the model holds: its context, and at most 100 seconds, counted from the window's own
beginning. What stands before the place where the model goes on is its history, in which it has written itself or
read; what is given besides, before and behind, are controls (arXiv 2306.08620), which the grammar forces where they
are due. When a window is full before the music is done, the next one begins with the later half of it as history.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import MusicModel, guidance
from midillm_jax.inference.engine import Stage
from midillm_jax.inference.request import MAX_SEEDS, MusicRequest, TokenRequest
from midillm_jax.music import anticipation, grammar_check
from midillm_jax.music.grammar import Limits
from midillm_jax.music.vocab import (
    ANTICIPATE,
    ANTICIPATION_TICKS,
    AUTOREGRESS,
    CONTROL_OFFSET,
    MAX_GAP_TICKS,
    MAX_ONSET_TICKS,
    REST,
    SEPARATOR,
    TICKS_PER_SECOND,
)
from midillm_jax.text.prompt import prompt_ids

_HISTORY_SHARE = 0.5
"""Of a window's triples, and of its 100 seconds: what of them stands there before the model goes on, at most."""
_LEAST_TRIPLES = 8
"""To write in a window at least; a prompt that leaves less room, with as much history, is refused."""
_NEXT_SEED = 0x9E3779B1
"""Between the seeds of two windows: noise is drawn by place in a window, and should not come again."""
_NO_EVENTS = np.zeros(0, np.int32)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where music is to be written, and what is there. Onsets are ticks of 10 ms from the beginning of the piece."""

    start_ticks: int = 0
    """No new note begins before this."""
    end_ticks: int = MAX_ONSET_TICKS
    """No new note begins at or after this."""
    before: np.ndarray = dataclasses.field(default_factory=lambda: _NO_EVENTS)
    """int32 [3n] events, sorted, that begin before ``start_ticks``: the model goes on with them."""
    given: np.ndarray = dataclasses.field(default_factory=lambda: _NO_EVENTS)
    """int32 [3m] events, sorted, that the new ones are to go with."""
    programs: tuple[int, ...] | None = None
    """Programs that new notes may have, 128 for drums; None for all."""
    max_notes: int | None = None
    """New notes at most; None for as many as come."""
    may_close: bool = True
    """Whether the model may end the music before ``end_ticks``."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_ticks < self.end_ticks:
            raise ValueError(f"from {self.start_ticks} to {self.end_ticks} ticks there is no place for music")


class NewMusic(NamedTuple):
    """What was written for one output."""

    events: np.ndarray
    """int32 [3n], sorted, without rests, onsets from the beginning of the piece."""
    closed: bool
    """Whether the model ended it, or reached the end of the place; False where ``max_notes`` cut it."""


class _Window(NamedTuple):
    """A request, and where its ticks are counted from."""

    origin: int
    request: TokenRequest


@dataclasses.dataclass
class _Output:
    """One piece on its way."""

    number: int
    notes: list[np.ndarray] = dataclasses.field(default_factory=list)
    """int32 [3] each."""
    at: int = 0
    """Tick that it has reached."""
    window: _Window | None = None
    windows: int = 0
    """Begun so far."""
    written: list[np.ndarray] = dataclasses.field(default_factory=list)
    """Of this window."""

    def events(self) -> np.ndarray:
        return np.concatenate(self.notes) if self.notes else _NO_EVENTS


def write(
    model: MusicModel,
    request: MusicRequest,
    place: Place,
    tell: Callable[[Stage, float], None] | None = None,
    hear: Callable[[int, np.ndarray], None] | None = None,
) -> list[NewMusic]:
    """Writes music into a place, once for each output.

    Args:
        model: what writes.
        request: the words, the number of outputs, seed and sampling; what it says of length and programs is not used.
        place: from when to when, and among what.
        tell: hears the stage as each begins, and how many seconds of the place all outputs have reached.
        hear: hears of new notes as they are written: which output, and int32 [3n] events.

    Raises:
        UserError: the prompt leaves no room for music in a sequence of the model, or what is given does.
        RuntimeError: the engine broke the grammar, which is a fault of ours.
    """
    outputs = [_Output(number, at=place.start_ticks) for number in range(request.outputs)]
    running: dict[int, _Output] = {}
    closed: dict[int, bool] = {}

    def said(stage: Stage) -> None:
        if tell is not None:
            reached = min((output.at for output in outputs if output.number not in closed), default=place.end_ticks)
            tell(stage, (reached - place.start_ticks) / TICKS_PER_SECOND)

    def begin(output: _Output) -> None:
        seeded = dataclasses.replace(request, seed=(request.seed + output.windows * _NEXT_SEED) % MAX_SEEDS)
        output.window = window(model, seeded, place, output.number, output.events(), output.at)
        output.windows, output.written = output.windows + 1, []
        running[model.engine.add(output.window.request)] = output

    try:
        for output in outputs:
            begin(output)
        while running:
            for part in model.engine.step(said):
                output = running[part.key]
                new = _take(output, part.amt_ids)
                if hear is not None and len(new):
                    hear(output.number, new)
                if part.done:
                    del running[part.key]
                    ended = _ended(model, output, place)
                    if ended is None:
                        begin(output)
                    else:
                        closed[output.number] = ended
    finally:
        for key in running:
            model.engine.drop(key)
    return [NewMusic(output.events(), closed[output.number]) for output in outputs]


def window(
    model: MusicModel, request: MusicRequest, place: Place, output: int, new: np.ndarray, at_ticks: int
) -> _Window:
    """The request that goes on at a tick, behind what was there and what is new: int32 [3n] events.

    Raises:
        UserError: the prompt leaves no room for music.
    """
    anticipated = len(place.given) > 0
    flag = model.tokenizer.vocab_size + (ANTICIPATE if anticipated else AUTOREGRESS)
    prompt = (*prompt_ids(model.tokenizer, request.prompt), flag)
    room = (model.sequence_length - len(prompt)) // 3
    if room * (1 - _HISTORY_SHARE) < _LEAST_TRIPLES:
        raise UserError(
            f"the prompt takes {len(prompt)} tokens of the {model.sequence_length} that a sequence of this model "
            "holds, which leaves too little for music; shorten the prompt"
        )
    own = np.concatenate((place.before, new))
    origin, history, controls = _history(own, place.given, at_ticks, int(room * _HISTORY_SHARE))
    end = min(place.end_ticks - origin, MAX_ONSET_TICKS)
    heard = int((history[2::3] < REST).sum())
    limits = Limits(
        programs=place.programs,
        start_ticks=at_ticks - origin,
        end_ticks=end,
        max_notes=None if place.max_notes is None else heard + place.max_notes - len(new) // 3,
        distinct=True,
        closes=model.closes and place.may_close,
    )
    return _Window(
        origin,
        TokenRequest(
            prompt=prompt,
            limits=limits,
            max_triples=_room(room - len(history) // 3, place, len(new) // 3, end - limits.start_ticks, controls),
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            output=output,
            history=tuple(history.tolist()),
            controls=tuple(controls.tolist()),
            **guidance(request, model.tokenizer, flag),
        ),
    )


def _room(left: int, place: Place, new: int, ticks: int, controls: np.ndarray) -> int:
    """Triples to write in a window: what is left of it, or what is wanted if that is less."""
    if place.max_notes is None:
        return left
    return min(left, place.max_notes - new + ticks // MAX_GAP_TICKS + len(controls) // 3 + 1)


def _history(own: np.ndarray, given: np.ndarray, at: int, most: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Where a window begins that goes on at a tick, its history of at most ``most`` triples, and its controls."""
    own_times, given_times = anticipation.onsets(own), anticipation.onsets(given)
    times = np.unique(np.concatenate((own_times, given_times[given_times < at])))
    # As in training: a window begins with a note, and a piece's first one where the piece does.
    starts = times[times >= at - int(MAX_ONSET_TICKS * _HISTORY_SHARE)].tolist()
    if starts and starts[0] == times[0] <= ANTICIPATION_TICKS:
        starts[0] = 0
    for origin in (*starts, at):
        events = anticipation.translate(own[np.repeat(own_times >= origin, 3)], -origin)
        ahead = (given_times >= origin) & (given_times - origin < MAX_ONSET_TICKS)
        controls = anticipation.translate(given[np.repeat(ahead, 3)] + np.int32(CONTROL_OFFSET), -origin)
        history = anticipation.weave(events, controls, at - origin)
        if origin == at or 0 < len(history) // 3 <= most:
            break
    return origin, history, controls


def _take(output: _Output, amt_ids: np.ndarray) -> np.ndarray:
    """Adds what a step wrote, and gives the notes that are new."""
    assert output.window is not None
    output.written.append(amt_ids)
    triples = amt_ids.reshape(-1, 3)
    events = triples[triples[:, 0] < CONTROL_OFFSET]
    if len(events):
        output.at = max(output.at, output.window.origin + int(events[-1, 0]))
    notes = anticipation.translate(events[events[:, 2] != REST].reshape(-1), output.window.origin)
    if len(notes):
        output.notes.append(notes)
    return notes


def _ended(model: MusicModel, output: _Output, place: Place) -> bool | None:
    """Whether the music is whole; None where it goes on in another window.

    Raises:
        UserError: nothing but given notes found room in the window.
        RuntimeError: what was written breaks the grammar.
    """
    assert output.window is not None
    (origin, request), written = output.window, np.concatenate(output.written)
    sequence = np.concatenate((np.array(request.history, np.int32), written))
    reason = grammar_check.check(sequence, request.limits, len(request.history))
    if reason is not None:
        raise RuntimeError(f"engine {model.engine.name} wrote ids outside the grammar: {reason}")
    if place.max_notes is not None and sum(map(len, output.notes)) // 3 >= place.max_notes:
        return False
    if len(written) and int(written[-1]) == SEPARATOR:
        # At the end of its 100 seconds a window closes for want of ticks.
        full = origin + request.limits.end_ticks < place.end_ticks
        near = output.at - origin + MAX_GAP_TICKS >= request.limits.end_ticks
        return None if full and near else True
    if (written[0::3] >= CONTROL_OFFSET).all():
        raise UserError(
            f"the music given around {output.at / TICKS_PER_SECOND:.0f} s has more notes in five seconds than a window "
            "of this model holds; give it fewer tracks to go with"
        )
    return None
