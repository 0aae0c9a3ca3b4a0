"""Music made worse, step by step: what a measure of music has to tell from the real thing.

From one set of real pieces and their captions come sets of the same size and order, each of which lacks something more:

- captions shuffled: the same music, each piece held against the caption of another
- other genre: music of another source folder or style, held against the caption
- pitches scrambled: the piece's pitches dealt out to its notes anew, drums apart; who plays, when and how long stays
- noise: as many notes, in the same time, each with an onset, a duration, an instrument and a pitch drawn alike from all

Beside them stands music that a 5-gram model (ngram.py) wrote, as many notes as the piece has: right from one note to
the next, without form, and without a caption.
"""

import collections
import dataclasses
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.ngram import Ngram
from midillm_jax.music.amt import DEFAULT_VELOCITY
from midillm_jax.music.midi import NoteTable, read_midi
from midillm_jax.music.vocab import DRUM_PROGRAM, MAX_DURATION_TICKS, NOTES, PITCHES

REAL, SHUFFLED, OTHER, SCRAMBLED, NOISE = "real", "captions shuffled", "other genre", "pitches scrambled", "noise"
NGRAM = "5-gram"
LADDER = (REAL, SHUFFLED, OTHER, SCRAMBLED, NOISE)
"""From best to worst."""
SETS = (*LADDER, NGRAM)
NOTES_FROM, NOTES_TO = 32, 4_000
"""Of the pieces that are drawn: shorter ones have no form, longer ones take long."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A real piece."""

    notes: NoteTable
    caption: str
    kind: str
    """Its source folder or style."""


@dataclasses.dataclass(frozen=True)
class Draw:
    """Real pieces, parted so that no two parts share a group."""

    examples: tuple[Example, ...]
    references: tuple[NoteTable, ...]
    """As many as examples, from the same kinds, to measure likeness by."""
    others: tuple[NoteTable, ...]
    """To count n-grams on."""


