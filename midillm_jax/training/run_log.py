"""What a run writes down of its figures: ``RUN/log.csv`` and TensorBoard's files."""

import csv
import io
import time
from pathlib import Path

from midillm_jax.files import write_whole
from midillm_jax.training.appending import Appending
from midillm_jax.training.board import Board
from midillm_jax.training.metrics import Figures

FILE = "log.csv"
COLUMNS = (
    "step",
    "kind",
    "loss",
    "text_loss",
    "music_loss",
    "bits_per_note",
    "onset_bits",
    "duration_bits",
    "note_bits",
    "text_drift",
    "learning_rate",
    "gradient_norm",
    "skipped_steps",
    "valid_share",
    "looping_share",
    "flooded_share",
    "empty_share",
    "tokens",
    "tokens_per_second",
    "mfu",
    "data_wait_share",
    "memory_gib",
    "seconds",
)
TIMES = ("tokens_per_second", "mfu", "data_wait_share", "memory_gib", "seconds")
"""Columns that depend on the machine, not on the run."""


class RunLog:
    """Writes rows of figures. A row that a full disk refuses is written with a later one."""

    def __init__(self, folder: Path, start: int) -> None:
        """``start`` is the last step that stays of what an earlier process wrote."""
        self._path = folder / FILE
        _drop_after(self._path, start)
        self._rows = Appending(self._path)
        self.board = Board(folder / "tensorboard", start)
        self._began = time.monotonic()

    def write(self, step: int, kind: str, shown: Figures) -> OSError | None:
        """One row of figures.

        Args:
            kind: ``train``; ``validation``, or ``validation of FOLDER`` for one source; ``samples``.

        Returns:
            why neither this row nor, perhaps, earlier ones could be written yet.
        """
        row = {"step": step, "kind": kind, "seconds": round(time.monotonic() - self._began, 2)} | {
            name: float(f"{value:.6g}") for name, value in shown.items()
        }
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        if not self._path.exists():
            writer.writeheader()
        writer.writerow(row)
        failed = self._rows.write(text.getvalue().encode())
        self.board.scalars(step, {f"{kind}/{name}": value for name, value in shown.items()})
        return self.board.flush() or failed

    def has(self, step: int, kind: str) -> bool:
        """Whether that row was written, by this process or an earlier one."""
        return any(row["step"] == str(step) and row["kind"] == kind for row in read(self._path))

    def forget_after(self, step: int) -> None:
        """Takes back the rows of later steps, which the run is going to do again."""
        _drop_after(self._path, step)
        self._rows = Appending(self._path)
        self.board.forget_after(step)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a log; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return list(csv.DictReader(lines))


def held_out_figures(folder: Path, step: int) -> Figures:
    """Figures of the ``validation`` row of a step; empty where there is none."""
    for row in read(folder / FILE):
        if row["step"] == str(step) and row["kind"] == "validation":
            return {
                name: float(row[name]) for name in COLUMNS if name not in (*TIMES, "step", "kind") and row.get(name)
            }
    return {}


def _drop_after(path: Path, step: int) -> None:
    """Rows of later steps, and what a crash cut off, go."""
    if not path.exists():
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(row for row in read(path) if int(row["step"]) <= step)
    write_whole(path, text.getvalue())
