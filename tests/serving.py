"""What the tests of the server share: a server in a thread or a process, on a real socket; a client; pictures."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from index_fakes import FakeTowers, make_encoder
from nunbit.chat import Talker
from nunbit.serve.server import make_server
from nunbit.serve.settings import Settings


@dataclass
class Answer:
    status: int
    headers: Any
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Client:
    address: str

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named.setdefault("content-type", "application/json")
        request = urllib.request.Request(self.address + path, data, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())


@contextmanager
def serving(settings: Settings, towers: FakeTowers | None = None, talker: Talker | None = None) -> Iterator[Client]:
    server = make_server(settings, make_encoder(towers=towers), log=lambda line: None, talker=talker)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield Client(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


SERVER = """
import sys, time
from pathlib import Path
from index_fakes import FakeTowers, make_encoder
from nunbit.serve.server import make_server
from nunbit.serve.settings import Settings
towers = FakeTowers()
server = make_server(Settings(Path(sys.argv[1]), port=0), make_encoder(towers=towers), log=lambda line: None)
serve = server.startup
async def startup(sockets=None):
    await serve(sockets)
    towers.before_batch = lambda: time.sleep(float(sys.argv[2]))
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
server.startup = startup
server.run()
"""


@contextmanager
def server_process(index: Path, batch_seconds: float = 0.0) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """A server in a process of its own, which can be killed; every batch of pictures takes so long."""
    command = [sys.executable, "-c", SERVER, str(index), str(batch_seconds)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process, Client(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def metric(client: Client, name: str) -> float:
    lines = client("GET", "/metrics").content.decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def multipart(content: bytes) -> tuple[bytes, str]:
    """A body with one file, and its content type."""
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    return head + content + b"\r\n--cut--\r\n", "multipart/form-data; boundary=cut"


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
