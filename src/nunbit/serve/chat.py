"""Questions about pictures, answered one after another: a bounded queue in front of a talker.

A talker serves one thread at a time, and here is that thread. A picture is decoded when its turn has come: those that
wait are bytes of a body, which the gate has counted. An answer whose client has left ends with its next piece, and one
that was not begun is not begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nunbit.errors import EndpointError, UsageError
from nunbit.images import open_image
from nunbit.serve.problems import Problem, busy, stopping

if TYPE_CHECKING:
    from nunbit.chat import Message, Talker
    from nunbit.generate import GenerationConfig
    from nunbit.serve.settings import Limits

_log = logging.getLogger("nunbit")
_LATER = 5  # seconds after which a client that found the queue full should come again


@dataclass(frozen=True, slots=True)
class Said:
    """A message as a request brings it: a picture is the bytes of a file."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | bytes, ...]


class ChatQueue:
    """Answers what requests ask. Used and closed within one event loop.

    Args:
        talker: Answers.
        limits: How many may wait, and how large their pictures may be.
    """

    def __init__(self, talker: Talker, limits: Limits) -> None:
        self._talker, self._limits = talker, limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nunbit-chat")
        self._replies: set[Reply] = set()
        self._closing = False

    @property
    def model_name(self) -> str:
        """The name of the model, without where it lies on this machine."""
        return _short_name(self._talker.name)

    @property
    def inside(self) -> int:
        """Questions that wait or are being answered."""
        return len(self._replies)

    def ask(self, said: Sequence[Said], config: GenerationConfig) -> Reply:
        """Queue a question.

        Args:
            said: The conversation, the question last.
            config: How the answer is drawn.

        Raises:
            Problem: 429 when too many wait, 503 when the server is stopping.
            UsageError: The user and the assistant do not speak in turn.
        """
        if self._closing:
            raise stopping()
        _check_order(said)
        if self.inside > self._limits.chat_waiting:
            raise busy(f"{self.inside - 1} questions are waiting already", _LATER)
        reply = Reply()
        self._replies.add(reply)
        job = self._thread.submit(reply.run, lambda: self._talk(said, config))
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._replies.discard, reply))
        reply.job = job
        return reply

    async def close(self) -> None:
        """Refuse new questions, and end what is being answered."""
        self._closing = True
        for reply in list(self._replies):
            reply.stop()
        while self._replies:
            await asyncio.sleep(0.005)
        self._thread.shutdown()

    def _talk(self, said: Sequence[Said], config: GenerationConfig) -> Generator[str, None, bool]:
        try:
            return (yield from self._talker.talk(_messages(said, self._limits.pixels), config))
        except EndpointError as error:
            _log.warning("chat: %s", error)
            later = {"Retry-After": str(_LATER)}
            message = f"what answers as {self.model_name!r} cannot be reached, or refuses"
            raise Problem(503, "chat_unreachable", message, "the server's log says more", headers=later) from error
        except UsageError as error:  # some name the folder
            raise UsageError(error.message.replace(self._talker.name, self.model_name), hint=error.hint) from error


class Reply:
    """An answer that is being made.

    Attributes:
        cut: It ended because it had as many tokens as were allowed; known when it has ended.
        job: What makes it.
    """

    job: Future[None]

    def __init__(self) -> None:
        self.cut = False
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self._left = threading.Event()

    def run(self, talk: Callable[[], Generator[str, None, bool]]) -> None:
        """Make it, in the thread of the queue.

        Args:
            talk: Called for the pieces.
        """
        try:
            with closing(self._noted(talk)) as pieces:
                while not self._left.is_set() and (piece := next(pieces, None)) is not None:
                    self._give(piece)
            self._give(None)
        except Exception as error:  # it is raised again where somebody waits
            self._give(error)

    def stop(self) -> None:
        """Nobody waits for more."""
        self._left.set()
        self.job.cancel()  # which takes it out of the queue when it was not begun
        self._pieces.put_nowait(None)

    async def pieces(self) -> AsyncIterator[str]:
        """The pieces of the answer, as they come.

        Raises:
            NunbitError: What the talker raises.
            Problem: 503, the model is not of this machine and cannot be reached.
        """
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def _noted(self, talk: Callable[[], Generator[str, None, bool]]) -> Generator[str, None, None]:
        self.cut = yield from talk()

    def _give(self, piece: str | Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)


def _short_name(spec: str) -> str:
    """What a talker is called among those who do not know this machine: a folder's name, an endpoint's model."""
    return spec.partition("#")[2] or os.path.basename(spec.rstrip("/")) or spec


def _check_order(said: Sequence[Said]) -> None:
    """Refuse what is no conversation before it waits in the queue."""
    from nunbit.vlm.conversation import PICTURE, Turn, check_turns

    turns = [Turn(one.role, tuple(part if isinstance(part, str) else PICTURE for part in one.parts)) for one in said]
    check_turns(turns, sum(part is PICTURE for turn in turns for part in turn.parts), answer=True)


def _messages(said: Sequence[Said], pixels: int) -> list[Message]:
    """Decode the pictures of a conversation, which together have so many pixels at most.

    Raises:
        ImageError: One of them cannot be used.
    """
    from nunbit.chat import Message

    left, messages = pixels, []
    for one in said:
        parts: list[Any] = []
        for part in one.parts:
            if isinstance(part, bytes):
                image, info = open_image(part, max_pixels=left)
                left -= info.width * info.height
                parts.append(image)
            else:
                parts.append(part)
        messages.append(Message(one.role, tuple(parts)))
    return messages
