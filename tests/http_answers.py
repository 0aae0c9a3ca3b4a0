"""What the stand-ins for web services on this machine share."""

import http.server
import json


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers whole bodies and says nothing on stderr."""

    protocol_version = "HTTP/1.1"

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
