"""Which of several takes to keep: not those that failed, then those that do most of what was asked."""

from collections.abc import Sequence
from typing import NamedTuple

from midillm_jax.evaluation.asked import Asked
from midillm_jax.evaluation.control import Control, score
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.signatures import signatures


class Judged(NamedTuple):
    """A take, and what is to be said of it."""

    number: int
    """Its place in the order in which they were written, from 0."""
    failed: str | None
    """Why it is no music to keep, by music/signatures.py."""
    agreement: float | None
    """Of what was asked (instruments, drums, tempo, key, meter, length), the share that it does; None if nothing is."""


def judge(number: int, table: NoteTable, asked: Asked) -> Judged:
    """What is to be said of a take."""
    signs = signatures(table)
    faults = {
        "looping": signs.looping,
        "flooded with notes": signs.flooded,
        "next to empty or full of holes": signs.empty,
    }
    return Judged(
        number, next((name for name, is_so in faults.items() if is_so), None), _agreement(score(table, asked))
    )


def _agreement(control: Control) -> float | None:
    """The mean over what was asked. Nearly right, as in the next tempo bin or the relative key, counts half."""
    pairs = ((control.tempo_bin, control.tempo_bin_near), (control.key, control.key_or_relative))
    found = [(exact + bool(near)) / 2 for exact, near in pairs if exact is not None]
    found += [float(each) for each in (control.drums, control.meter, control.length) if each is not None]
    if control.instruments is not None:
        found.append(control.instruments.f1)
    return sum(found) / len(found) if found else None


def ranked(tables: Sequence[NoteTable], asked: Asked) -> list[Judged]:
    """The takes, the best first; of equal ones the one that was written first."""
    judged = [judge(number, table, asked) for number, table in enumerate(tables)]
    return sorted(judged, key=lambda take: (take.failed is not None, -(take.agreement or 0.0), take.number))


def account(takes: Sequence[Judged], kept: int) -> str:
    """One sentence on what was written and what is kept; takes as ``ranked`` gives them."""
    faults: dict[str, int] = {}
    for take in takes:
        if take.failed is not None:
            faults[take.failed] = faults.get(take.failed, 0) + 1
    failed = "; ".join(f"{count} {name}" for name, count in faults.items()) or "none failed"
    chosen = ", ".join(
        f"{take.number + 1}" + ("" if take.agreement is None else f" ({take.agreement:.0%} of what was asked)")
        for take in takes[:kept]
    )
    return f"{len(takes)} takes: {failed}; kept {chosen}"
