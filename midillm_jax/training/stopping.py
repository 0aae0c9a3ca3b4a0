"""Requests to stop: Ctrl-C, SIGTERM, and Google Cloud's notice that a machine is about to be taken away."""

import os
import signal
import threading
import urllib.error
import urllib.request
from types import FrameType
from typing import Self

_PATH = "/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=60"
_HEADERS = {"Metadata-Flavor": "Google"}


class Stop:
    """Collects what asks a run to stop, so that the step at hand is finished and saved; a second Ctrl-C stops at once.

    Used as a context. A preemption is noticed where GCE_METADATA_HOST names a metadata server, as Google's own clients
    have it, and on TPU VMs, where TPU_WORKER_ID is set.
    """

    def __init__(self) -> None:
        self._caught: list[int] = []
        self._over = threading.Event()

    @property
    def asked(self) -> int:
        """The number of the first signal, or SIGTERM's for a preemption; 0 when nothing asked."""
        return self._caught[0] if self._caught else 0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal" if "TPU_WORKER_ID" in os.environ else "")
        if host:
            threading.Thread(target=self._watch, args=(f"http://{host}{_PATH}",), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _: FrameType | None) -> None:
        if self._caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._caught.append(number)

    def _watch(self, url: str) -> None:
        """Asks until the answer is TRUE; the server holds its answer back until there is news, or a minute is over."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._over.is_set():
            try:
                with opener.open(urllib.request.Request(url, headers=_HEADERS), timeout=90) as answer:
                    preempted = answer.read().strip() == b"TRUE"
            except (OSError, urllib.error.URLError):
                preempted = False
                self._over.wait(30)  # a server that is away for a while is no notice
            if preempted and not self._over.is_set():
                self._caught.append(signal.SIGTERM)
                return
            # Without a change the server answers at once where it does not know how to wait.
            self._over.wait(1)
