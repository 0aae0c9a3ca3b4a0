"""An exported folder comes into being whole or not at all, and takes nobody else's place."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from midillm_jax.errors import UserError
from midillm_jax.model import hf_config

GGUF_FILE = "model.gguf"
"""Weights for llama.cpp, where a folder holds those."""


def check_replaceable(target: Path) -> None:
    """Refuses a place that holds anything but an earlier export.

    Raises:
        UserError: a run, a downloaded model or files of the user's are there.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if (target / "checkpoints").exists():
        raise UserError(f"{target}: holds checkpoints, as the folder of a training run does; give --out a new folder.")
    if not (target / hf_config.OWN_FILE).is_file():
        raise UserError(
            f"{target}: is there already and is not an export of midillm_jax, which would have a "
            f"{hf_config.OWN_FILE}; give --out a new folder."
        )


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty folder that takes the target's place when the block ends well, and is gone when it does not.

    It lies in a folder of a new name beside the target, so that nothing of the user's can be in its way.
    """
    place = target.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{place.name}.partial-", dir=place.parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        yield new
        try:
            # A folder cannot be renamed onto one that holds files.
            if place.exists():
                place.rename(old)
            new.rename(place)
        except BaseException:
            if old.exists() and not place.exists():
                old.rename(place)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Writes an object as people read it, indented."""
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
