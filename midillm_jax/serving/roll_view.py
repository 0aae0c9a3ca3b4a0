"""What the page's piano roll shows, as plain values for the browser (assets/page/roll.js draws them)."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from midillm_jax.inference.changes import Change
from midillm_jax.music import clock
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.roll import program_colours
from midillm_jax.music.vocab import DURATION_OFFSET, NOTE_OFFSET, PITCHES, TICKS_PER_SECOND
from midillm_jax.serving.versions import Version

View = dict[str, Any]
"""
notes, fresh: rows of onset and duration in seconds, program, pitch, velocity; fresh ones are being written.
programs: rows of number, name and colour, in the order of the legend.
bars: rows of number and second, the end of the last one too.
seconds: at the right edge. span: from and to which second is chosen, or None; where it is not there, as before.
midi, sound, picture: addresses of files, or None. silence: why there is no sound. title: what it is.
"""
_NO_FILES: View = {"midi": None, "sound": None, "picture": None}


def nothing() -> View:
    """An empty roll."""
    empty: View = {"notes": [], "fresh": [], "programs": [], "bars": [], "seconds": 30, "span": None, "title": ""}
    return empty | _NO_FILES | {"silence": None}


def shown(version: Version, sound: Path | None = None, silence: str | None = None) -> View:
    """A version on the page, with its sound where that is rendered."""
    table = version.table
    rows = np.stack((table.onsets, table.durations, table.notes // PITCHES, table.notes % PITCHES, table.velocities), 1)
    bars = [list(line) for line in clock.bar_lines(version.score)]
    return {
        "notes": _rows(rows),
        "fresh": [],
        "programs": legend(table),
        "bars": bars,
        "seconds": max(table.seconds(), bars[-1][1] if bars else 1.0),
        "title": version.title,
        "midi": address(version.midi),
        "sound": None if sound is None else address(sound),
        "picture": address(version.picture) if version.picture.is_file() else None,
        "silence": silence,
    }


def being_edited(version: Version) -> View:
    """The roll before an edit's first note, which may take some of those that are there."""
    return shown(version) | _NO_FILES


def being_written(version: Version, change: Change, start: float, seconds: float) -> View:
    """The roll before the first new note: what stays of the piece, and the place where music is to come."""
    score = version.score
    tempos = clock.tempo_map(score)
    until = float("inf") if change.end is None else change.end
    rows = [
        (
            tempos.seconds(note.onset),
            tempos.seconds(note.end or note.onset),
            note.part.program,
            note.pitch,
            note.velocity,
        )
        for note in version.music.notes
        if not (change.start <= note.onset < until and (change.parts is None or note.part in change.parts))
    ]
    view = shown(version)
    return (
        view
        | {
            "notes": [[round(on, 2), round(end - on, 2), *rest] for on, end, *rest in rows],
            "seconds": max(view["seconds"] if change.end is not None else 0.0, start + seconds),
            "span": [start, start + seconds],
        }
        | _NO_FILES
    )


def written(view: View, events: np.ndarray) -> View:
    """The roll with more new notes, int32 [3n] events."""
    onsets, durations, notes = events[0::3], events[1::3] - DURATION_OFFSET, events[2::3] - NOTE_OFFSET
    rows = np.stack((onsets, durations, notes // PITCHES, notes % PITCHES, np.full_like(notes, 90)), 1)
    programs = sorted({*(row[0] for row in view["programs"]), *(notes // PITCHES).tolist()}, key=_place(view))
    return view | {"fresh": view["fresh"] + _rows(rows), "programs": _legend(programs)}


def _place(view: View) -> Any:
    """Programs keep their place in the legend, and with it their colour, while others come."""
    places = {row[0]: index for index, row in enumerate(view["programs"])}
    return lambda program: (places.get(program, len(places)), program)


def legend(table: NoteTable) -> list[list[Any]]:
    """Number, name and colour of the programs of a table."""
    return _legend(list(table.programs()))


def _legend(programs: list[int]) -> list[list[Any]]:
    colours = program_colours(programs)
    return [[program, PROGRAM_NAMES[program], "#{:02x}{:02x}{:02x}".format(*colours[program])] for program in programs]


def _rows(rows: np.ndarray) -> list[list[float]]:
    """int [n, 5] with times in ticks -> lists with times in seconds."""
    return [[on / TICKS_PER_SECOND, long / TICKS_PER_SECOND, *rest] for on, long, *rest in rows.astype(int).tolist()]


def address(path: Path) -> str:
    """Where the browser gets a file of a visit."""
    return f"gradio_api/file={quote(path.as_posix())}"
