"""Files and folders that appear whole or not at all."""

import os
import shutil
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file beside its name and renames it; text is UTF-8.

    An interruption leaves what was there before, and at most ``<name>.partial`` beside it.
    """
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


def put_in_place(made: Path, place: Path) -> None:
    """Renames a folder to where it belongs; one that is there already goes once the new one stands."""
    old = place.with_name(place.name + ".old")
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(place, old)
    os.replace(made, place)
    shutil.rmtree(old, ignore_errors=True)
