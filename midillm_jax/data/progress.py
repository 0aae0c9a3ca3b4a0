"""How far a build is: a live bar on a terminal, a line now and then elsewhere; on stderr."""

import sys
import time

import rich.console
import rich.progress

_LINE_SECONDS = 5.0
"""Time between progress lines where there is no terminal."""


class Progress:
    """Counts records and the bytes of the input that they stand for::

    with Progress(listing.size_bytes, "files") as progress:
        progress.add(records=256, amount=1_000_000, rejected=3)
    """

    def __init__(self, total: int, things: str, lost: str = "rejected") -> None:
        """``total`` is that of all amounts; ``things`` and ``lost`` are words for records, and for those not kept."""
        self._total = max(total, 1)
        self._things = things
        self._lost = lost
        self._done = self._records = self._rejected = 0
        self._started = self._said = time.monotonic()
        console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(bar_width=20),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self._total)

    def add(self, *, records: int, amount: int, rejected: int) -> None:
        """Counts what was done since the last call, and shows it."""
        self._done += amount
        self._records += records
        self._rejected += rejected
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.update(self._task, completed=self._done, description=self._line(now))
        elif now - self._said >= _LINE_SECONDS:
            self._said = now
            left = (now - self._started) * (self._total - self._done) / max(self._done, 1)
            print(f"{self._line(now)}, {max(left, 0):,.0f} s left", file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        rate = self._records / max(now - self._started, 1e-9)
        share = min(self._done / self._total, 1)
        things = self._things
        return f"{share:.0%}: {self._records:,} {things}, {rate:,.0f} {things}/s, {self._rejected:,} {self._lost}"

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
