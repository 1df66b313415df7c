"""The process: listens, and stops without dropping what it accepted."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nunbit.errors import UsageError
from nunbit.serve.app import create_app
from nunbit.serve.keys import KeyFile
from nunbit.serve.service import Service
from nunbit.serve.settings import Settings, is_loopback

if TYPE_CHECKING:
    from nunbit.encode import Encoder

_IDLE_SECONDS = 15
_HEADER_BYTES = 32 * 1024
_STOP_SECONDS = 30
_BACKLOG = 1024


class Server(uvicorn.Server):
    """Uvicorn's server, which tells the service first that it is going to stop."""

    service: Service

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Refuse new requests from the moment of the signal on; those inside are finished."""
        self.service.traffic.stopping = True
        super().handle_exit(sig, frame)


def make_server(settings: Settings, encoder: Encoder, log: Callable[[str], object] | None = None) -> Server:
    """A server that is not running yet.

    Args:
        settings: As given.
        encoder: The index's.
        log: As `create_app` takes it.

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
    service = Service(settings, encoder)
    config = uvicorn.Config(
        create_app(service, log),
        host=settings.host,
        port=settings.port,
        http=_protocol(settings.limits.header_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        limit_concurrency=settings.limits.connections,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    server = Server(config)
    server.service = service
    return server


def _protocol(header_seconds: float) -> type[asyncio.Protocol]:
    """HTTP/1.1 with a limit on how long the head of a request may take.

    Uvicorn waits for ever for a client that sends a byte a minute (slow loris). Here a connection is closed when the
    head of its first request is not complete in time; the next ones come under the limit for idle connections, which
    starts anew with the first byte of a head.
    """

    class TimedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            if self._head_timer is None and (before is None or before.response_complete):
                self._await_head()
            super().data_received(data)
            if self.cycle is not before:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head_timer = self.loop.call_later(header_seconds, self._too_slow)

        def _stop_waiting(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _too_slow(self) -> None:
            self._head_timer = None
            if not self.transport.is_closing():
                self.send_400_response("The head of the request did not arrive in time.")

    return TimedProtocol


def configure_logging() -> None:
    """Warnings of the server go to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("nunbit")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING)
