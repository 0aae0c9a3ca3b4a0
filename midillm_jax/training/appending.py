"""A file that only grows, on a disk that may be full."""

from pathlib import Path


class Appending:
    """Appends whole pieces to a file: a piece that could not be written is kept, and written with the next one.

    A failed attempt leaves nothing half-written behind, once a later one succeeds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = path.stat().st_size if path.exists() else 0
        self._pending = b""

    def write(self, piece: bytes) -> OSError | None:
        """Appends what is pending and ``piece``, or says why it could not."""
        self._pending += piece
        try:
            with self.path.open("ab") as file:
                if file.tell() != self._whole:
                    file.truncate(self._whole)
                file.write(self._pending)
        except OSError as error:
            return error
        self._whole += len(self._pending)
        self._pending = b""
        return None
