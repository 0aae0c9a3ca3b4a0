"""The notes of a score and whose they are; instruments and tracks by the words people use for them."""

import re
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from midillm_jax.errors import UserError
from midillm_jax.music.instruments import (
    CAPTION_WORDS,
    FAMILIES,
    PROGRAM_FAMILIES,
    PROGRAM_NAMES,
    USUAL_PROGRAMS,
    WIDE_WORDS,
)
from midillm_jax.music.midi import DRUM_CHANNEL
from midillm_jax.music.score import NOTE_OFF, NOTE_ON, PORT, PROGRAM_CHANGE, TRACK_NAME, Score, Track, meta_data
from midillm_jax.music.terms import listed
from midillm_jax.music.vocab import DRUM_PROGRAM, PROGRAMS

T = TypeVar("T")
_ALSO = {"strings": ("string ensemble", "synth strings")}
"""What people mean by a family's name besides the family, in the words of captions."""


class Part(NamedTuple):
    """The notes of one instrument in one track."""

    track: int
    """From 0."""
    channel: int
    """From 0, 16 for each port of the file; 9 of each port is the drums'."""
    program: int
    """The one in force when the notes begin; 128 on the drums' channels."""


class ScoreNote(NamedTuple):
    """A note with the events that begin and end it."""

    part: Part
    pitch: int
    velocity: int
    onset: int
    """Tick."""
    end: int | None
    """Tick; None where it is never ended."""
    on: int
    """Which event of its track begins it."""
    off: int | None


class ScoreNotes(NamedTuple):
    """All of a score's notes, and what it takes to add some."""

    notes: list[ScoreNote]
    """In the order in which they begin: by tick, then track, then place in the track."""
    programs: dict[int, list[tuple[int, int]]]
    """Channel -> (tick, program) of its program changes, from tick 0 on (program 0 at first); not of the drums'."""
    stray_offs: list[tuple[int, int, int]]
    """(channel, pitch, tick) of note-offs that end no note; to a synthesizer they end whatever sounds there."""
    ports: list[int]
    """Of each track."""


def read_notes(score: Score) -> ScoreNotes:
    """The notes of a score.

    Program changes hold for their channel in all tracks, as in ``midi.read_midi``. Unlike there, a note ends where its
    own track ends its pitch on its channel, first begun first ended, also where the program changed while it sounded;
    and the channels of a track with a port (meta event 0x21, by which notation programs write orchestras of more than
    16 channels) are that port's own.
    """
    found: list[ScoreNote] = []
    ports = [_port(track) for track in score.tracks]
    channels = (
        16 * port + channel for port in sorted({*ports} or {0}) for channel in range(16) if channel != DRUM_CHANNEL
    )
    programs = {channel: [(0, 0)] for channel in channels}
    stray: list[tuple[int, int, int]] = []
    sounding: dict[tuple[int, int, int], deque[int]] = {}  # track, channel, pitch -> which of the notes found
    for tick, track, index in _in_order(score):
        message = score.tracks[track][index].message
        kind, channel = message[0] & 0xF0, 16 * ports[track] + (message[0] & 0x0F)
        if kind == PROGRAM_CHANGE and not is_drums(channel):
            programs[channel].append((tick, message[1]))
        elif kind == NOTE_ON and message[2]:
            program = DRUM_PROGRAM if is_drums(channel) else programs[channel][-1][1]
            sounding.setdefault((track, channel, message[1]), deque()).append(len(found))
            part = Part(track, channel, program)
            found.append(ScoreNote(part, message[1], message[2], tick, None, index, None))
        elif kind in (NOTE_ON, NOTE_OFF):
            if waiting := sounding.get((track, channel, message[1])):
                note = waiting.popleft()
                found[note] = found[note]._replace(end=tick, off=index)
            else:
                stray.append((channel, message[1], tick))
    return ScoreNotes(found, programs, stray, ports)


def is_drums(channel: int) -> bool:
    """Whether a channel is the drums' of its port."""
    return channel % 16 == DRUM_CHANNEL


def _port(track: Track) -> int:
    """The first that a track names; 0 where it names none."""
    ports = (meta_data(event.message, PORT) for event in track)
    return next((port[0] for port in ports if port), 0)


def _in_order(score: Score) -> list[tuple[int, int, int]]:
    """(tick, track, place in it) of the notes and program changes, as a player merges tracks."""
    return sorted(
        (event.tick, track, index)
        for track, each in enumerate(score.tracks)
        for index, event in enumerate(each)
        if event.message[0] & 0xF0 in (NOTE_OFF, NOTE_ON, PROGRAM_CHANGE)
    )


