"""What a run shows and writes: a live line in the terminal, log.csv, TensorBoard.

Figures are derived from the sums of training/loss.py: ``bits_per_note`` is all nats spent on music (onset,
duration, note; rests and separators included) over ln 2 and over the sounding notes.
"""

import csv
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

COLUMNS = (
    "step",
    "kind",
    "loss",
    "text_loss",
    "bits_per_note",
    "onset_bits",
    "duration_bits",
    "note_bits",
    "learning_rate",
    "gradient_norm",
    "tokens",
    "tokens_per_second",
    "data_wait_share",
    "seconds",
)
Figures = dict[str, float]


def figures(sums: Mapping[str, float]) -> Figures:
    """Logged figures from added-up sums (training.loss.sums); one that has no targets is left out."""
    shown: Figures = {}
    if sums["weight"]:
        shown["loss"] = sums["objective"] / sums["weight"]
    if sums["text_tokens"]:
        shown["text_loss"] = sums["text_nats"] / sums["text_tokens"]
    if sums["notes"]:
        bits = {slot: sums[f"{slot}_nats"] / math.log(2) / sums["notes"] for slot in ("onset", "duration", "note")}
        shown["bits_per_note"] = sum(bits.values())
        shown |= {f"{slot}_bits": value for slot, value in bits.items()}
    return shown


class RunLog:
    """Writes a run's figures; on every process but the first it writes nothing."""

    def __init__(self, folder: Path, name: str, steps: int, start: int, active: bool):
        self._active = active
        if not active:
            return
        self._steps = steps
        self._csv = folder / "log.csv"
        _drop_rows_after(self._csv, start)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._console = Console()
        self._progress = Progress(
            TextColumn(f"[bold]{name}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("compiling ...", total=steps, completed=start)
        self._progress.start()
        self._began = time.monotonic()

    def advance(self, step: int) -> None:
        """Moves the live bar."""
        if self._active:
            self._progress.update(self._task, completed=step)

    def write(self, step: int, kind: str, shown: Figures) -> None:
        """One row of figures; ``kind`` is train or validation."""
        if not self._active:
            return
        row = {"step": step, "kind": kind, "seconds": round(time.monotonic() - self._began, 2)} | {
            name: float(f"{value:.6g}") for name, value in shown.items()
        }
        new = not self._csv.exists()
        with self._csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        for name, value in shown.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)
        self._board.flush()
        text = _line(shown)
        if kind == "train" and self._console.is_terminal:
            self._progress.update(self._task, description=text, completed=step)
        else:
            self.say(f"step {step}/{self._steps} {kind:10s} {text}")

    def has(self, step: int, kind: str) -> bool:
        """Whether that row was written, in this run or before it was interrupted; True on other processes."""
        if not self._active:
            return True
        if not self._csv.exists():
            return False
        with self._csv.open(newline="") as file:
            return any(row["step"] == str(step) and row["kind"] == kind for row in csv.DictReader(file))

    def say(self, text: str) -> None:
        """A plain line above the bar."""
        if self._active:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stops the live bar and closes the files."""
        if self._active:
            self._progress.stop()
            self._board.close()


def _line(shown: Figures) -> str:
    parts = []
    for name, label, form in (
        ("loss", "loss", ".3f"),
        ("text_loss", "text", ".3f"),
        ("bits_per_note", "bits/note", ".2f"),
        ("gradient_norm", "grad", ".2f"),
        ("tokens_per_second", "tokens/s", ",.0f"),
        ("data_wait_share", "data wait", ".1%"),
    ):
        if name in shown:
            parts.append(f"{label} {shown[name]:{form}}")
    return "  ".join(parts)


def _drop_rows_after(path: Path, step: int) -> None:
    """Rows of steps that a restored run will write again are taken out first."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
