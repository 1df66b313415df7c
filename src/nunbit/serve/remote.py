"""Pictures from URLs, for a server that was started to fetch them.

A stranger names the address, and the server may reach what the stranger cannot (server-side request forgery). So: only
http and https on their own ports, only public addresses, a connection to the very address that was checked and not to
what the name means a moment later, the same again for each redirect, and one message for all that fails beyond the
URL itself, which tells nothing of the network around the server. No proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from urllib.parse import SplitResult, urljoin, urlsplit

from nunbit.serve.problems import Problem

FETCHES = 8
"""At a time."""

_SECONDS = 10.0
_REDIRECTS = 3
_PART = 1 << 16
_PORTS = {"http": 80, "https": 443}
_HEADERS = {"User-Agent": "nunbit", "Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}


class Fetcher:
    """Fetches pictures, a few at a time.

    Args:
        max_bytes: Of one picture.
        connect: Address and port → a connected socket, for tests.
    """

    def __init__(self, max_bytes: int, connect: Callable[[str, int, float], socket.socket] | None = None) -> None:
        self._max_bytes = max_bytes
        self._connect = connect or _connect
        self._threads = ThreadPoolExecutor(FETCHES, thread_name_prefix="nunbit-fetch")

    async def get(self, url: str, param: str) -> bytes:
        """The bytes behind a URL.

        Args:
            url: As the client gave it.
            param: The part of the request that it came in.

        Raises:
            Problem: 400, the URL cannot be meant, or nothing came from there; 413, more came than is allowed.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(self._get, url, param))

    def close(self) -> None:
        """Begin nothing new."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _get(self, url: str, param: str) -> bytes:
        until = time.monotonic() + _SECONDS
        for _ in range(_REDIRECTS + 1):
            target = _checked(url, param)
            try:
                answer = self._ask(target, until)
                if isinstance(answer, bytes):
                    return answer
            except (OSError, ValueError, http.client.HTTPException):
                break
            url = urljoin(url, answer)
        hint = "it must be public, answer within 10 seconds, and not redirect more than three times"
        raise Problem(400, "not_fetched", "no picture could be fetched from the URL", hint, param)

    def _ask(self, target: SplitResult, until: float) -> bytes | str:
        """One request: a body, or where it is instead.

        Raises:
            OSError, ValueError, http.client.HTTPException: Nothing that can be used came.
            Problem: 413.
        """
        assert target.hostname
        port = _PORTS[target.scheme]
        connection = http.client.HTTPConnection(target.hostname, port)
        used = self._connect(_public_address(target.hostname, port), port, _left(until))
        if target.scheme == "https":
            context = ssl.create_default_context()
            used = context.wrap_socket(used, server_hostname=target.hostname, do_handshake_on_connect=False)
        # The limits of sockets and of http.client are between bytes: one byte a second would keep them for ever.
        alarm = threading.Timer(_left(until), _cut, [used])
        alarm.start()
        try:
            if isinstance(used, ssl.SSLSocket):
                used.do_handshake()
            connection.sock = used
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            connection.request("GET", path, headers=_HEADERS)
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308):
                return answer.headers.get("Location", "")
            if answer.status != 200 or answer.headers.get("Content-Encoding", "identity") != "identity":
                raise ValueError("no picture")
            return self._read(answer)
        finally:
            alarm.cancel()
            connection.close()
            used.close()

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            part = answer.read1(_PART)
            if not part:
                if answer.length:
                    raise ValueError("the end is missing")
                return b"".join(parts)
            size += len(part)
            if size > self._max_bytes:
                raise Problem(413, "too_large", f"the picture behind the URL is larger than {self._max_bytes:,} bytes")
            parts.append(part)


def is_url(text: str) -> bool:
    """Whether a text is meant as a URL that could be fetched."""
    return text[:8].lower().startswith(("http://", "https://"))


def _checked(url: str, param: str) -> SplitResult:
    try:
        target = urlsplit(url)
        fine = target.scheme in _PORTS and target.hostname and target.port in (None, _PORTS[target.scheme])
        fine = fine and url.isascii() and url.isprintable() and " " not in url and target.username is None
    except ValueError:
        fine = False
    if not fine:
        hint = "an http or https URL without port and user, percent-encoded"
        raise Problem(400, "bad_url", "the URL cannot be fetched", hint, param)
    return target


def _public_address(host: str, port: int) -> str:
    """Where a name leads, if that is nowhere but in public.

    Raises:
        OSError: It is not, or leads nowhere.
    """
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not found or not all(map(is_public, found)):
        raise OSError("no public address")
    return sorted(found, key=lambda address: (":" in address, address))[0]


def is_public(address: str) -> bool:
    """Tell whether anybody can reach an address. One that wraps another (IPv4 in IPv6) is judged by both."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.sixtofour and not is_public(str(parsed.sixtofour)):
            return False
        if parsed not in _ANYWHERE or parsed.teredo:
            return False
    return parsed.is_global and not parsed.is_multicast


_ANYWHERE = ipaddress.IPv6Network("2000::/3")  # beyond: this machine, this network, IPv4 in disguise


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _cut(used: socket.socket) -> None:
    """End what another thread reads; below TLS, whose state that thread is using."""
    with suppress(OSError):
        socket.socket.shutdown(used, socket.SHUT_RDWR)


def _connect(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), seconds)
