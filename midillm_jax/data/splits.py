"""Which side of the split a piece falls on: a matter of the piece alone, not of order or of what else there is.

Pieces that are alike can still fall on different sides where a data set's own rule decides: see data/dedupe.py.
"""

import dataclasses
import hashlib
import json
import posixpath
import re
from typing import Any, Literal

from midillm_jax.data.shards import SplitName
from midillm_jax.data.sources import MIDI_SUFFIXES, Record, storage
from midillm_jax.data.sources.captions import CaptionTable
from midillm_jax.errors import UserError

SPLIT_VERSION = 3
"""Raised when records come to fall on other sides, so that an older folder is not taken for the new."""

By = Literal["auto", "hash", "lakh", "midicaps"]

_MD5 = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
_LAKH_VALIDATION, _LAKH_TEST = "e", "f"
"""First digits of the Anticipatory Music Transformer's split of Lakh, arXiv 2306.08620, section 5."""


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """How records are held out. Whatever the rule, ``test_ids`` are for testing."""

    by: By = "auto"
    """``lakh``: by the first hex digit of a file's name, e for validation and f for testing. ``midicaps``: what the
    captions' column test_set says is for testing, the others as ``hash``. ``hash``: a share, drawn by the record's
    group or else by its content. ``auto``: ``lakh`` for files that are named by an MD5 (as in Lakh, MidiCaps and
    GigaMIDI) unless their captions give them a group, ``hash`` for the others."""
    validation_share: float = 0.05
    """Share of groups (0 up to, but not, 1) held out by ``hash``."""
    test_ids: frozenset[str] = frozenset()
    """Names of files without folder and suffix."""

    def side(self, record: Record, content_group: str) -> SplitName:
        """The side of a record; ``content_group`` stands for its music or text.

        Raises:
            UserError: the rule is ``lakh`` and the name does not begin with a hex digit.
        """
        stem = stem_of(record.name)
        if stem in self.test_ids or (self.by == "midicaps" and record.test):
            return "test"
        if self.by == "lakh" or (self.by == "auto" and not record.group and _MD5.fullmatch(stem)):
            digit = stem[:1].lower()
            if not re.fullmatch("[0-9a-f]", digit):
                raise UserError(
                    f"{record.name}: --split lakh goes by the hex digit that a name begins with, as Lakh's do; use "
                    "--split hash for other names"
                )
            return "validation" if digit == _LAKH_VALIDATION else "test" if digit == _LAKH_TEST else "train"
        return split_of(record.group or content_group, self.validation_share)

    def options(self) -> dict[str, Any]:
        """All that decides sides, for a manifest; JSON-able."""
        ids = hashlib.sha256(json.dumps(sorted(self.test_ids)).encode()).hexdigest()[:16] if self.test_ids else ""
        return {
            "split": self.by,
            "split version": SPLIT_VERSION,
            "validation share": self.validation_share,
            "test ids": ids,
        }


def split_of(group: str, validation_share: float) -> SplitName:
    """The side a group falls on: a matter of its name alone."""
    drawn = int.from_bytes(hashlib.sha256(b"split:" + group.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return "validation" if drawn < validation_share * 2**64 else "train"


def stem_of(name: str) -> str:
    """The name of a piece's file without folder and MIDI suffix."""
    stem, suffix = posixpath.splitext(posixpath.basename(name))
    return stem if suffix.lower() in MIDI_SUFFIXES else stem + suffix


def read_ids(path: str) -> frozenset[str]:
    """Names of pieces from a file; folders and MIDI suffixes are taken off.

    The file is a JSON list of strings, or has a name a line, as MIDI-LLM's evaluation_set_lakh_ids.txt, or a JSON
    object a line with "location", as MidiCaps' train.json: of those with "test_set" the ones where it is true.

    Raises:
        UserError: no such file, or no names in it.
    """
    if not storage.is_file(path):
        raise UserError(f"{path}: no such file; expected names of pieces, one a line or as a JSON list")
    text = storage.read_bytes(path).decode("utf-8", "surrogateescape").strip()
    names: Any = text.splitlines()
    if text.startswith("{"):
        table = CaptionTable(path).rows
        tests = [location for location, about in table.items() if about.test]
        names = tests or list(table)
    elif text.startswith("["):
        try:
            names = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}: begins like a JSON list but is none ({error})") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected names of pieces, one a line or as a JSON list of strings")
    return frozenset(stem_of(name.strip()) for name in names if name.strip())
