"""A stand-in for the Hugging Face Hub on this machine: as much of its API as huggingface_hub asks of it here."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator

COMMIT = "c" * 40


@dataclasses.dataclass
class Hub:
    """What it holds, and what it was asked."""

    models: dict[str, dict[str, bytes]]
    """OWNER/NAME -> file name -> content. Names that begin with ``gated/`` want their licence accepted."""
    endpoint: str = ""
    asked: list[str] = dataclasses.field(default_factory=list)
    """Paths of GET requests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, answer: object) -> None:
        self.send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        if self.command == "GET":
            self.hub.asked.append(path)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?|/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        name = (found[1] or found[3]) if found else ""
        files = self.hub.models.get(name)
        if name.startswith("gated/"):
            self.send(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")
        elif found is None or files is None:
            self.send(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif found[4]:
            data = files[found[4]]
            self.send(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)
        elif (found[2] or "").startswith("/tree/"):
            self.send_json(
                [
                    {"type": "file", "path": each, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for each, data in files.items()
                ]
            )
        else:
            names = [{"rfilename": each, "size": len(data)} for each, data in files.items()]
            self.send_json({"_id": "1", "id": name, "sha": COMMIT, "siblings": names})

    do_HEAD = do_GET


@contextlib.contextmanager
def running(models: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """The stand-in, answering at ``endpoint`` as long as the block lasts."""
    hub = Hub(models)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub
        server.shutdown()
