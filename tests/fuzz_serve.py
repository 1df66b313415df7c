"""Send a server ten thousand mutated pictures and bodies, and what its schema allows and forbids: ``make test-fuzz``.

A server in a process of its own must give no answer of 500 or above, keep the shape of its errors, keep its memory,
and afterwards answer what it is asked as it did before, byte for byte. The mutations are made from a seed.

Usage: python tests/fuzz_serve.py [--count N] [--seed N] [--examples N]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from bad_pictures import encoded, photo
from hostile import watched
from nunbit.caches import VARIABLE
from nunbit.engine.names import VARIABLE as ENGINE_VARIABLE
from nunbit.serve.settings import Limits
from openapi_cases import check_operations
from serving import Client, data_url, png

ID = "0" * 32
THREADS = 4
SETTLED = 1000  # requests after which memory is looked at first
GROWTH = 1.3
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
TOKENS = (
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"[]",
    b"{}",
    b'""',
    b'"\\u0000"',
    b'"\\ud800"',
    b"[[[[",
    b"true",
    b"9" * 400,
)
ERROR = {"message", "type", "param", "code", "hint"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    path: str
    kind: str
    body: bytes


def main() -> int:
    """Fuzz; 1 when something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=100, help="of each operation and kind, from the schema")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({VARIABLE: f"{folder}/cache", ENGINE_VARIABLE: "torch"})
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(Path(folder), theirs))
        process.start()
        address, secret = ours.recv()
        run = Run(Client(address), secret, process.pid or 0, random.Random(given.seed))
        wrong = run.wrong
        try:
            run.mutated(given.count)
            run.from_schema(given.examples)
            ours.send("stop")
        except OSError as error:
            wrong.append(f"the server is gone: {error}")
        process.join(60)
        if process.exitcode != 0:
            last = Path(folder, "log").read_text(errors="replace")[-3000:]
            wrong.append(f"the server's process ended with {process.exitcode}:\n{last}")
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


def serve(folder: Path, channel: Connection) -> None:
    """The server's process: it ends with an error when the server logged one."""
    with (folder / "log").open("wb") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())  # decoders have much to say about such pictures
    served = folder / "served"
    (served / "album" / "holidays").mkdir(parents=True)
    with watched(served, Limits(rate=0, pixels=2_000_000, body_bytes=1 << 20)) as client:
        channel.send((client.address, str(served)))
        channel.recv()


