"""The outermost layer: no request costs memory or time that was not allowed to it.

A body is read here, whole, before anything else looks at the request: within its limit, its time, and what all requests
together may hold, which counts as it arrives: a client that announces much and sends nothing keeps nobody out. While
the answer is made, the connection is watched, and when the client leaves the work is canceled. Every request gets an
id, a line in the log without anything of its content, and headers that keep browsers careful.

Plain ASGI, for it must see a request before a framework buffers it.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit

from nunbit.serve.problems import Problem, busy, problem_of, stopping
from nunbit.serve.settings import Settings, is_loopback

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEADER_BYTES = 32 * 1024
"""What the head of a request may come to."""

SURPLUS = "surplus"
"""In the state of a request: its connection came when there were as many as may be."""

_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_SAFE = ("GET", "HEAD", "OPTIONS")
_CAREFUL = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
}
_PROBES = ("/healthz", "/readyz")


@dataclass(slots=True)
class Traffic:
    """What is passing."""

    open: int = 0
    connections: int = 0
    held_bytes: int = 0
    stopping: bool = False


class _Left(Exception):
    """The client has left."""


class Gate:
    """Wraps an application.

    Args:
        app: What answers.
        settings: Limits, host names, origins.
        traffic: What is passing, and whether the server is stopping.
        answered: Told method, route, status and seconds of every answer.
        log: Takes one line of JSON a request; stderr by default.
    """

    def __init__(
        self,
        app: AsgiApp,
        settings: Settings,
        traffic: Traffic,
        answered: Callable[[str, str, int, float], None],
        log: Callable[[str], object] | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._limits = settings.limits
        self._traffic = traffic
        self._answered = answered
        self._log = log or _to_stderr

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        started = time.monotonic()
        self._traffic.open += 1
        try:
            await self._pass(scope, headers, receive, answer)
        finally:
            self._traffic.open -= 1
            self._note(scope, answer, time.monotonic() - started)

    async def _pass(
        self, scope: MutableMapping[str, Any], headers: dict[str, str], receive: Receive, answer: _Answer
    ) -> None:
        parts: list[bytes] = []
        try:
            self._admit(scope, headers)
            await self._receive_body(receive, self._expected(headers), parts)
            await self._answer(scope, b"".join(parts), receive, answer)
        except _Left:
            pass  # nobody reads an answer
        except Problem as problem:
            await answer.problem(problem)
        except TimeoutError:
            await answer.problem(Problem(504, "too_slow", f"no answer within {self._limits.seconds:g} seconds"))
        except Exception as error:
            self._log(json.dumps({"request_id": answer.request_id, "error": repr(error)[:500]}))
            await answer.problem(problem_of(error))
        finally:
            self._traffic.held_bytes -= sum(map(len, parts))

    def _admit(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
        if scope["state"].get(SURPLUS):
            later = {"Retry-After": "1", "Connection": "close"}
            raise Problem(503, "too_many_connections", "too many connections are open", headers=later)
        lines = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        first = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])
        if first + lines > HEADER_BYTES:  # the parser limits only what does not arrive at once
            close = {"Connection": "close"}
            raise Problem(431, "head_too_large", f"path and headers have more than {HEADER_BYTES} bytes", headers=close)
        if self._traffic.stopping and scope["path"] not in _PROBES:
            raise stopping()
        host = _split(f"//{headers.get('host', '')}").hostname or ""
        named = self._settings.hosts or is_loopback(self._settings.host)
        if named and not (is_loopback(host) or host in (self._settings.host, *self._settings.hosts)):
            # A page of another name that resolves to this machine is not one of ours (DNS rebinding).
            raise Problem(421, "unknown_host", "the server is not called that", "start it with --allow NAME")
        origin = headers.get("origin")
        foreign = origin and origin not in self._settings.origins and _split(origin).netloc != headers.get("host")
        if foreign and scope["method"] not in _SAFE:
            raise Problem(403, "foreign_origin", "a page of another site may not change anything here")

    def _expected(self, headers: dict[str, str]) -> int:
        """Bytes that the body of a request may come to; refused before any of them is received."""
        if "content-length" in headers and "transfer-encoding" in headers:
            # Whoever passed this on may have read the other one, and may see a second request in what is left.
            close = {"Connection": "close"}
            raise Problem(400, "bad_framing", "both Content-Length and Transfer-Encoding are given", headers=close)
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            expected = int(length[:20])
        else:
            expected = self._limits.body_bytes if "transfer-encoding" in headers else 0
        if expected > self._limits.body_bytes:
            raise _too_large(self._limits.body_bytes)
        if expected and self._traffic.held_bytes + expected > self._limits.waiting_bytes:
            raise busy("too many requests are being received")
        return expected

    async def _receive_body(self, receive: Receive, most: int, parts: list[bytes]) -> None:
        size = 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Left
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    self._traffic.held_bytes += len(part)
                    if size > most:
                        raise _too_large(self._limits.body_bytes)
                    if self._traffic.held_bytes > self._limits.waiting_bytes:
                        raise busy("too many requests are being received")
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            slow = {"Connection": "close"}
            message_ = f"the body did not arrive within {self._limits.seconds:g} seconds"
            raise Problem(408, "too_slow", message_, headers=slow) from None

    async def _answer(self, scope: MutableMapping[str, Any], body: bytes, receive: Receive, answer: _Answer) -> None:
        gone = asyncio.Event()
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        work = asyncio.ensure_future(self._app(scope, replay, answer))
        watcher = asyncio.ensure_future(watch())
        try:
            async with asyncio.timeout(self._limits.seconds) as limit:
                answer.on_piece = lambda: self._renew(limit)
                await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done() and not answer.complete:
                    raise _Left
                await work
        finally:
            watcher.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    def _renew(self, limit: asyncio.Timeout) -> None:
        """A part of an answer was sent: the next one has as long."""
        if not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time() + self._limits.seconds)

    def _note(self, scope: MutableMapping[str, Any], answer: _Answer, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "(none)"
        status = answer.status or 499
        self._answered(scope["method"], route, status, seconds)
        caller = scope["state"].get("caller")
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": answer.request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "caller": caller.name if caller else None,
        }
        self._log(json.dumps(line))


class _Answer:
    """Sends on, with the headers that every answer has, and remembers what was sent."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0
        self.complete = False
        self.on_piece: Callable[[], None] = lambda: None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            there = {name.lower() for name, _ in message["headers"]}
            more = {**_CAREFUL, "x-request-id": self.request_id}
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in more.items() if name.encode() not in there),
            ]
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
            if not self.complete:
                self.on_piece()
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        if self.status:
            return
        content = problem.content()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        await self({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self({"type": "http.response.body", "body": content})


def _split(url: str) -> SplitResult:
    """The parts of a URL; empty ones of what is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _too_large(most: int) -> Problem:
    hint = "send fewer or smaller pictures, or start the server with a higher limit"
    return Problem(413, "too_large", f"the body is larger than {most:,} bytes", hint, headers={"Connection": "close"})
