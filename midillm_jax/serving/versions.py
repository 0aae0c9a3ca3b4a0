"""The pieces of one visit to the page: every version is kept, undo goes back, and any can be gone to."""

import dataclasses
import importlib.util
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.music import clock, render
from midillm_jax.music.midi import MidiError, NoteTable, read_midi
from midillm_jax.music.parts import ScoreNotes, read_notes
from midillm_jax.music.score import Score, read_score
from midillm_jax.serving.writer import Job

MAX_FILE_BYTES = 2 << 20
MAX_NOTES = 30_000
MAX_MINUTES = 30
"""Of a file that is opened: what the page draws and plays without delay, and FluidSynth without filling the disk."""
_KEPT_SECONDS = 3600.0
"""How long the pieces of a visit outlive its tab, which a laptop that sleeps closes too."""
_NAME_LETTERS = 40


@dataclasses.dataclass(frozen=True)
class Version:
    """A piece as it was after one step."""

    number: int
    """From 1."""
    title: str
    account: str
    score: Score
    music: ScoreNotes
    """Its notes."""
    table: NoteTable
    """The same as the models take them."""
    midi: Path
    before: int | None
    """The version that was on the page when this one came."""

    @property
    def sound(self) -> Path:
        """Where the audio is, or will be."""
        return self.midi.with_suffix(".wav" if importlib.util.find_spec("soundfile") is None else ".flac")

    @property
    def picture(self) -> Path:
        """Where the piano roll is, or will be."""
        return self.midi.with_suffix(".svg")

    def draw(self) -> Path:
        """The piano roll, drawn if it is not yet."""
        if self.picture.is_file():
            return self.picture
        return render.piano_roll(self.table, self.picture, self.title, clock.bar_lines(self.score))

    def play(self) -> Path:
        """The audio, rendered if it is not yet.

        Raises:
            UserError: FluidSynth or a soundfont is missing, or it failed.
        """
        return self.sound if self.sound.is_file() else render.audio(self.midi, self.sound)


class Visit:
    """The versions of one tab of a browser."""

    def __init__(self, folder: Path) -> None:
        self.versions: list[Version] = []
        self.current: int | None = None
        """Number of the version on the page."""
        self.job: Job | None = None
        """What is being written for it."""
        self.left: float | None = None
        """When its tab was closed, in time.monotonic()'s seconds."""
        self.folder = folder

    @property
    def version(self) -> Version | None:
        """What is on the page."""
        return None if self.current is None else self.versions[self.current - 1]

    def add(self, midi: bytes, title: str, account: str) -> Version:
        """Keeps a piece, and has it on the page.

        Raises:
            UserError: it is no music, or too much.
        """
        score, music, table = read_piece(midi, title)
        number = len(self.versions) + 1
        path = self.folder / f"{number}-{_file_name(title)}.mid"
        write_whole(path, midi)
        self.versions.append(Version(number, title, account, score, music, table, path, self.current))
        self.current = number
        return self.versions[-1]

    def undo(self) -> Version | None:
        """Goes back to what was on the page before this version came; None if nothing was."""
        if (now := self.version) is not None and now.before is not None:
            self.current = now.before
            return self.version
        return None

    def go_to(self, number: int) -> Version:
        """Has another version on the page.

        Raises:
            UserError: there is none of that number.
        """
        if not 1 <= number <= len(self.versions):
            raise UserError(f"There is no version {number}; this visit has {len(self.versions)}")
        self.current = number
        return self.versions[number - 1]

    def stop(self) -> bool:
        """Ends what is being written; False if nothing is."""
        if self.job is None:
            return False
        self.job.stop()
        return True


class Visits:
    """All tabs that are open, and those that were a short while ago. Any thread may call."""

    def __init__(self, most: int = 200, clock: Callable[[], float] = time.monotonic) -> None:
        """A folder of its own for the pieces, until the end.

        Args:
            most: visits whose pieces are kept; beyond, the ones left first go.
            clock: seconds.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="midillm-page-")).resolve()
        self._most, self._clock = most, clock
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Visit:
        """The visit of a name, a new one if need be."""
        with self._lock:
            if name not in self._visits:
                # The folder's name cannot be guessed, as nobody else should hear the pieces.
                self._visits[name] = Visit(Path(tempfile.mkdtemp(dir=self.folder)))
            visit = self._visits[name]
            visit.left = None
            self._forget_old()
            return visit

    def leave(self, name: str) -> None:
        """The tab was closed: nothing more is written for it, and its pieces go in an hour."""
        with self._lock:
            if (visit := self._visits.get(name)) is not None:
                visit.stop()
                visit.left = self._clock()

    def __enter__(self) -> "Visits":
        return self

    def __exit__(self, *exception: object) -> None:
        """Deletes all pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forget_old(self) -> None:
        now = self._clock()
        left = sorted((visit.left, name) for name, visit in self._visits.items() if visit.left is not None)
        surplus = len(self._visits) - self._most
        for index, (since, name) in enumerate(left):
            if index < surplus or now - since > _KEPT_SECONDS:
                shutil.rmtree(self._visits.pop(name).folder, ignore_errors=True)


def read_piece(midi: bytes, name: str) -> tuple[Score, ScoreNotes, NoteTable]:
    """The music of a file, as its owner and as the models take it.

    Raises:
        UserError: it is no MIDI file of type 0 or 1, has no notes, or more than the page can show and play.
    """
    if len(midi) > MAX_FILE_BYTES:
        raise UserError(
            f"{name}: has {len(midi):,} bytes, of which the page takes {MAX_FILE_BYTES:,}; give a part of it"
        )
    score = read_score(midi, name)
    try:
        table = read_midi(midi)
    except MidiError as error:
        raise UserError(f"{name}: {error}; open it in a sequencer and export it as a MIDI file of type 1") from None
    music = read_notes(score)
    notes = len(music.notes)
    if not notes or not len(table):
        raise UserError(f"{name}: has no notes; give a file with music")
    if notes > MAX_NOTES:
        raise UserError(f"{name}: has {notes:,} notes, of which the page takes {MAX_NOTES:,}; give a part of it")
    minutes = clock.tempo_map(score).seconds(score.end_tick()) / 60
    if minutes > MAX_MINUTES:
        raise UserError(
            f"{name}: takes {minutes:,.0f} minutes, of which the page takes {MAX_MINUTES}; give a part of it"
        )
    return score, music, table


def _file_name(title: str) -> str:
    words = re.findall(r"[a-z0-9]+", title.lower())
    return "-".join(words)[:_NAME_LETTERS].strip("-") or "music"
