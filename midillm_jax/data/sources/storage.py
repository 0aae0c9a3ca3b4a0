"""Where inputs lie: on this machine, or anywhere that fsspec reads (gs://, hf://, s3://, https:// and others)."""

import contextlib
import glob
import hashlib
import io
import logging
import os
import posixpath
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from midillm_jax.errors import UserError

_WHOLE_BYTES = 64 * 2**20
_END_BYTES = 2**20
_READ_AHEAD_BYTES = 16 * 2**20
"""Asked of a bucket at a time: archives are read from beginning to end."""


class File(NamedTuple):
    """A file below a folder."""

    name: str
    """Relative to the folder, with forward slashes."""
    bytes: int
    version: str
    """Another one after every write: the time of it here, the bucket's own mark elsewhere."""


def is_remote(location: str) -> bool:
    """Whether this names something that is not on this machine's disks."""
    return "://" in location


def join(folder: str, name: str) -> str:
    """The location of a file of a folder."""
    return posixpath.join(folder, name) if is_remote(folder) else os.path.join(folder, name)


def is_folder(location: str) -> bool:
    """Whether there is a folder."""
    return _remote_kind(location) == "directory" if is_remote(location) else os.path.isdir(location)


def is_file(location: str) -> bool:
    """Whether there is a file."""
    return _remote_kind(location) == "file" if is_remote(location) else os.path.isfile(location)


def expand(location: str) -> list[str]:
    """A pattern's locations, sorted; a location without ``*``, ``?`` or ``[``, or one that exists, stands for itself.

    Raises:
        UserError: nothing fits the pattern.
    """
    if not glob.has_magic(location) or (not is_remote(location) and os.path.exists(location)):
        return [location]
    if is_remote(location):
        with _remote(location) as (system, path):
            found = sorted(system.unstrip_protocol(name) for name in system.glob(path))
    else:
        found = sorted(glob.glob(location, recursive=True))
    if not found:
        raise UserError(f"{location}: nothing fits this pattern; give files or folders that exist")
    return found


def files_below(folder: str, suffixes: tuple[str, ...], only: Collection[str] | None = None) -> list[File]:
    """The files below a folder that end in one of ``suffixes`` (in any case), sorted by name.

    Args:
        folder: searched recursively.
        suffixes: in lower case.
        only: folders below ``folder`` to look into, without those below them; None for all.
    """
    if is_remote(folder):
        with _remote(folder) as (system, path):
            return sorted(
                File(posixpath.relpath(name, path), int(entry["size"]), str(system.ukey(name)))
                for name, entry in system.find(path, detail=True).items()
                if name.lower().endswith(suffixes)
            )
    files = []
    for start in [""] if only is None else only:
        for parent, folders, names in os.walk(os.path.join(folder, start)):
            below = Path(parent).relative_to(folder).as_posix()
            for name in names:
                if name.lower().endswith(suffixes):
                    size, version = _local_state(os.path.join(parent, name))
                    files.append(File(posixpath.normpath(f"{below}/{name}"), size, version))
            if only is not None:
                folders.clear()
    return sorted(files)


def state(location: str) -> tuple[int, str]:
    """Bytes of a file, and its version (see :class:`File`)."""
    if is_remote(location):
        with _remote(location) as (system, path):
            return int(system.size(path)), str(system.ukey(path))
    return _local_state(location)


def open_binary(location: str) -> BinaryIO:
    """Opens a file to read its bytes; it can seek. Raises OSError."""
    if is_remote(location):
        with _remote(location) as (system, path):
            return cast(BinaryIO, system.open(path, "rb", block_size=_READ_AHEAD_BYTES))
    return open(location, "rb")


def read_bytes(location: str) -> bytes:
    """All of a file. Raises OSError."""
    if is_remote(location):
        with _remote(location) as (system, path):
            return bytes(system.cat_file(path))
    with open(location, "rb") as file:
        return file.read()


def write_bytes(location: str, content: bytes) -> None:
    """Writes a remote file, which appears once it is whole."""
    with _remote(location) as (system, path):
        system.makedirs(posixpath.dirname(path), exist_ok=True)
        system.pipe_file(path, content)


def make_folder(location: str) -> None:
    """Makes a folder with those above it; in a bucket there is nothing to make."""
    if not is_remote(location):
        os.makedirs(location, exist_ok=True)


def remove_folder(location: str) -> None:
    """Removes a folder with all in it, if it is there."""
    if is_remote(location):
        with _remote(location) as (system, path):
            if system.exists(path):
                system.rm(path, recursive=True)
    else:
        shutil.rmtree(location, ignore_errors=True)


def content_stamp(location: str) -> str:
    """Tells the content of an archive or table from any other, without reading all of a large one.

    SHA-256 (hex) of a file of up to 64 MiB; beyond that of its size, its first and its last MiB. The ends of archives
    and tables hold checksums (gzip), the directory (zip) or the statistics (parquet) of all that is between.
    """
    with open_binary(location) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size <= _WHOLE_BYTES:
            return _digest(file)
        digest = hashlib.sha256(str(size).encode() + file.read(_END_BYTES))
        file.seek(size - _END_BYTES)
        digest.update(file.read())
    return digest.hexdigest()


def digest(location: str) -> str:
    """SHA-256 (hex) of a file."""
    with open_binary(location) as file:
        return _digest(file)


def base_name(location: str) -> str:
    """The last name of a location, that of a folder too."""
    if is_remote(location):
        return posixpath.basename(location.rstrip("/"))
    return Path(location).resolve().name


def _digest(file: BinaryIO) -> str:
    return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()


def _local_state(path: str) -> tuple[int, str]:
    try:
        status = os.stat(path)
    except OSError:  # a dangling link: whoever reads the file says so
        return 0, ""
    return status.st_size, str(status.st_mtime_ns)


def _remote_kind(location: str) -> str:
    """ "file", "directory" or, where there is nothing, "". fsspec's own isfile takes a refusal for nothing."""
    with _remote(location) as (system, path):
        try:
            return str(system.info(path)["type"])
        except FileNotFoundError:
            return ""


@contextlib.contextmanager
def _remote(location: str) -> Iterator[tuple[Any, str]]:
    """The file system of a remote location, and the path in it.

    Raises:
        UserError: unknown, its package is not installed, or it refuses.
    """
    import fsspec

    protocol = location.partition("://")[0]
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it would log is raised as well
    try:
        yield fsspec.core.url_to_fs(location)
    except ImportError as error:
        raise UserError(
            f"{location}: reading {protocol}:// needs another package ({error}); pip install 'midillm_jax[cloud]' "
            "brings those for gs:// and hf://"
        ) from error
    except ValueError as error:
        raise UserError(f"{location}: {error}; give a path, gs://bucket/path or hf://datasets/name/path") from error
    except UserError:
        raise
    except Exception as error:  # each library has errors of its own for a network that is not there
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{location}: cannot be reached ({what}); check the name, and your access to it") from error
