"""The plan of an edit: what is done to which bars and parts, as data and as lines that people read and change.

    bars 9-16: thin to 50% [all]
    all: change to String Ensemble 1 [piano]

A line is where, what, and in brackets whose notes. It means the same whoever wrote it: ``edit_words.py`` writes plans
out of requests, people by hand; ``edit_operations.py`` runs them. ``docs/editing_by_words.md`` lists the lines.
"""

import dataclasses
import json
import re
from typing import Literal

from midillm_jax.errors import UserError, require
from midillm_jax.music.edit_span import Span, read_span
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.parts import Part, ScoreNotes, parts_named, program_named
from midillm_jax.music.score import Score
from midillm_jax.music.vocab import DRUM_PROGRAM


@dataclasses.dataclass(frozen=True)
class Parts:
    """Whose notes: those of some names, of all but these, or of everybody (no names)."""

    names: tuple[str, ...] = ()
    """Each as ``parts_named`` reads one: an instrument, a family, a track's name, "track 3"."""
    but: bool = False
    """All others than these."""

    def __str__(self) -> str:
        names = ", ".join(map(_quoted_if_needed, self.names)) or "all"
        return f"[all but {names}]" if self.but else f"[{names}]"

    def of(self, score: Score, notes: ScoreNotes) -> frozenset[Part]:
        """The parts of a score, whose notes are given.

        Raises:
            UserError: a name fits nothing that plays in the score.
        """
        everybody = frozenset(note.part for note in notes.notes)
        named = frozenset[Part]().union(*(parts_named(score, name, notes) for name in self.names))
        return everybody - named if self.but else named if self.names else everybody


ALL = Parts()


@dataclasses.dataclass(frozen=True)
class Amount:
    """A tempo or a velocity: its value (``to``), a difference (``by``), or hundredths of what it was (``percent``)."""

    value: float
    kind: Literal["to", "by", "percent"]

    def text(self, unit: str = "") -> str:
        """As lines write it, such as "90 bpm", "+20 bpm" and "110%" where the unit is " bpm"."""
        return (
            f"{self.value:g}%" if self.kind == "percent" else f"{self.value:{'+' if self.kind == 'by' else ''}g}{unit}"
        )


TEMPO_BOUNDS = (4, 1000)
"""Quarter notes a minute; a file can hold no slower ones than 3.6."""


@dataclasses.dataclass(frozen=True)
class Thin:
    """Leaves a share of the notes."""

    span: Span
    parts: Parts
    percent: float
    """Of the notes, that stay."""

    def __post_init__(self) -> None:
        require(("thin to", f"{self.percent:g}%", 0 < self.percent <= 100, "more than 0% and at most 100%"))

    def __str__(self) -> str:
        return f"{self.span}: thin to {self.percent:g}% {self.parts}"


@dataclasses.dataclass(frozen=True)
class Transpose:
    """Moves pitches; drums have none and stay."""

    span: Span
    parts: Parts
    semitones: int

    def __post_init__(self) -> None:
        require(("transpose", self.semitones, 0 < abs(self.semitones) < 128, "-127 to +127 semitones, not 0"))

    def __str__(self) -> str:
        return f"{self.span}: transpose {_semitones(self.semitones)} {self.parts}"


@dataclasses.dataclass(frozen=True)
class Reinstrument:
    """Gives the notes to another instrument."""

    span: Span
    parts: Parts
    program: int
    """0..127; a kit has no program that others could change to."""

    def __post_init__(self) -> None:
        good = 0 <= self.program < DRUM_PROGRAM
        require(("change to", PROGRAM_NAMES[self.program], good, "an instrument with pitches; drums are a channel's"))

    def __str__(self) -> str:
        return f"{self.span}: change to {PROGRAM_NAMES[self.program]} {self.parts}"


@dataclasses.dataclass(frozen=True)
class Tempo:
    """Another tempo, in quarter notes a minute; all parts share it."""

    span: Span
    amount: Amount

    def __post_init__(self) -> None:
        low, high = {"to": TEMPO_BOUNDS, "by": (-996, 996), "percent": (1, 1000)}[self.amount.kind]
        require(("tempo", self.amount.text(" bpm"), low <= self.amount.value <= high, f"{low} to {high}"))

    def __str__(self) -> str:
        return f"{self.span}: tempo {self.amount.text(' bpm')}"


