"""Many connections that ask one server for searches and send it pictures, for some seconds; says how long each took.

Usage: python benchmarks/load_client.py PORT WORK.json CONNECTIONS SECONDS

Every connection sends the next request of the mix as soon as its last one is answered. An answer counts when its status
is right, and a text search when its first three similarities are those that ``WORK.json`` names. Prints one line of
JSON. A process of its own, so that it does not share the server's interpreter.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOLERANCE = 2e-3
BOUNDARY = "nunbit-load"
MIX = ("text", "text", "text", "add", "text", "text", "text", "look")
"""Six searches by words, a picture to add, and a search by picture."""
STATUS = {"text": 200, "look": 200, "add": 201}


@dataclass
class Load:
    """What is asked, and what came of it."""

    texts: list[str]
    pictures: list[bytes]
    expected: dict[str, list[float]]
    port: int
    until: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: Counter[str] = field(default_factory=Counter)

    async def connection(self, number: int) -> None:
        """Ask until the time is over."""
        chance = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        turn = number
        while time.perf_counter() < self.until:
            kind, turn = MIX[turn % len(MIX)], turn + 1
            text = chance.choice(self.texts)
            request = text_request(text) if kind == "text" else picture_request(kind, chance.choice(self.pictures))
            start = time.perf_counter()
            writer.write(request)
            try:
                status, content = await answer(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures[f"{kind}: {error!r}"[:80]] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                continue
            took = time.perf_counter() - start
            if status != STATUS[kind]:
                self.failures[f"{kind}: status {status}"] += 1
            elif kind == "text" and text in self.expected and not agrees(content, self.expected[text]):
                self.failures["text: other pictures were found"] += 1
            else:
                self.seconds[kind].append(took)
        writer.close()

    async def run(self, connections: int, seconds: float) -> None:
        """Ask over so many connections."""
        self.until = time.perf_counter() + seconds
        await asyncio.gather(*(self.connection(number) for number in range(connections)))

    async def best_of_all(self) -> dict[str, list[float]]:
        """Text → the similarities of its first pictures, asked one after another."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        found = {}
        for text in self.texts:
            writer.write(text_request(text))
            found[text] = similarities((await answer(reader))[1])
        writer.close()
        return found


def text_request(text: str) -> bytes:
    """A search by words."""
    return _request("/v1/search", "application/json", json.dumps({"text": text}).encode())


def picture_request(kind: str, picture: bytes) -> bytes:
    """A picture to be added, or to be looked for."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'.encode()
    body = head + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    path = "/v1/items" if kind == "add" else "/v1/search"
    return _request(path, f"multipart/form-data; boundary={BOUNDARY}", body)


def _request(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One answer with a Content-Length: status and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    return int(head.split(" ", 2)[1]), await reader.readexactly(length)


def similarities(content: bytes) -> list[float]:
    """Of the first three."""
    return [match["similarity"] for match in json.loads(content)["data"][:3]]


def agrees(content: bytes, expected: list[float]) -> bool:
    """Whether a search has found what it should."""
    return all(abs(a - b) <= TOLERANCE for a, b in zip(similarities(content), expected, strict=True))


def main() -> None:
    """Ask; without seconds, only say what is right."""
    port, work, connections, seconds = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    said: dict[str, Any] = json.loads(work.read_text(encoding="utf-8"))
    pictures = [Path(path).read_bytes() for path in said["pictures"]]
    load = Load(said["texts"], pictures, said.get("expected", {}), port)
    if seconds <= 0:
        print(json.dumps(asyncio.run(load.best_of_all())))
        return
    start = time.perf_counter()
    asyncio.run(load.run(connections, seconds))
    print(json.dumps({"wall": time.perf_counter() - start, "seconds": load.seconds, "failures": load.failures}))


if __name__ == "__main__":
    main()
