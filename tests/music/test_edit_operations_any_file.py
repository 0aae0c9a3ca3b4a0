"""Any plan on any file leaves all else as it was: on the band's files, or those in MIDILLM_CORPUS_DIR."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.errors import UserError
from midillm_jax.music.clock import bar_map, music_end, tempo_map
from midillm_jax.music.edit_operations import Target, apply
from midillm_jax.music.edit_plan import (
    Amount,
    Double,
    Operation,
    Parts,
    Regenerate,
    Reinstrument,
    Remove,
    Tempo,
    Thin,
    Transpose,
    Velocity,
)
from midillm_jax.music.edit_span import Bars, ticks
from midillm_jax.music.parts import ScoreNote, is_drums, read_notes
from midillm_jax.music.score import Change, Score, event_diff, read_score, write_score

END_OF_TRACK = b"\xff\x2f\x00"


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[Score]:
    """The files in MIDILLM_CORPUS_DIR that can be read, at most 200; else pieces of the demo's band."""
    folder = os.environ.get("MIDILLM_CORPUS_DIR")
    if folder is None:
        out = tmp_path_factory.mktemp("band") / "out"
        write_band(out, 12, 3, profile="small", documents=0)
        paths = sorted(out.rglob("*.mid"))
    else:
        found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".mid", ".midi"))
        paths = sorted(random.Random(0).sample(found, min(200, len(found))))
    read: list[Score] = []
    for path in paths:
        try:
            read.append(read_score(path.read_bytes(), path.name))
        except UserError:
            continue
    return [score for score in read if read_notes(score).notes]


def untouched(score: Score, operation: Regenerate, target: Target) -> Score:
    raise AssertionError("nothing is generated here")


def any_span(score: Score, rng: random.Random) -> Bars:
    bars = bar_map(score)
    last = bars.bar(max(music_end(score) - 1, 0))
    first, end = sorted((rng.randint(1, max(last, 1)), rng.randint(1, max(last, 1))))
    return rng.choice((Bars(), Bars(first, end), Bars(first, None), Bars(None, end)))


def any_parts(score: Score, rng: random.Random) -> Parts:
    tracks = sorted({note.part.track for note in read_notes(score).notes})
    some = tuple(f"track {track + 1}" for track in rng.sample(tracks, rng.randint(1, len(tracks))))
    return rng.choice((Parts(), Parts(some), Parts(some, True)))


def any_operation(kind: type[Operation], score: Score, rng: random.Random) -> Operation:
    span, parts = any_span(score, rng), any_parts(score, rng)
    if kind is Thin:
        return Thin(span, parts, rng.choice((25, 50, 75)))
    if kind is Transpose:
        return Transpose(span, parts, rng.choice((-12, -1, 3, 7)))
    if kind is Reinstrument:
        return Reinstrument(span, parts, rng.randrange(128))
    if kind is Tempo:
        return Tempo(span, rng.choice((Amount(90, "to"), Amount(5, "by"), Amount(80, "percent"))))
    if kind is Velocity:
        return Velocity(span, parts, rng.choice((Amount(64, "to"), Amount(-10, "by"), Amount(150, "percent"))))
    if kind is Double:
        return Double(span, parts, rng.choice((None, 40)), rng.choice((-12, 12)))
    return Remove(span, parts)


def without_events(note: ScoreNote) -> ScoreNote:
    return note._replace(on=0, off=0)