@dataclasses.dataclass(frozen=True)
class Velocity:
    """Louder or softer notes."""

    span: Span
    parts: Parts
    amount: Amount

    def __post_init__(self) -> None:
        low, high = {"to": (1, 127), "by": (-126, 126), "percent": (1, 1000)}[self.amount.kind]
        require(("velocity", self.amount.text(), low <= self.amount.value <= high, f"{low} to {high}"))

    def __str__(self) -> str:
        return f"{self.span}: velocity {self.amount.text()} {self.parts}"


@dataclasses.dataclass(frozen=True)
class Remove:
    """Takes notes out; the time they took is silent then."""

    span: Span
    parts: Parts

    def __str__(self) -> str:
        return f"{self.span}: remove {self.parts}"


@dataclasses.dataclass(frozen=True)
class Double:
    """Plays the notes a second time: on another instrument, at another pitch, or both."""

    span: Span
    parts: Parts
    program: int | None
    """0..127; None for the part's own."""
    semitones: int = 0

    def __post_init__(self) -> None:
        good = (self.program is not None or self.semitones != 0) and abs(self.semitones) < 128
        require(("double", _semitones(self.semitones), good, "another instrument, or -127 to +127 semitones"))
        require(("double on", self.program, self.program != DRUM_PROGRAM, "an instrument with pitches"))

    def __str__(self) -> str:
        on = "" if self.program is None else f" on {PROGRAM_NAMES[self.program]}"
        at = f" {_semitones(self.semitones)}" if self.semitones else ""
        return f"{self.span}: double{on}{at} {self.parts}"


@dataclasses.dataclass(frozen=True)
class Regenerate:
    """New notes of a model's for others, or beside all that is there."""

    span: Span
    parts: Parts | None
    """Whose notes are replaced; None: nobody's, the new ones are added."""
    text: str = ""
    """What the new notes are to be like; empty where nothing was said."""

    def __post_init__(self) -> None:
        require(
            ("add", "nothing", self.parts is not None or bool(self.text), 'words for what is added, as add "a flute"')
        )

    def __str__(self) -> str:
        text = f" {json.dumps(self.text, ensure_ascii=False)}" if self.text else ""
        return f"{self.span}: add{text}" if self.parts is None else f"{self.span}: regenerate{text} {self.parts}"


Operation = Thin | Transpose | Reinstrument | Tempo | Velocity | Remove | Double | Regenerate
Plan = tuple[Operation, ...]
"""Done one after the other. Bars and seconds are those of the file before any of them; parts are those it has then."""


def plan_text(plan: Plan) -> str:
    """One line an operation, as ``read_plan`` reads them."""
    return "".join(f"{operation}\n" for operation in plan)


_FORMS = """\
bars 9-16: thin to 50% [all]; transpose +12 semitones [piano]; change to Violin [piano]; tempo 90 bpm; velocity 80% \
[all but drums]; remove [drums]; double on Violin +12 semitones [flute]; regenerate "busier" [drums]; add "a flute"\
"""
_STRING = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(rf"(?P<span>.+?):\s+(?P<verb>(?:{_STRING}|[^\[\]\"])+?)\s*(?P<parts>\[.*\])?")
_AMOUNT = r"(?P<sign>[+-]?)(?P<value>\d+(?:\.\d+)?)\s*"
_SEMITONES = r"(?P<semitones>[+-]?\d+) semitones?"
_VERBS = {
    Thin: re.compile(r"thin to (?P<percent>\d+(?:\.\d+)?) ?%"),
    Transpose: re.compile(rf"transpose {_SEMITONES}"),
    Reinstrument: re.compile(r"change to (?P<program>.+)"),
    Tempo: re.compile(rf"tempo {_AMOUNT}(?P<unit>%|bpm)"),
    Velocity: re.compile(rf"velocity {_AMOUNT}(?P<unit>%)?"),
    Remove: re.compile(r"remove"),
    Double: re.compile(rf"double(?: on (?P<program>.+?))?(?: {_SEMITONES})?"),
    Regenerate: re.compile(rf"(?P<verb>regenerate|add)(?: (?P<text>{_STRING}))?"),
}


