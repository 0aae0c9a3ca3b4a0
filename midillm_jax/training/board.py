"""What TensorBoard shows of a run.

tensorboardX makes the summaries. Its own writer is a thread that ends without a word where a disk is full, after which
the run hangs on its queue; so records are framed and appended here.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from midillm_jax.training.appending import Appending


class Board:
    """Appends events to a file of its own in a folder that TensorBoard is pointed at."""

    def __init__(self, folder: Path, start: int) -> None:
        """``start`` is the last step that stays; what earlier files of the folder have of later ones is not shown."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names, each from its start.
        stamp = f"{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = Appending(folder / f"events.out.tfevents.{stamp}")
        self._events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        self.forget_after(start)

    def forget_after(self, step: int) -> None:
        """Takes back the events of later steps, which the run is going to do again."""
        restart = SessionLog(status=SessionLog.START)
        self._events.append(Event(wall_time=time.time(), step=step + 1, session_log=restart))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values by their tags."""
        for tag, value in values.items():
            self._add(step, summary.scalar(tag, value))

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """Adds a picture, uint8 [height, width, 3]."""
        self._add(step, summary.image(tag, pixels, dataformats="HWC"))

    def audio(self, step: int, tag: str, samples: np.ndarray, rate: int) -> None:
        """Adds sound, float [samples] from -1 to 1, at ``rate`` samples a second."""
        self._add(step, summary.audio(tag, samples, rate))

    def flush(self) -> OSError | None:
        """Writes what was added, or says why it could not and keeps it for the next time."""
        events, self._events = self._events, []
        return self._file.write(b"".join(_framed(event.SerializeToString()) for event in events))

    def _add(self, step: int, content: Summary) -> None:
        self._events.append(Event(wall_time=time.time(), step=step, summary=content))


def _framed(record: bytes) -> bytes:
    """A TFRecord: length and content, each with a masked CRC-32C."""
    length = struct.pack("<Q", len(record))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), record, struct.pack("<I", masked_crc32c(record)))
    )
