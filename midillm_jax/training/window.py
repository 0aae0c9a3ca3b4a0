"""Sums and times of the steps since the last logged row."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from midillm_jax.training import metrics

_NOT_ADDED = ("gradient_norm", "learning_rate", "applied")


class Window:
    """Compiling, saving and evaluating are left out of the times, and steps that were not applied out of the sums."""

    def __init__(self, sums: Mapping[str, float]) -> None:
        """``sums`` are those of steps before this process began, which count for all but the times."""
        self.sums = dict(sums)
        self._last: dict[str, float] = {}
        self._steps = 0
        self._waited = 0.0
        self._aside = 0.0
        self._since = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Times the wait for data of a device that has nothing else to do."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Times what is no part of a step."""
        began = time.monotonic()
        yield
        self._aside += time.monotonic() - began

    def add(self, values: Mapping[str, float]) -> None:
        """One step's figures (training.step.train_step)."""
        self._steps += 1
        self._last = {name: values[name] for name in ("gradient_norm", "learning_rate")}
        skipped = {"skipped_steps": 1.0 - values["applied"]}
        added = {name: value for name, value in values.items() if name not in _NOT_ADDED} if values["applied"] else {}
        for name, value in (skipped | added).items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def figures(self, tokens_per_step: int) -> metrics.Figures:
        """What a row of the log says of these steps."""
        elapsed = time.monotonic() - self._since - self._aside
        shown = metrics.figures(self.sums) if "weight" in self.sums else {}
        if self.sums.get("skipped_steps"):
            shown["skipped_steps"] = self.sums["skipped_steps"]
        return (
            shown
            | self._last
            | {
                "tokens_per_second": self._steps * tokens_per_step / elapsed,
                "data_wait_share": self._waited / elapsed,
            }
        )
