"""How fast MIDI files become tokens: the reference's way and ours, on the same files, in one run.

    python benchmarks/midi_tokens.py corpus --files 300 --json tokens.json

The arguments are folders of MIDI files, searched recursively; ``--files`` takes that many, spread evenly over their
sorted names. The reference's way is that of the ``anticipation`` package: mido parses the bytes and iterates over the
messages in time, and each note becomes its three ids. Ours is ``encode_midi``, compiled by numba and as plain Python.

Figures are CPU seconds of one thread (``time.process_time``), with the bytes in memory and after compilation. A file is
identical when both give the same ids or both refuse it. (Not named tokenize.py: Python's own library has a module of
that name, which every script in this folder would then miss.)
"""

import argparse
import io
import json
import operator
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import rich.progress

from midillm_jax.music.amt import encode_midi
from midillm_jax.music.midi import MidiError, has_numba
from midillm_jax.music.vocab import DRUM_PROGRAM, DURATION_OFFSET, MAX_DURATION_TICKS, NOTE_OFFSET, PITCHES

REFUSALS = (
    # What mido raises on bytes that it does not read, and the reference takes for a bad file.
    *(OSError, EOFError, ValueError, TypeError, LookupError, ZeroDivisionError, OverflowError, mido.KeySignatureError),
)
TURNS = 20


def reference(data: bytes) -> list[int] | None:
    """The ids as the reference comes to them; None where it refuses the file."""
    seconds = 0.0
    programs: dict[int, int] = defaultdict(int)
    waiting: dict[tuple[int, int, int], deque[int]] = defaultdict(deque)
    notes: list[tuple[float, int]] = []
    lengths: dict[int, float] = {}
    try:
        for message in mido.MidiFile(file=io.BytesIO(data)):
            if message.time < 0:
                return None
            seconds += message.time
            if message.type == "program_change":
                programs[message.channel] = message.program
            elif message.type in ("note_on", "note_off"):
                program = DRUM_PROGRAM if message.channel == 9 else programs[message.channel]
                queue = waiting[program, message.note, message.channel]
                if message.type == "note_on" and message.velocity > 0:
                    queue.append(len(notes))
                    notes.append((seconds, PITCHES * program + message.note))
                elif queue:
                    first = queue.popleft()
                    lengths[first] = seconds - notes[first][0]
        ids = []
        for index, (onset, note) in enumerate(notes):
            duration = min(round(100 * lengths.get(index, 0.25)), MAX_DURATION_TICKS - 1)
            ids += [round(100 * onset), DURATION_OFFSET + duration, NOTE_OFFSET + note]
    except REFUSALS:
        return None
    return ids or None


def answer(ids: object) -> bytes | None:
    """Ids in one form, whatever they came as."""
    return None if ids is None else np.asarray(ids, np.int64).tobytes()


def ours(compiled: bool) -> Callable[[bytes], object]:
    """``encode_midi``; None where it refuses the file."""

    def encode(data: bytes) -> np.ndarray | None:
        try:
            return encode_midi(data, compiled=compiled)
        except MidiError:
            return None

    return encode


def cpu_seconds(encode: Callable[[bytes], object], files: list[bytes]) -> float:
    """CPU seconds of a pass over the files."""
    started = time.process_time()
    for data in files:
        encode(data)
    return time.process_time() - started


def evenly(items: list[Path], count: int) -> list[Path]:
    """``count`` of the items, spread over all of them."""
    if not 0 < count < len(items):
        return items
    return [items[index * len(items) // count] for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--files", type=int, default=0, help="how many; all by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = sorted({path for folder in arguments.folders for path in folder.rglob("*.mid")})
    if not found:
        parser.error("no .mid files there")
    files = [path.read_bytes() for path in evenly(found, arguments.files)]
    megabytes = sum(map(len, files)) / 1e6

    readers: dict[str, Callable[[bytes], object]] = {"reference": reference, "plain": ours(compiled=False)}
    if has_numba():
        readers["compiled"] = ours(compiled=True)
    else:
        print("numba is not installed, so nothing is compiled: pip install 'midillm_jax[train]'")
    # All of them once for their answers, which also compiles and warms up.
    answers = {name: [answer(encode(data)) for data in files] for name, encode in readers.items()}
    expected = answers.pop("reference")
    identical = {name: sum(map(operator.eq, lists, expected)) for name, lists in answers.items()}

    # By turns, so that other work on the machine slows all of them alike; a compiled pass is short, so it is over all.
    spent = dict.fromkeys(readers, 0.0)
    for turn in rich.progress.track(range(TURNS), "timing", transient=True):
        part = files[turn::TURNS]
        for name, encode in readers.items():
            spent[name] += cpu_seconds(encode, files) / TURNS if name == "compiled" else cpu_seconds(encode, part)

    refused = sum(ids is None for ids in expected)
    notes = sum(len(ids) // 24 for ids in expected if ids)
    print(f"{len(files):,} files ({refused:,} refused), {megabytes:.1f} MB, {notes:,} notes")
    print("| reader | files/s a core | MB/s a core | times the reference | identical |")
    print("|---|---|---|---|---|")
    titles = {"reference": "mido, then arithmetic", "compiled": "ours, compiled", "plain": "ours, plain Python"}
    rows = {}
    for name, seconds in spent.items():
        row = {
            "files_per_second": round(len(files) / seconds, 1),
            "megabytes_per_second": round(megabytes / seconds, 2),
            "times_the_reference": round(spent["reference"] / seconds, 1),
        }
        same = ""
        if name in identical:
            row["identical_files"] = identical[name]
            same = f"{identical[name]:,} of {len(files):,}"
        print(
            f"| {titles[name]} | {row['files_per_second']:,} | {row['megabytes_per_second']:,} | "
            f"{row['times_the_reference']:,} | {same or '-'} |"
        )
        rows[name] = row
    if arguments.json:
        counts = {"files": len(files), "refused": refused, "megabytes": round(megabytes, 2), "notes": notes}
        arguments.json.write_text(json.dumps({**counts, "readers": rows}, indent=1))


if __name__ == "__main__":
    main()