def check(before: Score, operation: Operation, after: Score) -> None:
    """What is outside of the span and the parts is there as before; what is inside is what was asked for."""
    assert read_score(write_score(after), after.name) == after
    start, end = ticks(before, operation.span)
    music, now = read_notes(before), read_notes(after)
    named = None if isinstance(operation, Tempo) else operation.parts
    parts = frozenset() if named is None else named.of(before, music)
    if isinstance(operation, Transpose | Reinstrument | Double):
        parts = frozenset(part for part in parts if not is_drums(part.channel))
    inside = {note for note in music.notes if note.part in parts and start <= note.onset < end}
    was = Counter(without_events(note) for note in music.notes if note not in inside)
    is_ = Counter(without_events(note) for note in now.notes)
    assert was <= is_, "a note outside has changed"
    for change in event_diff(before, after):
        check_change(operation, change, start, end)
    meant = Counter(without_events(note) for note in inside)
    left = is_ - was
    if isinstance(operation, Remove):
        assert not left
    elif isinstance(operation, Thin):
        assert left <= meant
    elif isinstance(operation, Tempo):
        assert not left
        check_tempos(before, operation, after, start, end)
    elif isinstance(operation, Velocity):
        assert [n._replace(velocity=0) for n in now.notes] == [n._replace(velocity=0) for n in music.notes]
    elif isinstance(operation, Double):
        assert meant <= left
    elif isinstance(operation, Reinstrument):
        programs = {note.part._replace(program=operation.program) for note in inside}
        assert Counter(n._replace(part=n.part._replace(program=0)) for n in left.elements()) == Counter(
            n._replace(part=n.part._replace(program=0)) for n in meant.elements()
        )
        assert {note.part for note in left} <= programs
    elif isinstance(operation, Transpose):
        moved = Counter((n.part, n.pitch + operation.semitones, n.velocity) for n in inside)
        assert Counter((n.part, n.pitch, n.velocity) for n in left.elements()) <= moved


def check_change(operation: Operation, change: Change, start: int, end: int) -> None:
    """An event that has changed is of the kind that the operation is about, and stands in the span or at its end."""
    kind = change.message[0] & 0xF0
    if change.message == END_OF_TRACK:
        return  # pushed back by what was added behind it
    if isinstance(operation, Tempo):
        assert change.message[:2] == b"\xff\x51"
        assert start <= change.tick <= end
    elif isinstance(operation, Reinstrument):
        assert kind == 0xC0
        assert start <= change.tick <= end
    elif isinstance(operation, Double):
        assert change.added
        assert kind in (0x80, 0x90, 0xC0, 0xB0) or change.tick == 0  # the name of a new track
    elif kind == 0x90 and change.message[2]:
        assert start <= change.tick < end
    else:
        assert kind in (0x80, 0x90, 0xA0)
        assert change.tick >= start


def check_tempos(before: Score, operation: Tempo, after: Score, start: int, end: int) -> None:
    """Outside the span every stretch takes as long as before; inside, as the tempo says."""
    was, is_ = tempo_map(before), tempo_map(after)
    far = max(before.end_tick(), 1)
    assert is_.seconds(start) == was.seconds(start)
    last = min(end, far)
    assert is_.seconds(far) - is_.seconds(last) == pytest.approx(was.seconds(far) - was.seconds(last))
    took, takes = was.seconds(last) - was.seconds(start), is_.seconds(last) - is_.seconds(start)
    if operation.amount.kind == "to":
        took = (last - start) / before.ticks_per_beat * 60 / operation.amount.value
    elif operation.amount.kind == "percent":
        took *= 100 / operation.amount.value
    else:
        assert takes <= took
        return
    assert takes == pytest.approx(took, rel=1e-4)


@pytest.mark.parametrize("kind", [Thin, Transpose, Reinstrument, Tempo, Velocity, Remove, Double])
def test_nothing_else_of_any_file_changes(scores: list[Score], kind: type[Operation]) -> None:
    refused: dict[str, str] = {}
    for score in scores:
        rng = random.Random(f"{kind.__name__} {score.name}")
        operation = any_operation(kind, score, rng)
        try:
            applied = apply(score, (operation,), untouched)
        except UserError as error:
            refused[score.name] = str(error)
            continue
        check(score, operation, applied.score)
    print(f"{kind.__name__}: {len(scores)} files; refused: {refused}")
    assert len(refused) <= len(scores) / 3
