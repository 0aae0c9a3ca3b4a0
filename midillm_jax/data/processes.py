"""What worker processes of any job need: to be started without being interrupted."""

import contextlib
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def held_interrupts() -> Iterator[None]:
    """Keeps Ctrl-C from processes started inside, which inherit that for good: it is their parent's to handle."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
