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


@contextmanager
def serve(**settings: Any) -> Iterator[FakeEndpoint]:
    told = FakeEndpoint(**settings)
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            told.asked.append((self.path, dict(self.headers), None))
            self._send(200, "application/json", json.dumps({"data": [{"id": name} for name in told.models]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append((self.path, dict(self.headers), body))
            if told.silence:
                released.wait(told.silence)
            if told.refuses and told.refuses in body:
                message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
                self._send(400, "application/json", json.dumps({"error": {"message": message}}).encode())
            elif told.status != 200:
                content = told.raw if told.raw is not None else json.dumps(told.error).encode()
                self._send(told.status, "application/json", content)
            elif told.raw is not None:
                self._send(200, "text/event-stream", told.raw)
            elif told.streams and body["stream"]:
                self._send(200, "text/event-stream", self._events())
            else:
                message = {"choices": [{"message": {"role": "assistant", "content": "".join(told.pieces)}}]}
                self._send(200, "application/json", json.dumps(message).encode())

        def _events(self) -> bytes:
            deltas: list[dict[str, Any]] = [{"role": "assistant"}, *({"content": piece} for piece in told.pieces)]
            events = [{"choices": [{"delta": delta}]} for delta in deltas] + [{"choices": [], "usage": {}}]
            lines = [f"data: {json.dumps(event)}\n\n" for event in events]
            return "".join([": hello\n\n", *lines, "data: [DONE]\n\n"]).encode()

        def _send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if 300 <= status < 400:
                self.send_header("Location", told.url + "/elsewhere")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield told
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()
