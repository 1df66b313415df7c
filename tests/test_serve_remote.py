"""Fetching what strangers name: from public places only, and whatever they try."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from index_fakes import make_encoder
from nunbit.index import Index
from nunbit.serve import remote
from nunbit.serve.problems import Problem
from nunbit.serve.remote import Fetcher, is_public
from nunbit.serve.settings import Settings
from serving import png, serving

PUBLIC = "93.184.215.14"
PICTURE = b"a picture" * 1000
FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + PICTURE
PRIVATE = """
    10.0.0.1 172.16.3.4 192.168.1.1 169.254.169.254 100.64.0.1 0.1.2.3 224.0.0.1 255.255.255.255
    fe80::1%eth0 fec0::1 fc00::1 ff02::1 :: 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:7f00:1:: 2001:0:7f00:1::1
    ::10.0.0.1 ::ffff:10.0.0.1 ::ffff:0:10.0.0.1
"""


@contextmanager
def site(*answers: bytes, seconds_a_byte: float = 0.0) -> Iterator[tuple[Callable[..., socket.socket], list[Any]]]:
    """A server, what connects to it in place of any address, and what it was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[Any] = []

    def answer() -> None:
        for content in answers:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test was over before this thread had its turn
                return
            with connection:
                asked.append(connection.recv(65536))
                try:
                    step = 1 if seconds_a_byte else max(1, len(content))
                    for start in range(0, len(content), step):
                        connection.sendall(content[start : start + step])
                        time.sleep(seconds_a_byte)
                except OSError:
                    return

    threading.Thread(target=answer, daemon=True).start()

    def connect(address: str, port: int, seconds: float) -> socket.socket:
        asked.append((address, port))
        return socket.create_connection(listener.getsockname(), seconds)

    try:
        yield connect, asked
    finally:
        listener.close()


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], None]:
    def put(names: dict[str, list[str]]) -> None:
        real = socket.getaddrinfo

        def find(host: str, port: int, *given: Any, **named: Any) -> Any:
            if host in names:
                return [(0, 0, 0, "", (address, port)) for address in names[host]]
            return real(host, port, *given, **named)

        monkeypatch.setattr(remote.socket, "getaddrinfo", find)

    return put


def get(url: str, connect: Callable[..., socket.socket], most: int = 1 << 20) -> bytes:
    async def fetch() -> bytes:
        fetcher = Fetcher(most, connect)
        try:
            return await fetcher.get(url, "image")
        finally:
            fetcher.close()

    return asyncio.run(fetch())


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    ],
)
def test_answers_of_all_framings(head: bytes, resolves: Callable[..., None]) -> None:
    resolves({"pictures.example": [PUBLIC]})
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(PICTURE), PICTURE) if b"chunked" in head else PICTURE
    with site(head + body) as (connect, _):
        assert get("http://pictures.example/", connect) == PICTURE


def refused(url: str, connect: Callable[..., socket.socket], most: int = 1 << 20) -> str:
    with pytest.raises(Problem) as caught:
        get(url, connect, most)
    return caught.value.code


def test_a_picture_comes_from_the_address_that_was_checked(resolves: Callable[..., None]) -> None:
    resolves({"pictures.example": [PUBLIC]})
    with site(FOUND) as (connect, asked):
        assert get("http://pictures.example/a.jpg?size=1", connect) == PICTURE
    assert asked[0] == (PUBLIC, 80)
    assert asked[1].startswith(b"GET /a.jpg?size=1 HTTP/1.1\r\nHost: pictures.example\r\n")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://pictures.example/a.jpg",
        "file:///etc/passwd",
        "gopher://pictures.example/",
        "http://pictures.example:22/",
        "http://user:word@pictures.example/",
        "http://pictures.example/a b",
        "http://pictures.example/\r\nX: y",
        "http://",
        "http://[::1/",
        "//pictures.example/a.jpg",
    ],
)
def test_urls_that_cannot_be_meant(url: str, resolves: Callable[..., None]) -> None:
    resolves({"pictures.example": [PUBLIC]})
    with site(FOUND) as (connect, asked):
        assert refused(url, connect) == "bad_url"
    assert asked == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_this_machine_in_all_its_spellings(host: str) -> None:
    with site(FOUND) as (connect, asked):
        assert refused(f"http://{host}/", connect) == "not_fetched"
    assert asked == []


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address: str, resolves: Callable[..., None]) -> None:
    assert not is_public(address)
    resolves({"inside.example": [PUBLIC, address]})
    with site(FOUND) as (connect, asked):
        assert refused("http://inside.example/", connect) == "not_fetched"
    assert asked == []


