"""What a person sees of a run: a live panel in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from midillm_jax.training.metrics import Figures

# Label and form of each figure, in the order of the lines.
_LINE = (
    ("loss", "loss", ".3f"),
    ("text_loss", "text", ".3f"),
    ("music_loss", "music", ".3f"),
    ("bits_per_note", "bits/note", ".2f"),
    ("text_drift", "drift", ".3f"),
    ("valid_share", "valid", ".0%"),
    ("looping_share", "looping", ".0%"),
    ("flooded_share", "flooded", ".0%"),
    ("empty_share", "empty", ".0%"),
    ("learning_rate", "lr", ".2e"),
    ("gradient_norm", "grad", ".2f"),
    ("skipped_steps", "skipped", ".0f"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("mfu", "MFU", ".0%"),
    ("data_wait_share", "data wait", ".1%"),
    ("memory_gib", "GiB", ".1f"),
)
_ROWS = (
    ("training", ("loss", "text_loss", "music_loss", "bits_per_note", "onset_bits", "duration_bits", "note_bits")),
    ("step", ("learning_rate", "gradient_norm", "skipped_steps")),
    ("speed", ("tokens_per_second", "mfu", "data_wait_share", "memory_gib")),
)
_FORMS = {name: (label, form) for name, label, form in _LINE} | {
    "onset_bits": ("onset", ".2f"),
    "duration_bits": ("duration", ".2f"),
    "note_bits": ("note", ".2f"),
}


class View:
    """Shows a run as it goes; on every process but the first nothing."""

    def __init__(
        self,
        name: str,
        steps: int,
        tokens_per_step: int,
        *,
        active: bool,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._steps, self._tokens = name, steps, tokens_per_step
        self._clock = clock
        self._step = self._first = 0
        self._pace: float | None = None
        self._shown: dict[str, tuple[int, Figures]] = {}
        self._saved: tuple[int, float] | None = None
        self._doing = ""
        self._console = console or Console()
        self._active = active
        self._live: Live | None = None
        if active and self._console.is_terminal:
            self._live = Live(get_renderable=self.panel, console=self._console, refresh_per_second=2)
            self._live.start()

    def begin(self, step: int) -> None:
        """The run goes on after ``step``."""
        self._step = self._first = step
        self._since = self._clock()

    def doing(self, what: str) -> None:
        """What takes time beside steps, such as compiling; empty when that is over."""
        self._doing = what
        # The time a step takes is not that of what stood in its way.
        self._first, self._since = self._step, self._clock()

    def advance(self, step: int) -> None:
        """One step more was begun."""
        self._step = step
        if step - self._first > 1:
            self._pace = (self._clock() - self._since) / (step - self._first)

    def show(self, step: int, kind: str, figures: Figures) -> None:
        """A row of the log."""
        self._shown[kind] = (step, figures)
        if self._live is None or kind != "train":
            parts = [f"{label} {figures[name]:{form}}" for name, label, form in _LINE if name in figures]
            if kind == "train":
                parts += self._state()
            self.say(f"step {step}/{self._steps} {kind:10s} {'  '.join(parts)}")

    def _state(self) -> list[str]:
        """What a plain line says beside the figures."""
        parts = [f"tokens {_short(self._step * self._tokens)}"]
        if self._pace and self._step < self._steps:
            parts.append(f"left {_duration(self._pace * (self._steps - self._step))}")
        return parts if self._saved is None else [*parts, f"saved {self._saved[0]}"]

    def saved(self, step: int) -> None:
        """A checkpoint of this step is whole."""
        if self._saved is None or self._saved[0] != step:
            self._saved = (step, self._clock())

    def say(self, text: str) -> None:
        """A plain line, above the panel."""
        if self._active:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the last panel standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def panel(self) -> Group:
        """What a terminal shows just now."""
        share = self._step / self._steps
        head = Table.grid(padding=(0, 2))
        left = f"{_duration(self._pace * (self._steps - self._step))} left" if self._pace else self._doing
        head.add_row(
            Text(self._name, style="bold"),
            ProgressBar(total=self._steps, completed=self._step, width=30),
            Text(f"{self._step:,}/{self._steps:,} steps"),
            Text(f"{share:.0%}"),
            Text(self._doing or left),
        )
        body = Table.grid(padding=(0, 2))
        _, train = self._shown.get("train", (0, {}))
        for label, names in _ROWS:
            if any(name in train for name in names):
                body.add_row(Text(label, style="dim"), _figures(train, names))
        for kind, (step, figures) in self._shown.items():
            if kind != "train":
                body.add_row(Text(kind, style="dim"), _figures(figures, _FORMS).append(f"at step {step:,}", "dim"))
        tokens = Text(f"{_short(self._step * self._tokens)} of {_short(self._steps * self._tokens)}")
        body.add_row(Text("tokens", style="dim"), tokens)
        if self._saved is not None:
            step, at = self._saved
            body.add_row(Text("checkpoint", style="dim"), Text(f"step {step:,}, {_duration(self._clock() - at)} ago"))
        return Group(head, body)


def _figures(figures: Figures, names: object) -> Text:
    text = Text()
    for name, (label, form) in _FORMS.items():
        if name in figures and name in names:  # type: ignore[operator]
            text.append(f"{label} ", "dim").append(f"{figures[name]:{form}}  ")
    return text


def _duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _short(tokens: float) -> str:
    """``3.1 B``, ``245.8 M``, ``12 k``."""
    for size, unit, form in ((1e9, "B", ".2f"), (1e6, "M", ".1f"), (1e3, "k", ".0f")):
        if tokens >= size:
            return f"{tokens / size:{form}} {unit}"
    return f"{tokens:.0f}"
