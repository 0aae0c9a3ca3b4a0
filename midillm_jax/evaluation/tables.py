"""Tables of the page: what was asked for, and how like real music the pieces are."""

import html

from midillm_jax.evaluation.control import Measure
from midillm_jax.evaluation.music_scores import MusicScores

CONTROLS = {
    "tempo_bin": "tempo, MidiCaps' bin (TB)",
    "tempo_bin_near": "tempo, that bin or the next (TBT)",
    "tempo_bin_octave": "tempo, or half or twice as fast",
    "key": "key (CK)",
    "key_or_relative": "key, or its relative",
    "drums": "drums",
    "meter": "meter: duple, triple or compound",
    "length": "length, within a quarter",
    "instrument_precision": "instruments that the prompt names: of those played, named",
    "instrument_recall": "instruments that the prompt names: of those named, played",
    "instrument_f1": "instruments that the prompt names: F1",
}
"""How the measures of control.py are called on the page."""


def controls(scores: MusicScores) -> str:
    """A row a measure that any prompt asks for, but for the drums, which have a card of their own on the page."""
    ceiling = {measure.name: measure for measure in scores.ceiling.measures}
    shown = [measure for measure in scores.control.measures if measure.name != "drums"]
    rows = "".join(_control(measure, ceiling.get(measure.name)) for measure in shown)
    if not rows:
        return ""
    head = "".join(
        f'<th class="number">{name}</th>'
        for name in ("prompts", "as asked", "shuffled prompts", "difference", "real pieces, their own captions")
    )
    return f"<table><tr><th>asked for</th>{head}</tr>{rows}</table>"


def _control(measure: Measure, ceiling: Measure | None) -> str:
    cells = [f"{measure.prompts:,}", measure.share.percent(), measure.shuffled.percent()]
    cells.append(f"<b>{measure.better_by.percent()}</b>" if measure.wins else measure.better_by.percent())
    cells.append("" if ceiling is None else ceiling.share.percent())
    return f"<tr><td>{html.escape(CONTROLS[measure.name])}</td>{_numbers(cells)}</tr>"


def likeness(scores: MusicScores) -> str:
    """A row a measure that both sets have."""
    rows = "".join(
        f"<tr><td>{html.escape(each.name.replace('_', ' '))}</td>"
        + _numbers([each.mean.numbers(), f"{each.reference_mean:.2f}", each.overlap.percent()])
        + "</tr>"
        for each in scores.quality
    )
    if not rows:
        return ""
    head = "".join(f'<th class="number">{name}</th>' for name in ("mean", "real pieces", "overlapped area"))
    return f"<table><tr><th>measure</th>{head}</tr>{rows}</table>"


def _numbers(cells: list[str]) -> str:
    return "".join(f'<td class="number">{cell}</td>' for cell in cells)
