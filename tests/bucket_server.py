"""A stand-in for Google Cloud Storage on this machine: gcp-storage-emulator, with one bucket in memory."""

import contextlib
import dataclasses
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Where it answers."""

    endpoint: str
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """What leads gcsfs and TensorStore there, who otherwise ask Google."""
        return {
            "STORAGE_EMULATOR_HOST": self.endpoint,
            # gcsfs asks by gRPC what kind of bucket it is, which the emulator does not speak; it waits a minute for it.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "TENSORSTORE_GCS_HTTP_URL": self.endpoint,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
        }

    def upload(self, name: str, content: bytes) -> None:
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        url = f"{self.endpoint}/upload/storage/v1/b/{self.name}/o?{query}"
        urllib.request.urlopen(urllib.request.Request(url, content, {"Content-Type": "application/gzip"})).close()

    def upload_folder(self, folder: Path, name: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.upload(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@contextlib.contextmanager
def running(name: str) -> Iterator[Bucket]:
    """The stand-in, as long as the block lasts."""
    from gcp_storage_emulator.server import create_server

    # An own port: the server does not tell which one it was given.
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=name)
    server.start()
    try:
        yield Bucket(f"http://127.0.0.1:{port}", name)
    finally:
        server.stop()
