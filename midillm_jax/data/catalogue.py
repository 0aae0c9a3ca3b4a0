"""A table of what people wrote about their pieces: genre, mood, composer, title, group."""

import csv
import dataclasses
import re
from pathlib import Path

from midillm_jax.data.sources import MIDI_SUFFIXES
from midillm_jax.errors import UserError

_GENRE_COLUMNS = ("genre", "note")
"""The first of these that a table has gives the genre words."""
_MADE_HOW = re.compile(r"\s*\([^()]*->[^()]*\)")
"""How a file was made, "(LilyPond -> MIDI)", says nothing about the music."""
_INITIALS_BEHIND = re.compile(r"(\w*[^\W\d_A-Z])([A-Z]{1,4})")
"""The Mutopia project's way to write J. S. Bach: BachJS."""
_NOT_A_NAME = re.compile(r"(?i)trad|anon|unknown|various")


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What somebody wrote about a piece: never guessed, and empty where nobody did."""

    genre: tuple[str, ...] = ()
    """Genre words or phrases."""
    mood: tuple[str, ...] = ()
    composer: str = ""
    title: str = ""
    group: str = ""
    """Pieces of one group belong on one side of a split."""


def read_catalogue(table: Path) -> dict[str, Catalogue]:
    """What a tab-separated table says of each file, by its column "path".

    The columns "genre" (or else "note"), "mood", "composer", "title" and "group" are used where they are there;
    semicolons separate the words of the first three.

    Raises:
        UserError: it cannot be read as such a table.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if "path" not in (rows.fieldnames or ()):
                raise UserError(
                    f'{table}: no column "path" in its first line; expected a tab-separated table with a row a file'
                )
            return {row["path"]: _catalogue({name: text or "" for name, text in row.items() if name}) for row in rows}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{table}: cannot be read as a tab-separated table ({error}); give a UTF-8 file with a path column"
        ) from error


def _catalogue(row: dict[str, str]) -> Catalogue:
    """What a row says, in words fit for a caption."""
    noted = next((row[column] for column in _GENRE_COLUMNS if column in row), "")
    return Catalogue(
        genre=_phrases(_MADE_HOW.sub("", noted)),
        mood=_phrases(row.get("mood", "").replace(",", ";")),
        composer=_composer(row.get("composer", "").strip()),
        title=_title(row.get("title", "").strip()),
        group=row.get("group", ""),
    )


def _composer(name: str) -> str:
    if _NOT_A_NAME.match(name):
        return ""
    if match := _INITIALS_BEHIND.fullmatch(name):
        return " ".join([*(f"{initial}." for initial in match[2]), match[1]])
    return " ".join(reversed(name.split(", ", 1)))


def _title(title: str) -> str:
    """Without the number in front, which counts movements; a file's name ("mus_e1m1", "e1m1.mid") is no title."""
    return "" if "_" in title or title.lower().endswith(MIDI_SUFFIXES) else title.lstrip("0123456789. -")


def _phrases(text: str) -> tuple[str, ...]:
    """Phrases between semicolons; "key=C:maj" is data, not words."""
    phrases = (phrase.strip() for phrase in text.split(";"))
    return tuple(phrase for phrase in phrases if phrase and "=" not in phrase)
