"""What a caption asks for, as facts that music can be held against: from a row's columns, or from words.

The columns are MidiCaps' (J. Melechovsky et al., ISMIR 2024), which ``prepare caption`` and the small band write too;
``prompt_facts.py`` reads the same facts out of a prompt.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from midillm_jax.data.tonality import Key
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.vocab import DRUM_PROGRAM

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_KEY = re.compile(r"([A-G])([#b]?) (major|minor)")
_METER = re.compile(r"(\d+)/(\d+)")
_PROGRAMS = {
    word: frozenset(program for program, other in enumerate(CAPTION_WORDS) if other == word) for word in CAPTION_WORDS
}


@dataclasses.dataclass(frozen=True)
class Asked:
    """The facts asked for; None where nothing is said."""

    instruments: tuple[frozenset[int], ...] | None = None
    """For each instrument, drums apart, the General MIDI programs that pass for it."""
    drums: bool | None = None
    tempo: tuple[float, float] | None = None
    """Quarter notes a minute, from and to; the same twice for a number."""
    key: Key | None = None
    meter: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None
    """Length, from and to; the same twice for a number."""


def from_columns(row: Mapping[str, Any]) -> Asked:
    """The facts of a line of captions.jsonl; columns that it lacks are not asked for.

    Programs that captions have one word for pass for each other. Without a column ``drums``, as in MidiCaps, drums
    are asked for if they are among the instruments.
    """
    programs = row.get("instrument_numbers_sorted")
    drums = row.get("drums")
    if drums is None and programs is not None:
        drums = DRUM_PROGRAM in programs
    return Asked(
        instruments=None if programs is None else words_programs(programs),
        drums=drums,
        tempo=_number(row.get("tempo")),
        key=parse_key(row.get("key") or ""),
        meter=_meter(row.get("time_signature") or ""),
        seconds=_number(row.get("duration")),
    )


def words_programs(programs: list[int]) -> tuple[frozenset[int], ...]:
    """Of each word that captions have for these programs, drums apart, all programs that it stands for."""
    words = dict.fromkeys(CAPTION_WORDS[program] for program in programs if program != DRUM_PROGRAM)
    return tuple(_PROGRAMS[word] for word in words)


def pitch_class(name: str) -> int:
    """Of "Bb" or "F#"."""
    return (_LETTERS[name[0]] + name.count("#") - name[1:].count("b")) % 12


def parse_key(name: str) -> Key | None:
    """The key of that name ("Bb minor"), however its tonic is spelled; None if it is none."""
    match = _KEY.fullmatch(name)
    return None if match is None else Key(pitch_class(match[1] + match[2]), match[3])


def _meter(text: str) -> tuple[int, int] | None:
    match = _METER.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))


def _number(value: Any) -> tuple[float, float] | None:
    """MidiCaps leaves an empty string where it knows no tempo."""
    return (float(value), float(value)) if isinstance(value, int | float) and value > 0 else None
