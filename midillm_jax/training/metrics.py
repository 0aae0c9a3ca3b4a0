"""Figures of a run, derived from the sums of training/loss.py."""

import math
from collections.abc import Mapping

Figures = dict[str, float]
_SLOTS = ("onset", "duration", "note")


def figures(sums: Mapping[str, float]) -> Figures:
    """Logged figures from added-up sums (training.loss.sums); one that has no targets is left out.

    ``loss``, ``text_loss`` and ``music_loss`` are nats a token. ``bits_per_note`` is all nats spent on music (onset,
    duration, note; rests and separators included) over ln 2 and over the sounding notes.
    """
    shown: Figures = {}
    if sums["weight"]:
        shown["loss"] = sums["objective"] / sums["weight"]
    if sums["text_tokens"]:
        shown["text_loss"] = sums["text_nats"] / sums["text_tokens"]
    # Sums of a run that an earlier version began lack it.
    if sums.get("music_tokens"):
        shown["music_loss"] = sum(sums[f"{slot}_nats"] for slot in _SLOTS) / sums["music_tokens"]
    if sums["notes"]:
        bits = {slot: sums[f"{slot}_nats"] / math.log(2) / sums["notes"] for slot in _SLOTS}
        shown["bits_per_note"] = sum(bits.values())
        shown |= {f"{slot}_bits": value for slot, value in bits.items()}
    return shown