def test_public_addresses() -> None:
    assert is_public(PUBLIC)
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def test_redirects_are_checked_like_the_first_url(resolves: Callable[..., None]) -> None:
    resolves({"pictures.example": [PUBLIC], "inside.example": ["10.0.0.1"]})
    moved = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
    with site(moved % b"/b.jpg", FOUND) as (connect, asked):
        assert get("http://pictures.example/a.jpg", connect) == PICTURE
        assert asked[-1].startswith(b"GET /b.jpg ")
    for where, code in ((b"http://inside.example/", "not_fetched"), (b"file:///etc/passwd", "bad_url")):
        with site(moved % where) as (connect, asked):
            assert refused("http://pictures.example/a.jpg", connect) == code
            assert len(asked) == 2
    with site(*[moved % b"/a.jpg"] * 5) as (connect, asked):
        assert refused("http://pictures.example/a.jpg", connect) == "not_fetched"


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")  # the one that cuts connections
def test_what_comes_has_a_bound_in_bytes_and_in_time(
    resolves: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves({"pictures.example": [PUBLIC]})
    with site(FOUND) as (connect, _):
        assert refused("http://pictures.example/", connect, most=8999) == "too_large"
    monkeypatch.setattr(remote, "_SECONDS", 0.5)
    greeting = b"\x16\x03\x03\x40\x00" + bytes(200)  # of a TLS server that takes its time
    for answer in (greeting, b"HTTP/1.1 100 Continue\r\n\r\n" * 9, FOUND[:45] + FOUND[45:]):
        started = time.monotonic()
        with site(answer, seconds_a_byte=0.05) as (connect, _):
            scheme = "https" if answer is greeting else "http"
            assert refused(f"{scheme}://pictures.example/", connect) == "not_fetched"
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
        FOUND[:-1],
        FOUND.replace(b"200", b"206"),
        FOUND.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1),
    ],
)
def test_answers_without_a_picture(answer: bytes, resolves: Callable[..., None]) -> None:
    resolves({"pictures.example": [PUBLIC]})
    with site(answer) as (connect, _):
        assert refused("http://pictures.example/", connect) == "not_fetched"


def test_a_server_fetches_only_when_it_was_told_to(tmp_path: Path, resolves: Callable[..., None]) -> None:
    resolves({"pictures.example": [PUBLIC], "inside.example": ["10.0.0.1"]})
    with Index.open(tmp_path / "x.nunbit", make_encoder()):
        pass
    content = png(1)
    found = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    url, inside = "http://pictures.example/1.png", "HTTP://inside.example/"
    with site(*[found] * 4) as (connect, asked), pytest.MonkeyPatch.context() as patched:
        patched.setattr(remote, "_connect", connect)
        with serving(Settings(tmp_path / "x.nunbit", port=0)) as client:
            assert client("POST", "/v1/search", {"image": url}).json["error"]["code"] == "remote_url"
        assert asked == []
        with serving(Settings(tmp_path / "x.nunbit", port=0, fetch=True)) as client:
            added = client("POST", "/v1/items", {"items": [{"image": url}, {"image": inside}]}).json
            assert [row["reason"] for row in added["rejected"]] == ["not fetched"]
            assert client("POST", "/v1/search", {"image": url}).json["data"][0]["id"] == added["data"][0]["id"]
            part = {"type": "image_url", "image_url": {"url": url}}
            assert client("POST", "/v1/embeddings", {"input": [part]}).status == 200
            named = client("POST", "/v1/recognize", {"images": [url], "labels": ["cat", "dog"]})
            assert named.status == 200
            assert client("POST", "/v1/search", {"image": inside}).json["error"]["code"] == "not_fetched"
            assert client("POST", "/v1/search", {"image": "file:///etc/passwd"}).json["error"]["code"] == "remote_url"
