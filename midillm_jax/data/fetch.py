"""Data sets from where they are published: asked for, resumed, and compared with their checksums.

Python's own urllib does it for Lakh and the Hugging Face Hub alike: one set of rules for going on after a cut, one
check, no dependency. (huggingface_hub resumes too, but compares sizes only, and Lakh is not on the Hub.)

A file is received as ``<name>.partial``, with what identifies the server's file in ``<name>.partial.json``, so that two
versions of it are never joined; it gets its name when its checksum is right. HF_ENDPOINT names another Hub, as
it does for huggingface_hub.
"""

import dataclasses
import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

import rich.console
import rich.progress
from rich.filesize import decimal

import midillm_jax
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole

Name = Literal["lakh", "midicaps", "musicpile", "gigamidi"]
Algorithm = Literal["SHA-256", "git SHA-1"]
"""Of checksums. The Hub keeps small files in git, which hashes their length before their bytes."""

_HUB = "https://huggingface.co"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0
_TRIES = 8
"""Attempts in a row that bring nothing new before a download is given up."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LINE_SECONDS = 5.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which another try makes sense."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file to fetch, and how to know that it is the right one."""

    name: str
    url: str
    size: int
    """Bytes."""
    algorithm: Algorithm
    checksum: str
    """Hexadecimal."""


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What there is to fetch, for the person to decide on."""

    title: str
    home: str
    licence: str
    known_from: str
    """Who vouches for the checksums."""
    files: tuple[RemoteFile, ...]


class _ConnectionLost(Exception):
    """What another try may mend."""


def fetch(name: Name, out: Path, *, yes: bool, mirror: str = "") -> None:
    """Downloads a data set into the folder ``out``. Files that are there and right are left alone.

    Args:
        name: which.
        out: folder; made if need be.
        yes: go ahead without asking.
        mirror: another server: for Lakh the folder that holds its file, else a Hub.

    Raises:
        UserError: refused, gated, not there, no room, not what was published, or the server gives up.
    """
    if name == "gigamidi":
        raise UserError(
            "GigaMIDI is gated, so only you can fetch it: accept its terms on "
            "https://huggingface.co/datasets/Metacreation/GigaMIDI (non-commercial research), then `hf auth login` and "
            f"`hf download Metacreation/GigaMIDI --repo-type dataset --local-dir {out}`"
        )
    if not yes and not sys.stdin.isatty():
        raise UserError(f"fetch asks before it downloads, and there is no terminal to ask at; add --yes to get {name}")
    data_set = published(name, mirror)
    missing = [file for file in data_set.files if not _is_there(file, out)]
    print(_offer(data_set, missing, out))
    if missing:
        _check_room(missing, out)
        if not yes and not _agreed():
            print("nothing was fetched")
            return
        out.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(missing, 1):
            with _Progress(f"{file.name} ({number} of {len(missing)})", file.size) as progress:
                download(file, out, progress.show)
            print(f"{out / file.name}: {file.size:,} bytes, {file.algorithm} as published")
    print(f"{out} is ready")


def _agreed() -> bool:
    try:
        return input("Fetch? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def published(name: Name, mirror: str = "") -> DataSet:
    """What a data set consists of; for those on the Hub, as the Hub lists it now."""
    if name == "lakh":
        folder = mirror or "http://hog.ee.columbia.edu/craffel/lmd"
        return DataSet(
            "Lakh MIDI Dataset v0.1, LMD-full",
            "https://colinraffel.com/projects/lmd/",
            "CC BY 4.0",
            "MusPy (muspy/datasets/lmd.py); the publisher gives none",
            (
                RemoteFile(
                    "lmd_full.tar.gz",
                    f"{folder.rstrip('/')}/lmd_full.tar.gz",
                    1_768_163_879,
                    "SHA-256",
                    "6fcfe2ac49ca08f3f214cec86ab138d4fc4dabcd7f27f491a838dae6db45a12b",
                ),
            ),
        )
    if name == "midicaps":
        wanted = r"midicaps\.tar\.gz|train\.json"
        return _on_the_hub("MidiCaps", "amaai-lab/MidiCaps", "CC BY-SA 4.0", wanted, 2, mirror)
    licence = "mixed, those of its sources (`cc` on its card)"
    return _on_the_hub("MusicPile", "m-a-p/MusicPile", licence, r"data/[^/]+\.parquet", 1, mirror)


def _on_the_hub(title: str, repository: str, licence: str, wanted: str, least: int, mirror: str) -> DataSet:
    """The files of a Hub data set whose paths match ``wanted``; at least so many are expected."""
    hub = (mirror or os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    api = f"{hub}/api/datasets/{repository}"
    try:
        # By its commit, so that listing and files belong together however long the download takes.
        commit = _json(f"{api}/revision/main")["sha"]
        entries = [entry for entry in _json(f"{api}/tree/{commit}?recursive=true") if entry["type"] == "file"]
        files = []
        for entry in sorted(entries, key=lambda entry: entry["path"]):
            path = PurePosixPath(entry["path"])
            if re.fullmatch(wanted, entry["path"]) and path.name:
                url = f"{hub}/datasets/{repository}/resolve/{commit}/{quote(entry['path'])}"
                lfs = entry.get("lfs")
                algorithm: Algorithm = "SHA-256" if lfs else "git SHA-1"
                checksum = str((lfs or entry)["oid"])
                files.append(RemoteFile(path.name, url, int(entry["size"]), algorithm, checksum))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{api}: the answer is not a Hub's list of files; check HF_ENDPOINT or --mirror") from error
    if len(files) < least:
        raise UserError(f"{api}: {len(files)} of the expected files are there; the data set was changed or moved")
    known_from = f"the Hub's list of files at commit {commit[:12]}"
    return DataSet(title, f"{hub}/datasets/{repository}", licence, known_from, tuple(files))


def download(
    file: RemoteFile, folder: Path, report: Callable[[int], None], wait: Callable[[float], None] = time.sleep
) -> Path:
    """Receives one file, going on from what is there already, and gives it its name when its checksum is right.

    Args:
        file: what and from where.
        folder: where to.
        report: told how many bytes are there, now and then.
        wait: lets so many seconds pass between attempts.

    Raises:
        UserError: not to be had, or not what was published (what came is then deleted).
    """
    partial, state = _partial(file, folder)
    failures = most = 0
    while (have := _resumable(file, partial, state)) < file.size:
        try:
            _receive(file, partial, state, have, report)
        except _ConnectionLost as lost:
            reached = partial.stat().st_size if partial.exists() else 0
            # A server that sends from the start each time must not keep us for ever: only new ground counts.
            failures = 1 if reached > most else failures + 1
            most = max(most, reached)
            if failures > _TRIES:
                raise UserError(
                    f"{file.url}: {lost}, {_TRIES} times in a row; {most:,} of {file.size:,} bytes are kept in "
                    f"{partial}: run the same command again later to go on from there"
                ) from lost
            wait(min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE))
    found = _checksum(partial, file.algorithm)
    if found != file.checksum:
        _discard(partial, state)
        raise UserError(
            f"{file.url}: what came has the {file.algorithm} {found}, the published file {file.checksum}; it was "
            "damaged on the way or replaced by its publisher, and has been deleted: run the same command again"
        )
    target = folder / file.name
    os.replace(partial, target)
    state.unlink(missing_ok=True)
    return target


def _receive(file: RemoteFile, partial: Path, state: Path, have: int, report: Callable[[int], None]) -> None:
    """One request: appends to the partial file where the server goes on, starts it anew where it does not."""
    headers = {}
    if have:
        validator = json.loads(state.read_text())["validator"]
        headers = {"Range": f"bytes={have}-", "If-Range": validator}
    with _open(file.url, headers) as response:
        if response.status == 206:
            where = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not have or not where or int(where[1]) != have or _validator(response.headers) != validator:
                _discard(partial, state)
                raise _ConnectionLost("the server went on with another file or from another place")
            total = where[2]
        else:
            _discard(partial, state)
            have = 0
            write_whole(state, json.dumps({"validator": _validator(response.headers), "checksum": file.checksum}))
            total = response.headers.get("Content-Length", "*")
        if total not in ("*", str(file.size)):
            _discard(partial, state)
            raise UserError(
                f"{file.url}: the server's file has {total} bytes, the published one {file.size:,}; it was replaced "
                "by its publisher or this is another page: look at it in a browser"
            )
        with partial.open("ab") as part:
            while have <= file.size:
                try:
                    chunk = response.read(_CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise _ConnectionLost(_words(error)) from error
                if not chunk:
                    break
                part.write(chunk)
                have += len(chunk)
                report(have)
    if have < file.size:
        raise _ConnectionLost("the connection was cut")
    if have > file.size:
        _discard(partial, state)
        raise UserError(f"{file.url}: more than the published {file.size:,} bytes came; they have been deleted")


def _resumable(file: RemoteFile, partial: Path, state: Path) -> int:
    """Bytes of the partial file that may be gone on from; 0 if it belongs to another version, or nobody can say."""
    try:
        known = json.loads(state.read_text())
        if known["checksum"] == file.checksum and (known["validator"] or partial.stat().st_size == file.size):
            return partial.stat().st_size
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return 0


def _validator(headers: Message) -> str:
    """What If-Range takes: an entity tag, unless it is a weak one, or the time of the last change (RFC 9110)."""
    tag = str(headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    agent = {"User-Agent": f"midillm_jax/{midillm_jax.__version__}"}
    try:
        request = urllib.request.Request(url, headers=agent | headers)
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _PASSING or error.code == 416:
            raise _ConnectionLost(f"the server answered {error.code} ({error.reason})") from error
        raise UserError(
            f"{url}: the server answered {error.code} ({error.reason}); the file was moved or is not public: look at "
            "its page in a browser, or name another server with --mirror"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionLost(_words(error)) from error
    except ValueError as error:
        raise UserError(f"{url}: {error}; an address begins with http:// or https://") from error


def _json(url: str) -> Any:
    """What a Hub answers; three attempts."""
    for attempt in range(3):
        try:
            with _open(url, {}) as response:
                return json.load(response)
        except (_ConnectionLost, OSError, http.client.HTTPException) as error:
            lost = error
            time.sleep(_FIRST_PAUSE * 2**attempt)
    raise UserError(f"{url}: {_words(lost)}; is there a connection to the network? Try again later") from lost


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


def _partial(file: RemoteFile, folder: Path) -> tuple[Path, Path]:
    return folder / f"{file.name}.partial", folder / f"{file.name}.partial.json"


def _discard(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _is_there(file: RemoteFile, folder: Path) -> bool:
    """Whether the file is complete. Raises UserError when something else has its name."""
    path = folder / file.name
    if not path.exists():
        return False
    if path.stat().st_size == file.size and _checksum(path, file.algorithm) == file.checksum:
        return True
    raise UserError(
        f"{path} is not the file that is published ({file.size:,} bytes); move it away or give another --out"
    )


def _checksum(path: Path, algorithm: Algorithm) -> str:
    with path.open("rb") as stream:
        if algorithm == "SHA-256":
            return hashlib.file_digest(stream, "sha256").hexdigest()
        blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
        while chunk := stream.read(_CHUNK_BYTES):
            blob.update(chunk)
        return blob.hexdigest()


def _offer(data_set: DataSet, missing: list[RemoteFile], out: Path) -> str:
    total = sum(file.size for file in data_set.files)
    some = ", ".join(file.name for file in data_set.files[:2]) + (", ..." if len(data_set.files) > 2 else "")
    lines = [
        f"{data_set.title}: {decimal(total)} in {len(data_set.files)} files ({some})",
        f"  from       {data_set.files[0].url}",
        f"  home       {data_set.home}",
        f"  licence    {data_set.licence}",
        f"  checksums  {data_set.files[0].algorithm}, from {data_set.known_from}",
        f"  to         {out} ({decimal(_free(out))} free)",
    ]
    if len(missing) < len(data_set.files):
        lines.append(f"  there      {len(data_set.files) - len(missing)} files, which are right and stay as they are")
    return "\n".join(lines)


def _free(out: Path) -> int:
    return shutil.disk_usage(next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())).free


def _check_room(missing: list[RemoteFile], out: Path) -> None:
    partials = (_partial(file, out)[0] for file in missing)
    needed = sum(file.size for file in missing) - sum(path.stat().st_size for path in partials if path.exists())
    if needed > _free(out):
        raise UserError(f"{out}: {decimal(needed)} are to come and {decimal(_free(out))} are free; give another --out")


class _Progress:
    """A live bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, title: str, size: int) -> None:
        self._title, self._size = title, size
        self._said = time.monotonic()
        console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.DownloadColumn(),
            rich.progress.TransferSpeedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=size)

    def show(self, have: int) -> None:
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.update(self._task, completed=have)
        elif now - self._said >= _LINE_SECONDS:
            self._said = now
            print(f"{self._title}: {decimal(have)} of {decimal(self._size)}", file=sys.stderr, flush=True)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
