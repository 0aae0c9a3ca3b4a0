"""Files of a folder, one record each."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from midillm_jax.data.sources import storage
from midillm_jax.data.sources.record import Record, excluded
from midillm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class About:
    """What is known of a file besides its content."""

    captions: tuple[str, ...] = ()
    group: str = ""
    test: bool = False


@dataclasses.dataclass(frozen=True)
class FolderPart:
    """Files of a folder in the order of their names; only names are held in memory."""

    root: str
    source: str
    files: tuple[storage.File, ...]
    about: Mapping[str, About] = dataclasses.field(default_factory=dict)
    """By name."""
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name -> why a file cannot be used."""

    @property
    def size_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def __iter__(self) -> Iterator[Record]:
        for file in self.files:
            about = self.about.get(file.name, About())
            yield Record(
                self.source,
                file.name,
                amount=file.bytes,
                captions=about.captions,
                group=about.group,
                test=about.test,
                problem=self.problems.get(file.name, ""),
                location=storage.join(self.root, file.name),
            )

    def version(self) -> str:
        about = sorted((name, dataclasses.astuple(known)) for name, known in self.about.items())
        return hashlib.sha256(json.dumps([self.files, about, dict(self.problems)]).encode()).hexdigest()

    def content(self) -> None:
        return None


def folder_files(
    folder: str, suffixes: tuple[str, ...], exclude: Sequence[str], only: Collection[str] | None = None
) -> tuple[storage.File, ...]:
    """The files below a folder, sorted by name; of the folders ``only`` alone when that is given.

    Raises:
        UserError: no such folder.
    """
    if not storage.is_folder(folder):
        kind = "is a file, not a folder" if storage.is_file(folder) else "no such folder"
        raise UserError(f"{folder}: {kind}; expected a folder with {', '.join(suffixes)} files")
    return tuple(file for file in storage.files_below(folder, suffixes, only) if not excluded(file.name, exclude))
