"""Web archives (WARC) → what servers answered, whoever wrote the archive.

Records are read one after another. Headers, pages and pictures have limits; what is longer is passed over without
being kept in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from nunbit.data.places import reading

_LINE_BYTES = 1 << 16
_HEADER_LINES = 1000
_PIECE = 1 << 20
_UNPACKED = {"": 0, "identity": 0, "gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's window bits


class DamagedArchive(Exception):
    """An archive cannot be read any further; the message says why."""


class UnusableContent(Exception):
    """What a server answered is too long, or cannot be unpacked.

    Args:
        reason: Short and stable, for counting.
        detail: What was found in this very answer.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Answer:
    """One answer of a server.

    Attributes:
        url: What was asked for.
        type: The media type, in lower case, such as ``"text/html"``.
        charset: As the server named it; empty when it did not.
        encodings: How the content is packed, in the order of unpacking.
        stream: Gives the rest of the record.
    """

    url: str
    type: str
    charset: str
    encodings: tuple[str, ...]
    stream: _Record

    def content(self, limit: int) -> bytes:
        """The unpacked content; to be asked for once, before the next record is read.

        Raises:
            UnusableContent: It is longer than ``limit``, or cannot be unpacked.
            DamagedArchive: The archive ends in it.
        """
        data = self.stream.read(limit + 1)
        if len(data) > limit:
            raise UnusableContent("too many bytes", f"more than {limit:,} bytes")
        for encoding in self.encodings:
            data = _unchunked(data) if encoding == "chunked" else _unpacked(data, encoding, limit)
        return data


def read_answers(path: str) -> Iterator[Answer]:
    """Every good answer (status 200, or a resource) in an archive.

    Args:
        path: A ``.warc`` or ``.warc.gz`` file.

    Raises:
        DamagedArchive: It is none, or cannot be read further.
    """
    try:
        with reading(path) as file:
            while (first := _first_line(file)) is not None:
                if not first.startswith("WARC/"):
                    raise DamagedArchive(f"expected a record, got {first[:40]!r}")
                headers = _headers(file)
                record = _Record(file, _length(headers.get("content-length", "")))
                if (answer := _answer(headers, record)) is not None:
                    yield answer
                record.skip()
    except (EOFError, zlib.error, OSError) as error:
        raise DamagedArchive(str(error)) from error


class _Record:
    """The content of one record: a part of the archive."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._left = length

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes of what is left."""
        data = self._file.read(min(size, self._left))
        self._took(data, size)
        return data

    def readline(self, size: int) -> bytes:
        """A line, or ``size`` bytes of it."""
        data = self._file.readline(min(size, self._left))
        self._took(data, size)
        return data

    def skip(self) -> None:
        """Read what is left."""
        while self._left:
            self.read(_PIECE)

    def _took(self, data: bytes, size: int) -> None:
        if not data and size and self._left:
            raise DamagedArchive("it ends in a record")
        self._left -= len(data)


def _answer(headers: dict[str, str], record: _Record) -> Answer | None:
    """The answer that a record holds, if it holds one. Reads the server's headers."""
    url = headers.get("warc-target-uri", "").strip("<>")
    encodings: tuple[str, ...] = ()
    if headers.get("warc-type") == "response" and headers.get("content-type", "").startswith("application/http"):
        status = _decoded(record.readline(_LINE_BYTES)).split(" ")
        headers = _headers(record)
        if len(status) < 2 or status[1] != "200":
            return None
        packed = headers.get("transfer-encoding", ""), *reversed(headers.get("content-encoding", "").split(","))
        encodings = tuple(name for one in packed if (name := one.strip().lower()))
    elif headers.get("warc-type") != "resource":
        return None
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.lower().partition("charset=")[2].partition(";")[0]
    return Answer(url, kind.strip().lower(), charset.strip(" \"'"), encodings, record)


def _first_line(file: BinaryIO) -> str | None:
    """The next line that is not empty, or None at the end."""
    while line := file.readline(_LINE_BYTES):
        if text := _decoded(line).strip():
            return text
    return None


def _headers(file: BinaryIO | _Record) -> dict[str, str]:
    """Names in lower case and values, up to the empty line."""
    headers: dict[str, str] = {}
    name = ""
    for _ in range(_HEADER_LINES):
        line = _decoded(file.readline(_LINE_BYTES))
        if not line.strip():
            return headers
        if line[0] in " \t" and name:
            headers[name] += " " + line.strip()
            continue
        name, _, value = (part.strip() for part in line.partition(":"))
        name = name.lower()
        headers[name] = value
    raise DamagedArchive(f"more than {_HEADER_LINES:,} lines of headers")


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DamagedArchive(f"the length of a record is {text[:40]!r}")
    return int(text)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _unchunked(data: bytes) -> bytes:
    """Content that came in pieces, each with its length in front. Some archives hold it put together already."""
    pieces, position = list[bytes](), 0
    while True:
        end = data.find(b"\r\n", position, position + 100)
        digits = data[position:end].partition(b";")[0].strip() if end >= 0 else b""
        try:
            size = int(digits, 16)
        except ValueError:
            return data if not pieces else b"".join(pieces)
        if size <= 0:
            return b"".join(pieces)
        pieces.append(data[end + 2 : end + 2 + size])
        position = end + 2 + size + 2


def _unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    bits = _UNPACKED.get(encoding)
    if bits is None:
        raise UnusableContent("cannot be unpacked", f"packed as {encoding[:40]!r}, which is not read here")
    if bits == 0 or (bits == 31 and not data.startswith(b"\x1f\x8b")):  # some archives hold it unpacked already
        return data
    for window in (bits, -15) if encoding == "deflate" else (bits,):
        unpacker = zlib.decompressobj(window)
        try:
            content = unpacker.decompress(data, limit + 1)
        except zlib.error as error:
            damage = error
            continue
        if len(content) > limit:
            raise UnusableContent("too many bytes", f"more than {limit:,} bytes when unpacked")
        return content
    raise UnusableContent("cannot be unpacked", f"said to be packed as {encoding}: {damage}")