def read_plan(text: str, name: str = "the plan") -> Plan:
    """The plan of such lines; empty lines and those that begin with # say nothing.

    Raises:
        UserError: a line is no operation, or one with numbers that cannot be. The name and the line's number are told.
    """
    plan: list[Operation] = []
    for number, line in enumerate(text.splitlines(), 1):
        if (line := line.strip()) and not line.startswith("#"):
            try:
                plan.append(_operation(line))
            except UserError as error:
                raise UserError(f"{name}, line {number}: {error}") from None
    return tuple(plan)


def _operation(line: str) -> Operation:
    match = _LINE.fullmatch(line)
    if match is None:
        raise UserError(f"{line!r} is no operation; write where, what and whose, such as {_FORMS}")
    span, has_parts = read_span(match["span"]), match["parts"] is not None
    parts = _read_parts(match["parts"][1:-1]) if has_parts else ALL
    for kind, pattern in _VERBS.items():
        if said := pattern.fullmatch(match["verb"]):
            of_parts = kind is not Tempo and said.groupdict().get("verb") != "add"
            if has_parts and not of_parts:
                raise UserError(f"{line!r} names parts, but it is of none or of all alike; leave out {match['parts']}")
            if of_parts and not has_parts:
                raise UserError(f"{line!r} does not say whose notes; write parts behind it, or [all]")
            return _made(kind, span, parts, said.groupdict())
    raise UserError(f"{match['verb']!r} is nothing that can be done; write one of {_FORMS}")


def _made(kind: type[Operation], span: Span, parts: Parts, said: dict[str, str | None]) -> Operation:
    semitones = int(said.get("semitones") or 0)
    program = None if said.get("program") is None else _program(said["program"] or "")
    if kind is Thin:
        return Thin(span, parts, float(said["percent"] or 0))
    if kind is Transpose:
        return Transpose(span, parts, semitones)
    if kind is Remove:
        return Remove(span, parts)
    if kind is Double:
        return Double(span, parts, program, semitones)
    if kind is Regenerate:
        return Regenerate(span, parts if said["verb"] == "regenerate" else None, json.loads(said["text"] or '""'))
    if kind is Reinstrument:
        assert program is not None
        return Reinstrument(span, parts, program)
    sign = said["sign"] or ""
    how: Literal["to", "by", "percent"] = "percent" if said["unit"] == "%" else "by" if sign else "to"
    amount = Amount(float(f"{sign}{said['value']}"), how)
    return Tempo(span, amount) if kind is Tempo else Velocity(span, parts, amount)


def _program(words: str) -> int:
    program = program_named(words)
    if program is None:
        raise UserError(f"{words!r} is no instrument that General MIDI knows; name one, such as Violin")
    return program


def _semitones(count: int) -> str:
    return f"{count:+} semitone{'' if abs(count) == 1 else 's'}"


def _quoted_if_needed(name: str) -> str:
    plain = re.fullmatch(r"[^\"\[\],\s](?:[^\"\[\],]*[^\"\[\],\s])?", name) and not re.match(r"all\b", name, re.I)
    return name if plain else json.dumps(name, ensure_ascii=False)


def _read_parts(text: str) -> Parts:
    """What stands between brackets."""
    but = re.match(r"\s*all but\b", text, re.I)
    rest = text[but.end() :] if but else text
    if not but and rest.strip().lower() == "all":
        return ALL
    found = re.fullmatch(rf"\s*(?:{_STRING}|[^\",]+)(?:,\s*(?:{_STRING}|[^\",]+))*\s*", rest)
    if found is None:
        raise UserError(f"[{text}] names no parts; write [all], [piano, drums] or [all but drums]")
    names = (name.strip() for name in re.findall(rf"{_STRING}|[^\",]+", rest))
    return Parts(tuple(json.loads(name) if name[0] == '"' else name for name in names if name), bool(but))
