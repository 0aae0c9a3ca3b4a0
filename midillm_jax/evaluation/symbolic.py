"""Did the music do what the caption asked? Answers that are read from the notes alone.

Every score stands beside the same outputs judged against shuffled captions: the mean over all orders in which the
asks can be dealt out to the outputs. An output depends on its own caption and seed alone, so judging output i by the
caption of j is judging what caption i gave by another caption; generating from shuffled captions and judging by the
originals has the same mean. A model that ignores its caption scores no better than that, however many drums it plays.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from midillm_jax.evaluation.intervals import Interval, bootstrap, is_better
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM


def has_drums(notes: NoteTable) -> bool:
    """Whether anything plays on the drum kit."""
    return DRUM_PROGRAM in notes.programs()


@dataclasses.dataclass(frozen=True)
class DrumsAsAsked:
    """Share of outputs that have drums if and only if their caption asks for them."""

    prompts: int
    silent_prompts: int
    """Prompts that say nothing about drums; they are left out."""
    share: Interval | None
    """None where no prompt says anything."""
    shuffled: Interval | None
    better_by: Interval | None
    wins: bool

    def line(self, prompt: str = "unseen prompt") -> str:
        """The result in one line; ``prompt`` is what they are called."""
        if self.share is None or self.shuffled is None or self.better_by is None:
            return f"drums as asked: no {prompt} says whether it wants drums: not better"
        if self.wins:
            verdict = f"better by {self.better_by.percent(' points')}"
        else:
            verdict = f"not better ({self.better_by.percent(' points')})"
        return (
            f"drums as asked on {self.prompts} {prompt}s: {self.share.percent()}, "
            f"shuffled captions {self.shuffled.percent()}: {verdict}"
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"line": self.line()}


def drums_as_asked(asked: Sequence[bool | None], heard: Sequence[bool], seed: int) -> DrumsAsAsked:
    """Compares what captions ask for (prompt_players.py) with what outputs hold, output by output."""
    said = [(ask, has) for ask, has in zip(asked, heard, strict=True) if ask is not None]
    silent = len(asked) - len(said)
    if not said:
        return DrumsAsAsked(0, silent, None, None, None, False)
    asks, has = (np.array(column, np.float64) for column in zip(*said, strict=True))
    agree = (asks == has).astype(np.float64)

    def shares(weights: np.ndarray) -> np.ndarray:
        own = weights @ agree / len(said)
        asking, having = weights @ asks / len(said), weights @ has / len(said)
        shuffled = asking * having + (1 - asking) * (1 - having)
        return np.stack([own, shuffled, own - shuffled], axis=1)

    share, shuffled, better_by = bootstrap(shares, len(said), seed)
    return DrumsAsAsked(len(said), silent, share, shuffled, better_by, is_better(better_by, len(said)))


@dataclasses.dataclass(frozen=True)
class InstrumentsAsAsked:
    """Instruments of the outputs beside those of the held-out pieces that the captions describe.

    Instruments are told apart by the words that captions have for them (music/instruments.py), drums included.
    """

    prompts: int
    precision: Interval
    """Share of the instruments played that the piece has."""
    recall: Interval
    """Share of the piece's instruments that were played."""
    f1: Interval
    shuffled_f1: Interval
    better_by: Interval
    """F1 minus that of shuffled captions."""
    wins: bool

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def instruments_as_asked(
    asked: Sequence[Sequence[int]], heard: Sequence[Sequence[int]], seed: int
) -> InstrumentsAsAsked:
    """Compares programs, output by output; counts are added up over outputs before shares are taken."""
    wanted, played = instrument_matrix(asked), instrument_matrix(heard)
    items = len(wanted)
    hits, wanted_sizes, played_sizes = (wanted * played).sum(1), wanted.sum(1), played.sum(1)

    def shares(weights: np.ndarray) -> np.ndarray:
        hit, want, play = weights @ hits, weights @ wanted_sizes, weights @ played_sizes
        shuffled_hit = ((weights @ wanted) * (weights @ played)).sum(1) / items
        f1, shuffled_f1 = 2 * hit / (want + play), 2 * shuffled_hit / (want + play)
        return np.stack([hit / play, hit / want, f1, shuffled_f1, f1 - shuffled_f1], axis=1)

    precision, recall, f1, shuffled_f1, better_by = bootstrap(shares, items, seed)
    wins = is_better(better_by, items)
    return InstrumentsAsAsked(items, precision, recall, f1, shuffled_f1, better_by, wins)


def instrument_matrix(programs: Sequence[Sequence[int]]) -> np.ndarray:
    """float64 [outputs, words], 1 where an instrument of that name plays."""
    names = {word: column for column, word in enumerate(dict.fromkeys(CAPTION_WORDS))}
    matrix = np.zeros((len(programs), len(names)))
    for row, playing in enumerate(programs):
        matrix[row, [names[CAPTION_WORDS[program]] for program in playing]] = 1
    return matrix
