"""What the tests of hostile requests share: a watched server, bare sockets, and pictures that are made to hurt."""

from __future__ import annotations

import io
import logging
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import parse_headers
from pathlib import Path
from typing import Any

from PIL import Image

from bad_pictures import encoded, png_chunk
from fake_talker import FakeTalker
from index_fakes import make_encoder, picture
from nunbit.index import Index
from nunbit.serve.settings import Limits, Settings
from serving import Answer, Client, serving

HOST = b"Host: 127.0.0.1\r\n"
CLOSE = b"Connection: close\r\n"
_ERROR = {"message", "type", "param", "code", "hint"}


@dataclass
class Watched(Client):
    """A client that looks at every answer: no path of the server, no traceback, errors in OpenAI's shape."""

    secrets: tuple[str, ...] = ()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return self.check(super().__call__(method, path, body, **headers))

    def check(self, answer: Answer) -> Answer:
        shown = f"{answer.headers}{answer.content.decode('latin-1')}"
        for secret in (*self.secrets, "Traceback", "site-packages", "Internal Server Error"):
            assert secret not in shown
        if answer.status >= 400:
            assert answer.headers["content-type"] == "application/json"
            assert set(answer.json["error"]) == _ERROR
            assert len(answer.content) < 10_000
        return answer

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """A socket to the server; what it waits for must come within ten seconds."""
        host, port = self.address.removeprefix("http://").split(":")
        opened = socket.socket()
        if receive_buffer:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.settimeout(10)
        opened.connect((host, int(port)))
        return opened

    def raw(self, data: bytes) -> Answer:
        """Send bytes as they are, and read until the server closes the connection."""
        with self.connect() as opened:
            opened.sendall(data)
            return self.answer(opened)

    def answer(self, opened: socket.socket) -> Answer:
        """The first answer on a connection which the server closes."""
        stream = io.BytesIO(read_all(opened))
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", stream.readline())
        assert status is not None
        headers = parse_headers(stream)
        return self.check(Answer(int(status[1]), headers, stream.read(int(headers["content-length"]))))


def read_all(opened: socket.socket) -> bytes:
    """What arrives until the server closes the connection; it may do so while something is on its way to it."""
    parts = []
    try:
        while part := opened.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def assert_error(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


@contextmanager
def watched(folder: Path, limits: Limits, **settings: Any) -> Iterator[Watched]:
    """Serve five pictures; nothing that is asked may make the server log an error, or leave it ill."""
    for number in range(5):
        picture(folder / "album" / f"{number}.png", number, (40 + number, 30))
    with Index.open(folder / "x.nunbit", make_encoder()) as index:
        index.add([folder / "album"])
    given = Settings(folder / "x.nunbit", root=folder / "album", port=0, limits=limits, **settings)
    with serving(given, talker=FakeTalker(allowed=1 << 30)) as client, _no_errors_logged():
        yield Watched(client.address, (str(folder), str(folder.resolve())))


@contextmanager
def _no_errors_logged() -> Iterator[None]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("asyncio", "uvicorn.error", "nunbit")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
        assert [record.getMessage() for record in records] == []
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextmanager
def little_memory() -> Iterator[None]:
    """What is done within may take at most 300 MB of the memory of this process, in which the server runs."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    except OSError:  # a system without
        yield
        return
    before = _memory("VmRSS")
    yield
    assert _memory("VmHWM") - before < 300_000


def _memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def zeros_packed(megabytes: int) -> bytes:
    """Zeros as zlib packs them, a thousandth in size; made in no time, as all blocks are alike."""
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block + again * (megabytes // 16 - 1)


def png_of_packed(width: int, height: int, packed: bytes, extra: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def tiff_of_packed(width: int, height: int, packed: bytes) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 273: 122, 277: 1, 278: height, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


def webp_canvas(width: int, height: int) -> bytes:
    """One frame of 8 x 8 on a canvas of any size."""
    sides = [struct.pack("<I", side)[:3] for side in (width - 1, height - 1, 7, 7)]
    frame = encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True)[12:]
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sides[0] + sides[1]
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(6) + sides[2] + sides[3] + bytes(4) + frame
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def gif_frame(canvas: int, frame: int) -> bytes:
    """A GIF whose one frame has another size than its canvas."""
    screen = b"GIF89a" + struct.pack("<HH", canvas, canvas) + b"\x80\0\0" + bytes(6)
    return screen + b"," + struct.pack("<HHHH", 0, 0, frame, frame) + b"\0\x02\x02\x4c\x01\0;"


def jpeg_of_many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: a few bytes for each pass over all pixels."""
    data = encoded(Image.new("RGB", (900, 900), (1, 2, 3)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def animation(format: str, frames: int) -> bytes:
    pictures = [Image.new("RGB", (8, 8), (number % 256, number // 256, 9)) for number in range(frames)]
    return encoded(pictures[0], format, save_all=True, append_images=pictures[1:])
