""".tar (plain or compressed) and .zip archives, streamed: nothing is unpacked to disk."""

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from midillm_jax.data.sources import storage
from midillm_jax.data.sources.captions import CaptionTable
from midillm_jax.data.sources.record import Record, excluded
from midillm_jax.errors import UserError

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
MAX_MEMBER_BYTES = 256 * 2**20
"""A larger member is not read: no MIDI file is as long, and a damaged archive can say anything."""


@dataclasses.dataclass(frozen=True)
class ArchivePart:
    """Members of an archive that end in one of ``suffixes``, in the archive's order."""

    location: str
    source: str
    suffixes: tuple[str, ...]
    exclude: tuple[str, ...]
    captions: CaptionTable | None = None

    @property
    def size_bytes(self) -> int:
        return storage.state(self.location)[0]

    def __iter__(self) -> Iterator[Record]:
        members = self._zip if self.location.lower().endswith(".zip") else self._tar
        with storage.open_binary(self.location) as file:
            for name, amount, content, problem in members(file):
                if not name.lower().endswith(self.suffixes) or excluded(name, self.exclude):
                    continue
                record = Record(self.source, name, amount=amount, problem=problem, content=content)
                yield record if self.captions is None else self.captions.attach(record)

    def version(self) -> str:
        return ":".join([str(storage.state(self.location)), "" if self.captions is None else self.captions.version()])

    def content(self) -> str:
        captions = "" if self.captions is None else self.captions.content()
        return hashlib.sha256((storage.content_stamp(self.location) + captions).encode()).hexdigest()

    def _tar(self, file: BinaryIO) -> Iterator[tuple[str, int, bytes | None, str]]:
        counted = _Counted(file)
        before = 0
        start = b""
        try:
            # "|": from beginning to end without seeking, holding one member at a time.
            stream = _decompressed(counted)
            start = stream.peek(16)[:16]
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if member.isfile():
                        name = posixpath.normpath(member.name)
                        content, problem = b"", ""
                        if member.size > MAX_MEMBER_BYTES:
                            problem = f"is said to have {member.size:,} bytes, which no MIDI file has"
                        elif name.lower().endswith(self.suffixes):
                            content = cast(io.BufferedReader, archive.extractfile(member)).read()
                        yield name, counted.position - before, content, problem
                        before = counted.position
                    archive.members = []  # type: ignore[attr-defined]  # else every header read so far stays in memory
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            if not before and isinstance(error, tarfile.ReadError):
                raise UserError(
                    f"{self.location}: no tar archive, or one cut short in its first file (it begins with {start!r}); "
                    "fetch it again, from where it is published"
                ) from error
            raise UserError(
                f"{self.location}: the archive is damaged or cut short near byte {counted.position:,} ({error}); fetch "
                "it again"
            ) from error

    def _zip(self, file: BinaryIO) -> Iterator[tuple[str, int, bytes | None, str]]:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise UserError(f"{self.location}: no zip archive, or one cut short ({error}); fetch it again") from error
        with archive:
            for member in archive.infolist():
                content, problem = b"", ""
                if member.is_dir():
                    continue
                if member.flag_bits & 1:
                    problem = "is encrypted in its archive"
                elif member.file_size > MAX_MEMBER_BYTES:
                    problem = f"is said to have {member.file_size:,} bytes, which no MIDI file has"
                elif member.filename.lower().endswith(self.suffixes):
                    try:
                        content = archive.read(member)
                    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
                        problem = f"cannot be unpacked from its archive: {error}"
                yield posixpath.normpath(member.filename), member.compress_size, content, problem


class _Counted(io.RawIOBase):
    """A file that knows how much of it was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def _decompressed(raw: _Counted) -> io.BufferedReader:
    """What a tar file holds, whatever it was compressed with: told by its first bytes, not by its name."""
    file = io.BufferedReader(raw, 1 << 18)
    start = file.peek(6)[:6]
    opened: Any = file
    if start.startswith(b"\x1f\x8b"):
        opened = gzip.GzipFile(fileobj=file)
    elif start.startswith(b"BZh"):
        opened = bz2.BZ2File(file)
    elif start.startswith(b"\xfd7zXZ"):
        opened = lzma.LZMAFile(file)  # noqa: SIM115 (closed with the file that it reads)
    return file if opened is file else io.BufferedReader(opened, 1 << 18)
