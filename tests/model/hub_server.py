"""A stand-in for the Hugging Face Hub on this machine: as much of its API as huggingface_hub asks of it here.

What is uploaded can be fetched again. Large files arrive by the LFS protocol, which huggingface_hub speaks where
HF_HUB_DISABLE_XET=1 is set; Xet's own is not spoken here.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator

from tests import http_answers

COMMIT = "c" * 40
OWNER, TOKEN = "me", "hf_a_token_that_may_write"
"""Who may write here, and where."""


@dataclasses.dataclass
class Hub:
    """What it holds, and what it was asked."""

    models: dict[str, dict[str, bytes]]
    """OWNER/NAME -> file name -> content. Names that begin with ``gated/`` want their licence accepted."""
    endpoint: str = ""
    asked: list[str] = dataclasses.field(default_factory=list)
    """Paths of GET requests."""
    sent: list[str] = dataclasses.field(default_factory=list)
    """Method and path of the others."""
    private: set[str] = dataclasses.field(default_factory=set)
    """Those of the models that only their owner sees."""
    large: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """Content of large files by SHA-256, as it arrived."""


class _Handler(http_answers.Handler):
    hub: Hub

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
            self.send_json(
                {"_id": "1", "id": name, "sha": COMMIT, "siblings": names, "private": name in self.hub.private}
            )

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.sent.append(f"{self.command} {path}")
        if path.startswith("/large/"):
            self.receive_large(path.rpartition("/")[2], body)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(401, b'{"error": "Invalid credentials"}')
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = [
                {"path": file["path"], "uploadMode": self.mode(file), "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self.send_json({"files": files})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.send_json({"transfer": "basic", "objects": [self.place(each) for each in json.loads(body)["objects"]]})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self.commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.send(404, b"{}")

    do_PUT = do_POST

    def create(self, wanted: dict[str, str]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != OWNER:
            self.send(403, b'{"error": "You have no rights to create a model there"}')
        elif name in self.hub.models:
            answer = {"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"}
            self.send(409, json.dumps(answer).encode(), Content_Type="application/json")
        else:
            self.hub.models[name] = {}
            if wanted.get("visibility") == "private":
                self.hub.private.add(name)
            self.send_json({"url": f"{self.hub.endpoint}/{name}"})

    @staticmethod
    def mode(file: dict[str, str]) -> str:
        return "lfs" if file["path"].endswith(".safetensors") else "regular"

    def place(self, wanted: dict[str, object]) -> dict[str, object]:
        """Where to upload a large file, unless it is here."""
        href = f"{self.hub.endpoint}/large/{wanted['oid']}"
        return wanted if wanted["oid"] in self.hub.large else wanted | {"actions": {"upload": {"href": href}}}

    def receive_large(self, digest: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != digest:
            self.send(400, b"{}")
            return
        self.hub.large[digest] = content
        self.send(200, b"")

    def commit(self, name: str, lines: list[dict[str, dict[str, str]]]) -> None:
        files = self.hub.models[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.send_json({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})


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
