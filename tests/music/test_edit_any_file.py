"""Any edit of any file leaves all else as it was: of the band's files, or of those in MIDILLM_CORPUS_DIR."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.errors import UserError
from midillm_jax.music.clock import music_end, tempo_map
from midillm_jax.music.edit import Edited, NewNote, replace_span
from midillm_jax.music.grid import Grid
from midillm_jax.music.midi import read_midi
from midillm_jax.music.parts import Part, read_notes
from midillm_jax.music.score import Score, event_diff, read_score
from tests.music.files import BEAT


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folder of MIDI files in MIDILLM_CORPUS_DIR, at most 200 of them; else pieces of the demo's band."""
    folder = os.environ.get("MIDILLM_CORPUS_DIR")
    if folder is None:
        out = tmp_path_factory.mktemp("band") / "out"
        write_band(out, 12, 3, profile="small", documents=0)
        return sorted(out.rglob("*.mid"))
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".mid", ".midi"))
    return sorted(random.Random(0).sample(found, min(200, len(found))))


def test_the_notes_of_any_file_are_those_that_the_tokenizer_reads(files: list[Path]) -> None:
    compared = 0
    for path in files:
        data = path.read_bytes()
        score = read_score(data, path.name)
        # Of these the tokenizer knows no better: ports, and unknown meta events, whose delta times it loses.
        known = {*range(8), 9, 0x20, 0x21, 0x2F, 0x51, 0x54, 0x58, 0x59, 0x7F}
        music = read_notes(score)
        if any(music.ports) or any(m[0] == 0xFF and m[1] not in known for track in score.tracks for _, m in track):
            continue
        table, clock = read_midi(data), tempo_map(score)
        assert [128 * each.part.program + each.pitch for each in music.notes] == table.notes.tolist(), path
        assert [each.velocity for each in music.notes] == table.velocities.tolist(), path
        onsets = [100 * clock.seconds(each.onset) for each in music.notes]
        assert all(abs(a - b) <= 0.5 + 1e-6 for a, b in zip(onsets, table.onsets.tolist(), strict=True)), path
        compared += 1
    print(f"{compared} of {len(files)} files have the notes that the tokenizer reads")
    assert compared > len(files) / 2


def any_notes(rng: random.Random, programs: list[int], begin: float, end: float) -> list[NewNote]:
    """Some notes from ``begin`` to ``end`` (seconds), of the file's programs mostly."""
    return [
        NewNote(
            rng.uniform(begin, end),
            rng.choice((0.0, rng.uniform(0, 4))),
            rng.choice([*programs, 128]),
            rng.randrange(30, 90),
            rng.randrange(1, 128),
        )
        for _ in range(rng.randrange(60))
    ]


def check_edit(
    before: Score, edited: Edited, parts: frozenset[Part], start: int, end: float, asked: list[NewNote]
) -> None:
    """Nothing changed but notes of the parts that begin in the span, and what new notes there bring along."""
    after = edited.score
    assert (after.form, after.ticks_per_beat, after.trailing) == (before.form, before.ticks_per_beat, before.trailing)
    fresh = range(len(before.tracks), len(after.tracks))
    ends: Counter[tuple[int, bytes]] = Counter()
    for change in event_diff(before, after):
        kind, channel = change.message[0] & 0xF0, change.message[0] & 0x0F
        is_on = kind == 0x90 and change.message[2]
        in_span = start <= change.tick < end
        if change.message == b"\xff\x2f\x00":
            ends[change.track, b"+" if change.added else b"-"] += 1
        elif is_on:
            assert in_span, change
            if not change.added:
                assert (change.track, channel) in {(part.track, part.channel % 16) for part in parts}, change
        elif kind == 0x80 or kind == 0x90:
            assert change.tick >= start, change
        elif change.track in fresh and change.message[:2] in (b"\xff\x03", b"\xff\x21"):
            assert change.tick == 0
        else:
            assert change.added, change
            assert in_span, change
            assert kind == 0xC0 or change.message[:2] == bytes((0xB0 | channel, 64)), change
    assert all(ends[track, b"+"] == 1 for track in fresh)
    assert all(ends[track, b"+"] == ends[track, b"-"] for track in range(len(before.tracks)))
    was, is_ = (Counter(each._replace(on=0, off=0) for each in read_notes(score).notes) for score in (before, after))
    gone = {each for each in was if each.part in parts and start <= each.onset < end}
    kept = Counter({each: count for each, count in was.items() if each not in gone})
    assert kept <= is_, kept - is_
    come = is_ - kept
    assert all(start <= each.onset < end and each.end is not None for each in come), come
    wanted = Counter((each.program, each.pitch, each.velocity) for each in asked)
    assert Counter((each.part.program, each.pitch, each.velocity) for each in come.elements()) <= wanted
    assert edited.removed == was.total() - kept.total()
    assert edited.added == come.total() == len(asked) - edited.omitted


@pytest.mark.parametrize("kind", ["continue", "infill", "accompany", "replace"])
def test_nothing_else_of_any_file_changes(files: list[Path], kind: str) -> None:
    refused: dict[str, str] = {}
    edits = notes = lost = 0
    for path in files:
        rng = random.Random(f"{kind} {path.name}")
        try:
            before = read_score(path.read_bytes(), path.name)
        except UserError as error:
            refused[path.name] = str(error)
            continue
        clock, last = tempo_map(before), music_end(before)
        parts = sorted({each.part for each in read_notes(before).notes})
        some = frozenset(rng.sample(parts, rng.randint(1, len(parts)))) if parts else frozenset()
        start, end = sorted((rng.randrange(last), rng.randrange(1, last + 1)))
        end += start == end
        until: int | None = end
        chosen = frozenset(parts)
        if kind == "continue":
            until = None
        elif kind == "accompany":
            start, until, chosen = 0, None, some
        elif kind == "replace":
            chosen = some
        seconds = clock.seconds(start), clock.seconds(last + 20 * BEAT if until is None else until)
        asked = any_notes(rng, [part.program for part in parts] + [33], *seconds)
        grid = rng.choice((None, Grid((4, 3))))
        try:
            edited = replace_span(before, start, until, chosen, asked, grid=grid, strength=rng.random())
        except UserError as error:
            refused[path.name] = str(error)
            continue
        check_edit(before, edited, chosen, start, float("inf") if until is None else until, asked)
        edits, notes, lost = edits + 1, notes + edited.added, lost + edited.omitted
    print(f"{kind}: {edits} of {len(files)} files, {notes} notes added, {lost} omitted; refused: {refused}")
    assert edits >= len(files) * 0.9