def draw(captions: Path, pieces: int, seed: int, held_out: Collection[str] | None = None) -> Draw:
    """Draws examples and references from a captions.jsonl, evenly over the kinds as far as those last.

    A kind is the folder that a file lies in, or its genre where all lie in one. Only pieces of NOTES_FROM to NOTES_TO
    notes are drawn, one of a group, and as references at most a third of a kind's groups.

    Args:
        captions: the file.
        pieces: examples, and as many references.
        seed: of the draw.
        held_out: names of files, with which locations end; examples are drawn from those alone and all else from the
            others, for models that were trained on the others. None draws examples as references.

    Raises:
        UserError: there are not that many pieces.
    """
    rows = [json.loads(line) for line in captions.read_text(encoding="utf-8").splitlines()]
    tables = [read_midi((captions.parent / row["location"]).read_bytes(), compiled=True) for row in rows]
    folders = len({Path(row["location"]).parent for row in rows}) > 1
    kinds = [_kind(row, folders) for row in rows]
    groups = [row.get("group") or row["location"] for row in rows]
    unseen = [held_out is not None and _ends_with(row["location"], held_out) for row in rows]
    waiting: dict[bool, dict[str, dict[str, int]]] = {part: collections.defaultdict(dict) for part in (False, True)}
    for number in np.random.default_rng(seed).permutation(len(rows)).tolist():
        if NOTES_FROM <= len(tables[number]) <= NOTES_TO:
            waiting[unseen[number]][kinds[number]].setdefault(groups[number], number)
    seen = {kind: list(waiting[False][kind].values()) for kind in sorted(waiting[False])}
    few = [numbers[: len(numbers) // 6 * 2] for numbers in seen.values()]
    if held_out is None:
        # A kind gives an example and a reference at a time, so that both parts are alike.
        examples, references = [list(_dealt([numbers[side::2] for numbers in few])) for side in (0, 1)]
    else:
        examples = list(_dealt([list(waiting[True][kind].values()) for kind in sorted(waiting[True])]))
        references = list(_dealt(few))
    found = min(len(examples), len(references))
    if found < pieces:
        raise UserError(
            f"{captions}: {found} of {len(rows)} pieces can be drawn, with a reference each; expected {pieces}; "
            "ask for fewer pieces"
        )
    examples, references = examples[:pieces], references[:pieces]
    used = {groups[number] for number in (*examples, *references)}
    others = [n for n, group in enumerate(groups) if group not in used and not unseen[n]]
    return Draw(
        tuple(Example(tables[n], _caption(rows[n]), kinds[n]) for n in examples),
        tuple(tables[n] for n in references),
        tuple(tables[n] for n in others),
    )


def _dealt(queues: Sequence[Sequence[int]]) -> Iterator[int]:
    """One of each queue in turn, as long as any lasts."""
    return (number for turn in itertools.zip_longest(*queues) for number in turn if number is not None)


def _ends_with(location: str, names: Collection[str]) -> bool:
    """Whether a location is one of the names, or one of them in a folder above it."""
    parts = Path(location).parts
    return any("/".join(parts[start:]) in names for start in range(len(parts)))


def _kind(row: Mapping[str, Any], folders: bool) -> str:
    return Path(row["location"]).parent.name if folders else "".join(row.get("genre", [])[:1])


def _caption(row: Mapping[str, Any]) -> str:
    return row["caption"] if isinstance(row["caption"], str) else row["caption"][0]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Music beside what it is held against, piece by piece."""

    tables: tuple[NoteTable, ...]
    captions: tuple[str, ...]
    wanted: tuple[tuple[int, ...], ...]
    """Programs of the pieces that the captions describe."""

    def against(self, dealt: Sequence[int]) -> "Outputs":
        """The same music, held against the captions of others."""
        return Outputs(self.tables, tuple(self.captions[n] for n in dealt), tuple(self.wanted[n] for n in dealt))


def degrade(examples: Sequence[Example], ngram: Ngram, seed: int) -> dict[str, Outputs]:
    """All of SETS, of as many pieces each; place i is about example i, so that sets can be compared piece by piece.

    Raises:
        UserError: there are fewer than two examples, or all are of one kind.
    """
    kinds = {example.kind for example in examples}
    if len(examples) < 2 or len(kinds) < 2:
        raise UserError(
            f"{len(examples)} pieces of {len(kinds)} kinds; expected two or more of each, to hold music against others"
        )
    rng = np.random.default_rng(seed)
    tables = tuple(example.notes for example in examples)
    captions = tuple(example.caption for example in examples)
    programs = tuple(tuple(table.programs()) for table in tables)
    dealt = _deranged(len(examples), rng)
    others = tuple(tables[_of_another_kind(examples, place, rng)] for place in range(len(examples)))
    real = Outputs(tables, captions, programs)
    return {
        REAL: real,
        SHUFFLED: real.against(dealt),
        OTHER: Outputs(others, captions, programs),
        SCRAMBLED: Outputs(tuple(scrambled(table, rng) for table in tables), captions, programs),
        NOISE: Outputs(tuple(noise(table, rng) for table in tables), captions, programs),
        NGRAM: Outputs(tuple(ngram.sample(len(table), rng) for table in tables), captions, programs),
    }


def written(name: str, tables: Sequence[NoteTable], examples: Sequence[Example], seed: int) -> dict[str, Outputs]:
    """Sets of what a model wrote for the examples' captions: as it is, and with captions shuffled as in SHUFFLED."""
    captions = tuple(example.caption for example in examples)
    outputs = Outputs(tuple(tables), captions, tuple(tuple(example.notes.programs()) for example in examples))
    dealt = _deranged(len(examples), np.random.default_rng(seed))
    return {name: outputs, f"{name}, {SHUFFLED}": outputs.against(dealt)}


def scrambled(notes: NoteTable, rng: np.random.Generator) -> NoteTable:
    """The pitches of all instruments but drums in another order.

    The piece keeps its pitches as a whole, so that a measure that only counts them sees nothing, as it should; the
    instruments leave their registers, which audio.scrambled, made for the ear, keeps.
    """
    programs, pitches = np.divmod(notes.notes, PITCHES)
    pitched = programs != DRUM_PROGRAM
    pitches[pitched] = rng.permutation(pitches[pitched])
    return dataclasses.replace(notes, notes=programs * PITCHES + pitches)


def noise(notes: NoteTable, rng: np.random.Generator) -> NoteTable:
    """As many notes between the first onset and the last, all of them drawn alike."""
    count = len(notes)
    onsets = np.sort(rng.integers(notes.onsets[0], notes.onsets[-1] + 1, count, np.int32))
    durations, played = (rng.integers(0, most, count, np.int32) for most in (MAX_DURATION_TICKS, NOTES))
    return NoteTable(onsets, durations, played, np.full(count, DEFAULT_VELOCITY, np.uint8))


def _deranged(count: int, rng: np.random.Generator) -> list[int]:
    """A number for each place, each once and none at its own: the next one around a random circle."""
    circle = rng.permutation(count)
    following = np.empty(count, np.int64)
    following[circle] = np.roll(circle, -1)
    return following.tolist()


def _of_another_kind(examples: Sequence[Example], place: int, rng: np.random.Generator) -> int:
    return int(rng.choice([n for n, other in enumerate(examples) if other.kind != examples[place].kind]))
