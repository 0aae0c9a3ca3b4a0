"""What decides a run's batches: saved with the streams' state, so that a run goes on with the data it began with."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from midillm_jax.config import DataConfig
from midillm_jax.data.shards import SplitReader
from midillm_jax.errors import UserError
from midillm_jax.text.tokenizer import Tokenizer

_FIELDS = (
    "streams",
    "row_length",
    "music_rows",
    "text_rows",
    "caption_dropout",
    "transpose",
    "tempo_stretch",
    "alter_captioned",
    "window_start",
    "compat_flag",
)
_DIGITS = 16
"""Of a SHA-256 in hex: enough to tell data apart, few enough to read."""
_ABSENT = "absent"

Identity = dict[str, Any]
"""Name of what is compared -> its value; flat and JSON-able."""


def identity(
    data: DataConfig,
    folders: Mapping[str, Sequence[tuple[SplitReader, float]]],
    *,
    seed: int,
    tokenizer: Tokenizer,
) -> Identity:
    """All that the rows follow from.

    Folders count by their records, wherever they lie.

    Args:
        data: the config's part on data.
        folders: each kind of rows with its folders and their weights.
        seed: of the run.
        tokenizer: in use.
    """
    parts: Identity = {"seed": seed, "tokenizer": tokenizer.fingerprint[:_DIGITS]}
    parts |= {f"data.{name}": getattr(data, name) for name in _FIELDS}
    if data.prompt_weight:  # else as before there was this field, so that runs of then go on
        parts["data.prompt_weight"] = data.prompt_weight
    parts |= {f"data.anticipation.{name}": share for name, share in dataclasses.asdict(data.anticipation).items()}
    for kind, members in folders.items():
        for place, (reader, weight) in enumerate(members):
            parts[f"the shards of data.{kind}[{place}]"] = reader.digest[:_DIGITS]
            parts[f"the weight of data.{kind}[{place}]"] = weight
    return parts


def check_same(saved: Identity, now: Identity) -> None:
    """Raises UserError naming everything that changed, with old and new."""
    both = {name: (saved.get(name, _ABSENT), now.get(name, _ABSENT)) for name in (saved | now)}
    changed = [f"{name} was {old}, is now {new}" for name, (old, new) in both.items() if old != new]
    if changed:
        raise UserError(
            f"the saved data state does not fit this run: {'; '.join(changed)}: resume with what the run began with, "
            "or begin another run"
        )
