"""The process: listens, and stops without dropping what it accepted."""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nunbit.errors import UsageError
from nunbit.serve.app import create_app
from nunbit.serve.gate import HEADER_BYTES, SURPLUS, Traffic
from nunbit.serve.keys import KeyFile
from nunbit.serve.problems import Problem
from nunbit.serve.service import Service
from nunbit.serve.settings import Limits, Settings, is_loopback

if TYPE_CHECKING:
    from nunbit.chat import Talker
    from nunbit.encode import Encoder

_IDLE_SECONDS = 15
_STOP_SECONDS = 30
_BACKLOG = 1024
_FILES = 512  # open at a time, beside connections: of the index, of uploads


class Server(uvicorn.Server):
    """Uvicorn's server, which tells the service first that it is going to stop."""

    service: Service

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Refuse new requests from the moment of the signal on; those inside are finished."""
        self.service.traffic.stopping = True
        super().handle_exit(sig, frame)


def make_server(
    settings: Settings,
    encoder: Encoder,
    log: Callable[[str], object] | None = None,
    *,
    talker: Talker | None = None,
) -> Server:
    """A server that is not running yet.

    Args:
        settings: As given.
        encoder: The index's.
        log: As `create_app` takes it.
        talker: Answers questions, where that is wanted.

    Raises:
        UsageError: It would listen where others can reach it, and there is no key.
        StoreError: The index, or the file of keys, cannot be used.
    """
    keys = KeyFile(settings.keys_file)
    if not is_loopback(settings.host) and not keys.entries():
        raise UsageError(
            f"{settings.host} can be reached from other machines, and there is no API key",
            hint=f"nunbit keys add NAME --in {settings.index}",
        )
    service = Service(settings, encoder, talker)
    config = uvicorn.Config(
        create_app(service, log),
        host=settings.host,
        port=settings.port,
        http=_protocol(settings.limits, service.traffic),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    server = Server(config)
    server.service = service
    return server


def _allow_files(connections: int) -> int:
    """Have the system allow this process files for twice as many connections; for how many it really does.

    Where connections have taken all files, none is left to read the index, and each try to accept one more is an error.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _FILES
    if resource.RLIM_INFINITY != soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return 2 * connections if soft == resource.RLIM_INFINITY else max(min(2 * connections, soft - _FILES), 1)


class _TimedProtocol(H11Protocol):
    """HTTP/1.1 with limits on how long a client may take, and on how many there are.

    Uvicorn waits for ever for a client that sends a byte a minute (slow loris). Here a connection is closed when the
    head of its first request is not complete in time; the next ones come under the limit for idle connections, which
    starts anew with the first byte of a head. The connection of a client that does not take its answer is closed, too.

    Attributes:
        limits: Of the server.
        traffic: Where connections are counted.
        most: Connections beyond which one more is closed at once, unheard.
    """

    limits: Limits
    traffic: Traffic
    most: int
    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.traffic.connections += 1
        if self.traffic.connections > self.limits.connections:
            self.app_state = {**self.app_state, SURPLUS: True}  # it is told so when it asks; others are served
        if self.traffic.connections > self.most:
            transport.abort()
        transport.set_write_buffer_limits(high=0)  # pause_writing tells of each answer that is not taken at once
        self._await_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        if self._head_timer is None and (before is None or before.response_complete):
            self._await_head()
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_timer = self.loop.call_later(self.limits.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.traffic.connections -= 1
        self._stop_waiting()
        self._stop_writing()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, in the shape that all errors have, and possible while another answer is being made."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = Problem(400, "bad_http", msg.rstrip(".")).content()
            headers = {"content-type": "application/json", "connection": "close"}
            headers["content-length"] = str(len(content))
            start = h11.Response(status_code=400, headers=list(headers.items()), reason="Bad Request")
            for event in (start, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_writing(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.send_400_response("The head of the request did not arrive in time.")


def _protocol(limits: Limits, traffic: Traffic) -> type[asyncio.Protocol]:
    """The protocol of one server: uvicorn makes one of it for each connection."""
    given = {"limits": limits, "traffic": traffic, "most": _allow_files(limits.connections)}
    return type("TimedProtocol", (_TimedProtocol,), given)


def configure_logging() -> None:
    """Warnings of the server go to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("nunbit")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING)
