"""A tiny OpenAI-compatible server on this machine, which answers as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeEndpoint:
    """What the server is to do, and what it was asked."""

    url: str = ""
    pieces: tuple[str, ...] = ("A ", "고양", "이.")
    models: tuple[str, ...] = ("seer",)
    status: int = 200
    error: Any = None
    streams: bool = True
    raw: bytes | None = None
    silence: float = 0.0
    refuses: str = ""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    told: FakeEndpoint
    released: threading.Event


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        told = self.server.told
        told.asked.append((self.path, dict(self.headers), None))
        self._send(200, "application/json", json.dumps({"data": [{"id": name} for name in told.models]}).encode())

    def do_POST(self) -> None:
        told = self.server.told
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told.asked.append((self.path, dict(self.headers), body))
        if told.silence:
            self.server.released.wait(told.silence)
        if told.refuses and told.refuses in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            self._send(400, "application/json", json.dumps({"error": {"message": message}}).encode())
        elif told.status != 200:
            content = told.raw if told.raw is not None else json.dumps(told.error).encode()
            self._send(told.status, "application/json", content)
        elif told.raw is not None:
            self._send(200, "text/event-stream", told.raw)
        elif told.streams and body["stream"]:
            self._send(200, "text/event-stream", _events(told.pieces))
        else:
            message = {"choices": [{"message": {"role": "assistant", "content": "".join(told.pieces)}}]}
            self._send(200, "application/json", json.dumps(message).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if 300 <= status < 400:
            self.send_header("Location", self.server.told.url + "/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _events(pieces: tuple[str, ...]) -> bytes:
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, *({"content": piece} for piece in pieces)]
    events = [{"choices": [{"delta": delta}]} for delta in deltas] + [{"choices": [], "usage": {}}]
    return "".join(
        [": hello\n\n", *(f"data: {json.dumps(event)}\n\n" for event in events), "data: [DONE]\n\n"]
    ).encode()


@contextmanager
def serve(**settings: Any) -> Iterator[FakeEndpoint]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.told, server.released = FakeEndpoint(**settings), threading.Event()
    server.told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.told
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
