"""The picture of a prepared folder: how long its pieces are, and what their notes are like."""

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from midillm_jax.data.summary import Music, sound
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.vocab import MAX_DURATION_TICKS, PITCHES, TICKS_PER_SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SOFT, _LINE = "#1d2330", "#667085", "#e4e7ec"
_FILL, _PALE, _MARK = "#7aa6d8", "#cfe0f3", "#c2410c"
_DPI = 90
_STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "ytick.left": False,
}


def draw_music(music: Music, lengths: np.ndarray, title: str, read: str, stream: IO[bytes]) -> None:
    """Nine histograms of a folder of music as a PNG.

    Args:
        music: of the pieces that were read.
        lengths: int32 [pieces], notes of every piece of the folder.
        title: stands above.
        read: which pieces were read.
        stream: what the PNG is written to.
    """
    seconds = np.array(music.seconds)
    density = np.array(music.notes) / np.maximum(seconds, 0.01)

    def pitches(axes: "Axes") -> None:
        _bars(axes, music.pitches, np.arange(0, PITCHES, 12), lambda pitch: sound(0, pitch))

    def velocities(axes: "Axes") -> None:
        _bars(axes, music.velocities, np.array([0, 32, 64, 96, 127]), str)

    def instruments(axes: "Axes") -> None:
        top = music.top_programs(10)
        shares = [100 * music.programs[program] / len(music.notes) for program in top]
        axes.barh(range(len(top)), shares, color=_PALE, height=0.78)
        axes.set(xlim=(0, max(shares)), ylim=(len(top) - 0.4, -0.6), xticks=[], yticks=[])
        for place, (program, share) in enumerate(zip(top, shares, strict=True)):
            axes.text(0, place, f"  {PROGRAM_NAMES[program]}", va="center", fontsize=8.5)
            axes.text(max(shares), place, f"{share:.0f} % ", va="center", ha="right", color=_SOFT, fontsize=8.5)
        axes.spines["bottom"].set_visible(False)

    panels: list[tuple[str, str, Callable[[Axes], None]]] = [
        ("Length in notes", "notes a piece", lambda axes: _spread(axes, lengths, "{:,.0f}")),
        ("Length in time", "seconds a piece", lambda axes: _spread(axes, seconds, "{:,.0f} s")),
        ("Density", "notes a second", lambda axes: _spread(axes, density, "{:.1f}")),
        ("Pitches", "drums left out", pitches),
        ("Velocities", "as written in the file", velocities),
        (
            "Tempo",
            "beats a minute, of each piece's main tempo",
            lambda axes: _spread(axes, np.array(music.bpm), "{:.0f}"),
        ),
        (
            "Durations",
            f"seconds, cut to {(MAX_DURATION_TICKS - 1) / TICKS_PER_SECOND}",
            lambda axes: _times(axes, music.durations),
        ),
        (
            "Onset gaps",
            "seconds since the note before; 0 is a chord",
            lambda axes: _times(axes, music.gaps),
        ),
        ("Instruments", "share of pieces", instruments),
    ]
    _draw(panels, 3, title, f"pieces read: {read}", stream)


def draw_text(lengths: np.ndarray, used: np.ndarray, title: str, read: str, stream: IO[bytes]) -> None:
    """Two histograms of a folder of text as a PNG: lengths of the documents, and how often each token occurs.

    ``lengths`` is int32 [documents], ``used`` int64 [vocabulary]: how often each token was read.
    """

    def ranks(axes: "Axes") -> None:
        often = np.sort(used[used > 0])[::-1]
        axes.loglog(np.arange(1, len(often) + 1), often, color=_FILL, linewidth=2)
        axes.grid(True, axis="both")

    panels: list[tuple[str, str, Callable[[Axes], None]]] = [
        ("Length", "tokens a document", lambda axes: _spread(axes, lengths, "{:,.0f}")),
        ("Use of the vocabulary", "rank of the token; how often it occurs above", ranks),
    ]
    _draw(panels, 2, title, f"documents read: {read}", stream)