def track_names(score: Score) -> dict[int, str]:
    """The name of each track that has one; in a file of type 0 it is the piece's."""
    names: dict[int, str] = {}
    for track, events in enumerate(score.tracks if score.form else ()):
        for event in events:
            if (data := meta_data(event.message, TRACK_NAME)) is not None and track not in names:
                try:
                    names[track] = data.decode().strip("\0 ")
                except UnicodeDecodeError:  # what most sequencers write, whatever language they speak
                    names[track] = data.decode("latin-1").strip("\0 ")
    return names


def programs_named(words: str) -> tuple[int, ...]:
    """The programs that words mean, as ``piano``, ``drums``, ``slap bass``, ``strings`` or ``sax``.

    They are those in the family of this name; else those with this name of General MIDI's, this word in a caption, or
    which the word means as people use it. Where there are none, those of whose names each of the words begins one.
    Empty where the words mean no instrument.
    """
    wanted = _words(words)
    also = _ALSO.get(words.strip().lower(), ())
    rows = list(zip(PROGRAM_NAMES, CAPTION_WORDS, PROGRAM_FAMILIES, strict=True))
    named = [program for program, names in enumerate(rows) if wanted in map(_words, names) or names[1] in also]
    if not any(wanted == _words(family) for family in FAMILIES):
        named = sorted({*named, *_meant(words, WIDE_WORDS, ())})
    return tuple(named or [program for program in range(PROGRAMS) if wanted and _begin_names_of(program, wanted)])


def program_named(words: str) -> int | None:
    """The one program to play on where people say "piano" or "strings"; None where the words mean no instrument.

    It is the one with this very name, else the first that the words mean, but for those of ``USUAL_PROGRAMS``.
    """
    wanted = _words(words)
    for program, name in enumerate(PROGRAM_NAMES):
        if _words(name) == wanted:
            return program
    return _meant(words, USUAL_PROGRAMS, next(iter(programs_named(words)), None))


def _meant(words: str, table: Mapping[str, T], otherwise: T) -> T:
    """What a table says for words, as they are or in the singular."""
    exact = words.strip().lower()
    same = (value for word, value in table.items() if _words(word) == _words(words))
    return table[exact] if exact in table else next(same, otherwise)


def _begin_names_of(program: int, wanted: tuple[str, ...]) -> bool:
    names = _words(f"{PROGRAM_NAMES[program]} {CAPTION_WORDS[program]}")
    return all(any(name.startswith(word) for name in names) for word in wanted)


def _words(text: str) -> tuple[str, ...]:
    """Words in lower case and in the singular, so that "Drums" and "drum" are one."""
    return tuple(word.removesuffix("s") if len(word) > 3 else word for word in re.findall(r"[a-z0-9]+", text.lower()))


def programs_asked(words: str) -> tuple[int, ...]:
    """The programs of a list such as "bass, drums", in the order of their numbers.

    Raises:
        UserError: a name in it is no instrument's.
    """
    programs: set[int] = set()
    for name in names_in(words):
        if not (found := programs_named(name)):
            raise UserError(
                f"{name!r} is no instrument that General MIDI knows; name one or a family, such as flute or "
                f"{listed(FAMILIES[:5], 'or')}"
            )
        programs.update(found)
    return tuple(sorted(programs))


def parts_named(score: Score, words: str, notes: ScoreNotes | None = None) -> frozenset[Part]:
    """The parts that a list such as "piano, Left hand, track 4" means: by instrument, track name or track number.

    A name that is an instrument's and a track's means both. Tracks count from 1, those without notes included.

    Raises:
        UserError: a name in it fits nothing that plays in the score.
    """
    parts = {note.part for note in (notes or read_notes(score)).notes}
    names = track_names(score)
    chosen: set[Part] = set()
    whole = words.strip()
    for name in (whole,) if whole.lower() in map(str.lower, names.values()) else names_in(words):
        number = re.fullmatch(r"track ?(\d+)", name.lower())
        programs = programs_named(name)
        found = {
            part
            for part in parts
            if part.program in programs
            or names.get(part.track, "").lower() == name.lower()
            or (number is not None and part.track == int(number[1]) - 1)
        }
        if not found:
            raise UserError(f"{score.name}: has no {name!r}; name some of {_described(parts, names)}")
        chosen |= found
    return frozenset(chosen)


def names_in(words: str) -> tuple[str, ...]:
    """The names in a list such as "bass, drums and piano".

    Raises:
        UserError: there are none.
    """
    names = tuple(name.strip() for name in re.split(r",|;|\+|\band\b", words) if name.strip())
    if not names:
        raise UserError(f"{words!r} names no instrument; write one or several, such as 'bass, drums'")
    return names


def _described(parts: set[Part], names: dict[int, str]) -> str:
    places = {track: f"track {track + 1}" + (f", {names[track]!r}" if track in names else "") for track, *_ in parts}
    lines = dict.fromkeys(f"{PROGRAM_NAMES[program]} ({places[track]})" for track, _, program in sorted(parts))
    return listed(list(lines), "or") if lines else "what plays: nothing does"