@dataclass
class Run:
    """Requests to one server, and what was found."""

    client: Client
    secret: str
    server: int
    random: random.Random
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def mutated(self, count: int) -> None:
        """Send mutated requests, and compare before and after."""
        questions = self._questions()
        before, started, memory = self._answers(questions), time.monotonic(), 0
        requests = [make_request(self.random) for _ in range(count)]
        for start in range(0, count, SETTLED):
            self._send_all(requests[start : start + SETTLED])
            now = resident_bytes(self.server)
            memory = memory or now
            print(f"{start + SETTLED:7,} sent, {time.monotonic() - started:4.0f} s, {now >> 20} MiB", flush=True)
        if now > GROWTH * memory:
            self.wrong.append(f"memory grew from {memory >> 20} to {now >> 20} MiB")
        for (name, status), times in sorted(self.statuses.items()):
            print(f"{name:28} {status} {times:6,}")
        health = self.client("GET", "/healthz")
        if health.status != 200 or health.json["status"] != "ok":
            self.wrong.append(f"afterwards it is ill: {health.content!r}")
        after = self._answers(questions)
        self.wrong += [f"afterwards another answer to {name}" for name in before if before[name] != after[name]]

    def from_schema(self, examples: int) -> None:
        """Send what the schema allows and forbids."""
        started = time.monotonic()
        try:
            tried = check_operations(self.client, examples)
        except (AssertionError, BaseExceptionGroup) as error:
            self.wrong.append("".join(traceback.format_exception_only(error)))
            return
        for operation, counts in tried.items():
            print(f"{operation:36} {dict(sorted(counts.items()))}")
        print(
            f"{sum(counts.total() for counts in tried.values()):,} from the schema, {time.monotonic() - started:.0f} s"
        )

    def _questions(self) -> dict[str, tuple[str, str, Any]]:
        """What no request of this run may change the answers to: about pictures with a mark that no other one has."""
        mark = {"attributes.kept": True}
        items = [{"image": data_url(png(seed)), "name": f"{seed}", "attributes": {"kept": True}} for seed in range(5)]
        ids = [item["id"] for item in self.client("POST", "/v1/items", {"items": items}).json["data"]]
        return {
            "a text": ("POST", "/v1/search", {"text": "a dog", "filter": mark}),
            "a picture": ("POST", "/v1/search", {"image": data_url(encoded(photo(), "JPEG")), "filter": mark}),
            "an item": ("POST", "/v1/search", {"item": ids[0], "filter": mark}),
            "embeddings": ("POST", "/v1/embeddings", {"input": ["a", "a cat", {"image": data_url(png(9))}]}),
            "labels": ("POST", "/v1/recognize", {"items": ids, "labels": ["cat", "a dog", "말"]}),
            "bins": ("POST", "/v1/recognize/items", {"labels": ["cat", "a dog"], "filter": mark}),
            "a map": ("GET", "/v1/map?filter=%7B%22attributes.kept%22:true%7D", None),
            **{f"thumbnail {id_}": ("GET", f"/v1/items/{id_}/thumbnail", None) for id_ in ids},
        }

    def _answers(self, questions: dict[str, tuple[str, str, Any]]) -> dict[str, bytes]:
        answers = {name: self.client(*question) for name, question in questions.items()}
        assert {answer.status for answer in answers.values()} == {200}
        return {name: answer.content for name, answer in answers.items()}

    def _send_all(self, requests: list[Request]) -> None:
        threads = [threading.Thread(target=self._send, args=(requests[n::THREADS],)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self, requests: list[Request]) -> None:
        host = self.client.address.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=90)
        for request in requests:
            try:
                connection.request(request.method, request.path, request.body, {"Content-Type": request.kind})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{request.method} {request.path}: {error!r}, {request.body[:200]!r}")
                connection.close()
                continue
            self.statuses[f"{request.method} {request.path.replace(ID, '{id}')}", answer.status] += 1
            if problem := what_is_wrong(answer.status, content, self.secret):
                self.wrong.append(
                    f"{request.method} {request.path}: {problem}, {content[:200]!r}, {request.body[:200]!r}"
                )


def what_is_wrong(status: int, content: bytes, secret: str) -> str:
    """Why an answer may not be; empty when it may."""
    if status >= 500:
        return f"status {status}"
    if secret.encode() in content:
        return "a path of the server"
    if status >= 400 and set(json.loads(content)["error"]) != ERROR:
        return "not in the shape of an error"
    return ""


