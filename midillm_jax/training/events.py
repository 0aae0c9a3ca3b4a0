"""What happens to a run beside its steps: checkpoints that fail, steps not applied, changed fields, resumes."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

FILE = "events.jsonl"
Kind = Literal[
    "changed", "checkpoint damaged", "save failed", "step not applied", "rolled back", "log not written", "stopped"
]


class Events:
    """Writes ``RUN/events.jsonl``, one JSON object a line; on every process but the first it writes nothing."""

    def __init__(self, folder: Path, *, active: bool) -> None:
        self._path = folder / FILE
        self._active = active

    def note(self, kind: Kind, step: int, sentence: str, **details: Any) -> None:
        """Writes one event down.

        Args:
            step: the last one that was done, or the one that the event is about.
            sentence: what a person should know.
            details: JSON-able.
        """
        if not self._active:
            return
        line = {"step": step, "event": kind, "time": round(time.time(), 3), "what": sentence} | details
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            # The disk may be full, which is one of the things to be told; a run does not end for its diary.
            print(f"warning: {self._path} cannot be written ({error.strerror})", file=sys.stderr, flush=True)

    def warn(self, kind: Kind, step: int, sentence: str, **details: Any) -> None:
        """Writes an event down and says it on stderr."""
        self.note(kind, step, sentence, **details)
        if self._active:
            print(f"warning: {sentence}", file=sys.stderr, flush=True)