def _spread(axes: "Axes", values: np.ndarray, form: str) -> None:
    """A histogram over a logarithmic axis, the middle marked; the outermost thousandth stands at the edge."""
    values = np.maximum(values.astype(np.float64), 0.1)
    low, high = np.quantile(values, [0.001, 0.999])
    low, high = (low, high) if high > 1.05 * low else (low / 2, high * 2)
    bins = np.geomspace(low, high, 1 + int(np.clip(2 * np.sqrt(len(values)), 12, 40)))
    counts, _ = np.histogram(np.clip(values, low, high), bins)
    axes.set_xscale("log")
    axes.bar(bins[:-1], 100 * counts / len(values), np.diff(bins) * 0.92, align="edge", color=_FILL)
    middle = float(np.median(values))
    axes.axvline(middle, color=_MARK, linewidth=1.2)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    side = "right" if middle > np.sqrt(low * high) else "left"
    text = f" median {form.format(middle)} "
    axes.text(middle, axes.get_ylim()[1], text, color=_MARK, ha=side, va="top", fontsize=8.5)
    axes.set_xticks(_round_numbers(low, high))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")


def _round_numbers(low: float, high: float) -> list[float]:
    """At most seven round numbers between two numbers, as many as that allows."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    found: list[float] = []
    for steps in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(found) <= 7:
            break
    return found


def _bars(axes: "Axes", counts: np.ndarray, marks: np.ndarray, name: Callable[[int], str]) -> None:
    """A bar a number, as shares of all, as far as numbers occur; ``marks`` are named on the axis."""
    axes.bar(np.arange(len(counts)), 100 * counts / counts.sum(), 1.0, color=_FILL)
    found = np.flatnonzero(counts > 1e-5 * counts.sum())
    first, last = found[0] - 2, found[-1] + 2
    marks = marks[(marks >= first) & (marks <= last)]
    axes.set_xticks(marks, [name(int(mark)) for mark in marks])
    axes.set_xlim(first, last)


def _times(axes: "Axes", ticks: np.ndarray) -> None:
    """Notes by a number of ticks, in classes that grow with it; zero is a class of its own."""
    edges = np.unique(np.rint(np.geomspace(1, len(ticks) - 1, 34)).astype(int))
    starts = np.concatenate([[0], edges])
    counts = np.add.reduceat(ticks, starts)
    axes.bar(np.arange(len(starts)), 100 * counts / max(1, ticks.sum()), 0.86, color=_FILL)
    marks = np.array([3, 10, 30, 100, 300, len(ticks) - 1])
    # A class begins half a bar left of its middle; the last one is a single number.
    places = np.interp(marks, starts, np.arange(len(starts)) - 0.5)
    places[-1] = len(starts) - 1
    axes.set_xticks([0, *places], ["0", *(f"{mark / TICKS_PER_SECOND:g}" for mark in marks)])


def _draw(
    panels: list[tuple[str, str, Callable[["Axes"], None]]], columns: int, title: str, note: str, stream: IO[bytes]
) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = len(panels) // columns
    with matplotlib.rc_context(_STYLE):
        width, height = 4.2 * columns, 0.7 + 2.75 * rows
        layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.14, rect=(0, 0, 1, 1 - 0.66 / height))
        figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout)
        FigureCanvasAgg(figure)
        figure.text(0.16 / width, 1 - 0.17 / height, title, fontsize=14, fontweight="bold", va="top")
        figure.text(0.16 / width, 1 - 0.45 / height, note, color=_SOFT, va="top")
        for axes, (name, under, draw) in zip(figure.subplots(rows, columns).flat, panels, strict=True):
            axes.set_title(name)
            axes.set_xlabel(under)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
            draw(axes)
        figure.savefig(stream, format="png", facecolor="white")
