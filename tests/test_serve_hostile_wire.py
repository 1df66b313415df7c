"""Hostile bytes on the wire: heads, framing, slow and silent clients. The server answers, closes, and serves others."""

from __future__ import annotations

import asyncio
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hostile import CLOSE, HOST, Watched, assert_error, read_all, watched
from index_fakes import make_encoder
from nunbit.serve.gate import Gate, Traffic
from nunbit.serve.server import make_server
from nunbit.serve.settings import Limits, Settings
from serving import data_url, png

SEARCH = b"POST /v1/search HTTP/1.1\r\n" + HOST
FOREIGN = SEARCH + b"Origin: http://evil.example\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
TEXT = b'{"text": "a"}'
PATIENT = Limits(body_bytes=100_000, waiting_bytes=200_000, rate=0)
HASTY = Limits(header_seconds=1, seconds=2, rate=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("served"), PATIENT) as client:
        yield client


@pytest.fixture
def client(server: Watched) -> Iterator[Watched]:
    """The server, which must be well after each test."""
    yield server
    assert server("GET", "/healthz").json["status"] == "ok"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server which does not wait long."""
    with watched(tmp_path_factory.mktemp("hasty"), HASTY) as client:
        yield client


def sized(length: object, body: bytes = b"") -> bytes:
    return f"Content-Length: {length}\r\n\r\n".encode() + body


REQUESTS: dict[str, tuple[bytes, tuple[int, ...], str]] = {
    "a header of 40 KiB": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n", (400, 431), ""),
    "a header of 300 KiB": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 300_000 + b"\r\n\r\n",
        (400, 431),
        "",
    ),
    "very many headers": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 9000 + b"\r\n", (400, 431), ""),
    "a very long URL": (b"GET /healthz?" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", (400, 431), ""),
    "a very long path": (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", (400, 431), ""),
    "a very long method": (b"A" * 40_000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", (400, 431), ""),
    "a head of 30 KiB": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"X: " + b"a" * 30_000 + b"\r\n\r\n",
        (200,),
        "",
    ),
    "a length of 20 digits": (SEARCH + sized("9" * 20), (413,), "too_large"),
    "a length of 40 digits": (SEARCH + sized("9" * 40), (400,), "bad_http"),
    "a length beyond the limit": (SEARCH + sized(100_001), (413,), "too_large"),
    "a length that waits for leave": (SEARCH + b"Expect: 100-continue\r\n" + sized(100_001), (413,), "too_large"),
    "a length below zero": (SEARCH + sized(-1), (400,), "bad_http"),
    "a length with a sign": (SEARCH + sized("+13", TEXT), (400,), "bad_http"),
    "a length in hexadecimal": (SEARCH + sized("0xd", TEXT), (400,), "bad_http"),
    "a length with digits of another script": (SEARCH + sized("\u0661\u0663", TEXT), (400,), "bad_http"),
    "two lengths": (SEARCH + b"Content-Length: 13\r\n" + sized(0, TEXT), (400,), "bad_http"),
    "two lengths in one": (SEARCH + sized("13, 0", TEXT), (400,), "bad_http"),
    "the same length twice": (SEARCH + CLOSE + b"Content-Length: 13\r\n" + sized(13, TEXT), (200,), ""),
    "chunks and a length": (SEARCH + CHUNKED + sized(4, b"d\r\n" + TEXT + b"\r\n0\r\n\r\n"), (400,), "bad_framing"),
    "a length and chunks": (
        SEARCH + b"Content-Length: 4\r\n" + CHUNKED + b"\r\nd\r\n" + TEXT + b"\r\n0\r\n\r\n",
        (400,),
        "bad_framing",
    ),
    "chunked twice": (SEARCH + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", (400,), "bad_http"),
    "another coding": (SEARCH + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", (400,), "bad_http"),
    "a coding with a tab": (SEARCH + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", (400,), "bad_http"),
    "a coding before its colon": (SEARCH + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", (400,), "bad_http"),
    "chunks": (SEARCH + CLOSE + CHUNKED + b"\r\nd;a=b\r\n" + TEXT + b"\r\n0\r\nX: a\r\n\r\n", (200,), ""),
    "chunks beyond the limit": (
        SEARCH + CHUNKED + b"\r\n" + (b"2710\r\n" + b"a" * 10_000 + b"\r\n") * 11,
        (413,),
        "too_large",
    ),
    "a chunk without end": (SEARCH + CHUNKED + b"\r\n" + b"f" * 30 + b"\r\n", (400,), "bad_http"),
    "a chunk of nonsense": (SEARCH + CHUNKED + b"\r\nzz\r\nhello\r\n0\r\n\r\n", (400,), "bad_http"),
    "a chunk below zero": (SEARCH + CHUNKED + b"\r\n-1\r\n", (400,), "bad_http"),
    "a chunk that is longer than it says": (SEARCH + CHUNKED + b"\r\n1\r\nabc\r\n0\r\n\r\n", (400,), "bad_http"),
    "nonsense after an early answer": (FOREIGN + CHUNKED + b"\r\n1\r\na\r\nzz\r\n", (400, 403), ""),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", (400,), "bad_http"),
    "two hosts": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n\r\n", (400,), "bad_http"),
    "no host, as long ago": (b"GET /healthz HTTP/1.0\r\n\r\n", (421,), "unknown_host"),
    "a header without colon": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", (400,), "bad_http"),
    "a zero byte": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", (400,), "bad_http"),
    "a return within a header": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\rY: b\r\n\r\n", (400,), "bad_http"),
    "a URL in another script": ("GET /\ud55c\uae00 HTTP/1.1\r\n".encode() + HOST + b"\r\n", (400,), "bad_http"),
    "another version": (b"GET /healthz HTTP/9.9\r\n" + HOST + CLOSE + b"\r\n", (200,), ""),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n", (400,), "bad_http"),
    "lines only": (b"\r\n" * 9000 + b"x\r\n\r\n", (400,), "bad_http"),
    "another server's URL": (
        b"GET http://evil.example/v1/items HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
        (404,),
        "no_such_path",
    ),
    "a tunnel": (b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (404,), "no_such_path"),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (404,), "no_such_path"),
    "an echo": (b"TRACE /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (405,), "bad_method"),
    "a method of its own": (b"BREW /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (405,), "bad_method"),
    "a method in small letters": (b"get /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (405,), "bad_method"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_each_odd_request_is_answered_and_its_connection_closed(client: Watched, name: str) -> None:
    data, statuses, code = REQUESTS[name]
    answer = client.raw(data)
    assert answer.status in statuses
    assert not code or answer.json["error"]["code"] == code


def test_what_follows_a_request_of_two_lengths_is_no_request(client: Watched) -> None:
    hidden = b"DELETE /v1/labels/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
    assert client("PUT", "/v1/labels/smuggled", {"labels": ["a"]}).status == 200
    body = b"0\r\n\r\n" + hidden
    for head in (CHUNKED + sized(len(body)), b"Content-Length: 0\r\n" + CHUNKED + b"\r\n"):
        with client.connect() as opened:
            opened.sendall(SEARCH + head + body)
            assert read_all(opened).count(b"HTTP/1.1 ") == 1
    assert client("GET", "/v1/labels/smuggled").status == 200


def dribble(opened: socket.socket, pieces: bytes) -> bytes:
    """Send a byte every twentieth of a second until the server closes the connection; what it said."""
    said, end = b"", time.monotonic() + 15
    for byte in pieces * 1000 or bytes(1000):
        assert time.monotonic() < end, "the server waits for ever"
        try:
            if select.select([opened], [], [], 0.05)[0]:
                part = opened.recv(65536)
                if not part:
                    return said
                said += part
            elif pieces:
                opened.sendall(bytes([byte]))
        except ConnectionError:
            return said
    return said


READY = b"GET /readyz HTTP/1.1\r\n" + HOST
SLOW: dict[str, tuple[bytes, bytes, bytes]] = {
    "says nothing": (b"", b"", b'"bad_http"'),
    "a line that never ends": (b"", b"a", b'"bad_http"'),
    "a head that never ends": (READY, b"X: a\r\n", b'"bad_http"'),
    "a head that stops": (READY, b"", b'"bad_http"'),
    "a second head that never ends": (READY + b"\r\n", b"a", b'"bad_http"'),
    "no body": (SEARCH + sized(1000), b"", b'"too_slow"'),
    "a slow body": (SEARCH + sized(1000), b"a", b'"too_slow"'),
    "no chunk": (SEARCH + CHUNKED + b"\r\n", b"", b'"too_slow"'),
    "slow chunks": (SEARCH + CHUNKED + b"\r\n", b"1\r\na\r\n", b'"too_slow"'),
    "a body that goes on after its refusal": (FOREIGN + CHUNKED + b"\r\n", b"1\r\na\r\n", b'"foreign_origin"'),
}


def test_slow_clients_are_told_and_cut_off_while_others_are_answered(hasty: Watched) -> None:
    said: dict[str, bytes] = {}

    def be_slow(name: str) -> None:
        begun, pieces, _ = SLOW[name]
        with hasty.connect() as opened:
            opened.sendall(begun)
            said[name] = dribble(opened, pieces)

    threads = [threading.Thread(target=be_slow, args=(name,), daemon=True) for name in SLOW]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert hasty("POST", "/v1/search", {"text": "a"}).status == 200
        time.sleep(0.05)
    for name, (_, _, told) in SLOW.items():
        assert told in said[name], name
    assert said["no body"].startswith(b"HTTP/1.1 408 ")
    assert said["says nothing"].startswith(b"HTTP/1.1 400 ")


def test_nothing_is_left_of_them(hasty: Watched) -> None:
    assert hasty("GET", "/healthz").json["status"] == "ok"
    lines = hasty("GET", "/metrics").content.decode().splitlines()
    assert {"nunbit_open_requests 1.0", "nunbit_held_bytes 0.0", "nunbit_waiting 0.0"} <= set(lines)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_more_connections_than_allowed_are_told_so_and_many_more_are_not_heard(tmp_path: Path) -> None:
    with watched(tmp_path, Limits(connections=4, rate=0)) as client, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(client.connect())
        early = stack.enter_context(client.connect())
        refused = client("GET", "/readyz")
        assert_error(refused, 503, "too_many_connections")
        assert refused.headers["retry-after"] == "1"
        early.sendall(b"GET /readyz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert early.recv(65536).startswith(b"HTTP/1.1 200 ")
        for _ in range(4):
            stack.enter_context(client.connect())
        with client.connect() as opened:
            assert read_all(opened) == b""  # closed at once: no time passes here
        stack.close()
        until(lambda: client("GET", "/healthz").status == 200)


def test_who_never_takes_the_answers_is_cut_off(tmp_path: Path) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"
    with watched(tmp_path, Limits(connections=4, seconds=2, rate=0)) as client, ExitStack() as stack:
        for _ in range(4):
            opened = stack.enter_context(client.connect(receive_buffer=4096))
            opened.sendall(ask * 400)  # far more answers than the system buffers
        assert_error(client("GET", "/readyz"), 503, "too_many_connections")
        until(lambda: client("GET", "/healthz").status == 200)


def test_announced_bodies_keep_nobody_out_but_received_ones_do(client: Watched) -> None:
    def held() -> bool:
        return b"nunbit_held_bytes 199980.0" in client("GET", "/metrics").content

    with ExitStack() as stack:
        opened = [stack.enter_context(client.connect()) for _ in range(6)]
        for one in opened:
            one.sendall(SEARCH + sized(100_000))
        assert client("POST", "/v1/search", {"text": "a"}).status == 200
        for one in opened[:2]:
            one.sendall(b" " * 99_990)
        until(held)
        assert_error(client("POST", "/v1/search", {"text": "a" * 100}), 429, "too_busy")
    until(lambda: client("POST", "/v1/search", {"text": "a"}).status == 200)


def test_clients_that_leave_in_the_middle_leave_nothing(client: Watched) -> None:
    upload = b'{"items": [{"image": "' + data_url(png(1)).encode() + b'"}]}'
    head = b"POST /v1/items HTTP/1.1\r\n" + HOST + sized(len(upload))
    for length in range(0, len(head) + len(upload), 97):
        with client.connect() as opened:
            opened.sendall((head + upload)[:length])
    until(lambda: b"nunbit_held_bytes 0.0" in client("GET", "/metrics").content)
    assert b"nunbit_waiting 0.0" in client("GET", "/metrics").content


def test_connections_never_take_all_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        make_server(Settings(tmp_path / "x.nunbit"), make_encoder())
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(hard, 2 * Limits().connections + 500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_failure_after_an_answer_is_logged(tmp_path: Path) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        raise RuntimeError("out of luck")

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        pass

    messages = [{"type": "http.request", "body": b""}]
    lines: list[str] = []
    gate = Gate(fails, Settings(tmp_path), Traffic(), lambda *answer: None, lines.append)
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}
    asyncio.run(gate({**scope, "headers": [(b"host", b"localhost")]}, receive, send))
    assert ["out of luck" in line for line in lines] == [True, False]