def resident_bytes(process: int) -> int:
    """What a process holds of the memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def samples() -> dict[str, bytes]:
    """A valid picture of each kind, with what such files have beside pixels."""
    image, exif = photo(), Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2024:05:01 12:30:00"
    frames = [photo(16, 16), photo(16, 16).rotate(90)]
    return {
        "jpeg": encoded(image, "JPEG", exif=exif),
        "progressive": encoded(image, "JPEG", progressive=True, icc_profile=bytes(500)),
        "cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "png": encoded(image, "PNG", exif=exif),
        "palette": encoded(image.quantize(16), "PNG", transparency=bytes(16)),
        "apng": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "webp": encoded(image, "WEBP", exif=exif),
        "lossless": encoded(image, "WEBP", lossless=True),
        "animated": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "tiff": encoded(image, "TIFF", exif=exif),
        **{name: encoded(image, "TIFF", compression=f"tiff_{name}") for name in ("lzw", "adobe_deflate", "jpeg")},
        "packbits": encoded(image, "TIFF", compression="packbits"),
        "avif": encoded(image, "AVIF", exif=exif),
        "bmp": encoded(image, "BMP"),
        "ppm": encoded(image, "PPM"),
    }


SAMPLES = samples()
BODIES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/embeddings", {"input": ["a dog", {"image": "PICTURE", "region": [0.1, 0, 0.5, 1]}], "model": "fake"}),
    ("POST", "/v1/search", {"query": [{"text": "a", "weight": -0.5}, {"image": "PICTURE"}], "limit": 3, "offset": 0}),
    ("POST", "/v1/search", {"text": "a", "filter": {"width": {"gte": 10}, "attributes.sku": {"in": ["a", 1]}}}),
    ("POST", "/v1/search", {"text": "a", "filter": {"taken": {"lt": "2024-05-01"}, "modified": {"gt": "2020-01-01"}}}),
    ("POST", "/v1/recognize", {"images": ["PICTURE"], "labels": ["cat", "말"], "top_k": 2, "templates": "korean"}),
    ("POST", "/v1/recognize/items", {"labels": ["cat", "dog"], "min_probability": 0.5, "bin": -1, "limit": 3}),
    ("POST", "/v1/items", {"items": [{"image": "PICTURE", "name": "mug", "attributes": {"sku": "A", "n": 1.5}}]}),
    ("PUT", f"/v1/items/{ID}", {"image": "PICTURE", "name": "mug"}),
    ("PATCH", f"/v1/items/{ID}", {"name": "cup", "attributes": {"sku": "B", "n": 10}}),
    ("POST", "/v1/labels", {"name": "kinds", "labels": ["cat", "dog"], "templates": "none"}),
    ("PUT", "/v1/labels/kinds", {"labels": ["cat", "말"]}),
    ("POST", "/v1/indexing", {"paths": ["holidays", "."]}),
]
UPLOADS = [("POST", "/v1/embeddings"), ("POST", "/v1/search"), ("POST", "/v1/items"), ("PUT", f"/v1/items/{ID}")]


def make_request(rng: random.Random) -> Request:
    """A picture that is mutated and sent in a right body, or a right body that is mutated."""
    picture = rng.choice(list(SAMPLES.values()))
    whole = rng.random() < 0.5
    if not whole:
        picture = mutate(picture, rng)
    if rng.random() < 0.5:
        method, path = rng.choice(UPLOADS)
        body, kind = form(picture, rng), "multipart/form-data; boundary=bound"
    else:
        method, path, value = rng.choice(BODIES)
        url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        body, kind = json.dumps(value).replace("PICTURE", url).encode(), "application/json"
    if whole:
        body = mutate(body, rng)
        kind = rng.choice([kind] * 8 + ["application/json", "multipart/form-data; boundary=bound"])
    return Request(method, path, kind, body)


def form(picture: bytes, rng: random.Random) -> bytes:
    """A multipart body with a file and, at times, fields."""
    lines = [b"--bound", b'Content-Disposition: form-data; name="file"; filename="a.png"', b"", picture]
    if rng.random() < 0.3:
        lines += [b"--bound", b'Content-Disposition: form-data; name="attributes"', b"", b'{"sku": "A"}']
    return b"\r\n".join([*lines, b"--bound--", b""])


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One mutation, at times more."""
    for _ in range(rng.choice([1, 1, 1, 1, 2, 5])):
        data = rng.choice(MUTATIONS)(data, rng)
    return data


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bits changed."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 5, 20]) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(data: bytes, rng: random.Random) -> bytes:
    """The end cut off."""
    return data[: rng.randint(0, len(data))]


def spliced(data: bytes, rng: random.Random) -> bytes:
    """A part of another kind of file within."""
    other = rng.choice(list(SAMPLES.values()))
    place, start = rng.randint(0, len(data)), rng.randrange(len(other))
    return data[:place] + other[start : start + rng.randint(1, 2000)] + data[place:]


def duplicated(data: bytes, rng: random.Random) -> bytes:
    """A part several times."""
    start = rng.randint(0, len(data))
    part = data[start : start + rng.randint(1, 500)]
    return data[:start] + part * rng.randint(2, 50) + data[start + len(part) :]


def removed(data: bytes, rng: random.Random) -> bytes:
    """A part taken out."""
    start = rng.randint(0, len(data))
    return data[:start] + data[start + rng.randint(1, 100) :]


def miscounted(data: bytes, rng: random.Random) -> bytes:
    """What may be a length or an offset, mostly near the beginning, with another value."""
    place = rng.randint(0, min(len(data), rng.choice([64, 1000, len(data)])))
    order, size = rng.choice("<>"), rng.choice("BHI")
    number = struct.pack(order + size, rng.choice(NUMBERS) & (256 ** struct.calcsize(size) - 1))
    return data[:place] + number + data[place + len(number) :]


def replaced(data: bytes, rng: random.Random) -> bytes:
    """What may be a value of JSON, by another one."""
    places = [number for number, byte in enumerate(data[:2000]) if byte in b':,[{"']
    if not places:
        return data
    start = rng.choice(places) + 1
    return data[:start] + rng.choice(TOKENS) + data[start + rng.randint(0, 12) :]


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    flipped,
    truncated,
    spliced,
    duplicated,
    removed,
    miscounted,
    replaced,
]

if __name__ == "__main__":
    sys.exit(main())
