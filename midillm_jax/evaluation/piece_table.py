"""pieces.csv: a row a generated piece, for spreadsheets and plots of one's own."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from midillm_jax.evaluation import quality
from midillm_jax.evaluation.quality import Quality

NAME = "pieces.csv"


def table(pieces: Sequence[Mapping[str, Any]], measured: Sequence[Quality]) -> str:
    """The file's text.

    Args:
        pieces: as results.json has them; programs are joined by spaces, yes and no are 1 and 0, what a prompt does not
            say is empty.
        measured: of each piece; what it lacks is empty.
    """
    values = [quality.values(each) for each in measured]
    measures = list(dict.fromkeys(name for each in values for name in each))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(pieces[0] if pieces else ()), *measures])
    for piece, found in zip(pieces, values, strict=True):
        writer.writerow([*map(_cell, piece.values()), *(found.get(name, "") for name in measures)])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else value
