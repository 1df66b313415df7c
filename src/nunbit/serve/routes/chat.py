"""``POST /v1/chat/completions``, in OpenAI's form, in one piece or streamed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from nunbit.errors import NunbitError
from nunbit.serve.chat import ChatQueue, Reply, Said
from nunbit.serve.chat_schemas import AnswerMessage, ChatAnswer, ChatChoice, ChatMessage, ChatRequest, ChatUsage
from nunbit.serve.pictures import picture_bytes
from nunbit.serve.problems import Problem, problem_of
from nunbit.serve.requests import parse
from nunbit.serve.routes.dependencies import READS, Serving, body_of, problems
from nunbit.serve.schemas import ImageUrlInput

if TYPE_CHECKING:
    from nunbit.generate import GenerationConfig
    from nunbit.serve.settings import Limits

router = APIRouter(tags=["chat"])
_TOKENS = 256  # of an answer, when the request does not say
_PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
_SHOWN = {"type": "image_url", "image_url": {"url": _PIXEL}}
_EXAMPLE = {"messages": [{"role": "user", "content": [_SHOWN, {"type": "text", "text": "What is it?"}]}]}
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}, "example": 'data: {"choices": [...]}\n\n'}}


@router.post(
    "/v1/chat/completions",
    response_model=ChatAnswer,
    responses={**problems(404, 415), 200: {"content": _EVENTS, "description": "The answer; with stream in events."}},
    dependencies=[READS],
    openapi_extra=body_of(ChatRequest, _EXAMPLE),
)
async def create_chat_completion(request: Request, service: Serving) -> Any:
    """Ask a vision-language model about pictures."""
    wanted = await parse(request, ChatRequest)
    queue = service.chat
    if queue is None:
        raise Problem(
            404, "no_chat", "no model that answers questions runs here", "nunbit serve --in INDEX --chat MODEL"
        )
    if wanted.model not in (None, queue.model_name):
        hint = f"{queue.model_name!r} answers questions here"
        raise Problem(404, "no_such_model", f"there is no model {str(wanted.model)[:100]!r} here", hint, "model")
    limits = service.settings.limits
    said = _said(wanted.messages, limits)
    answer = _Answer(queue, _words(said), queue.ask(said, _config(wanted, limits)))
    try:
        await answer.begin()  # so that a refusal has its status, streamed or not
        if not wanted.stream:
            return await answer.whole()
    except BaseException:  # also when the client has left
        answer.reply.stop()
        raise
    with_usage = wanted.stream_options is not None and wanted.stream_options.include_usage
    return _Events(answer, with_usage=with_usage)


@dataclass(eq=False)
class _Answer:
    """An answer on its way into OpenAI's form."""

    queue: ChatQueue
    asked: int
    reply: Reply
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    text: str = ""

    async def begin(self) -> None:
        """Wait for the first piece, or for the end where there is none."""
        self._pieces = self.reply.pieces()
        self.text = await anext(self._pieces, "")

    async def pieces(self) -> AsyncIterator[str]:
        """All pieces; afterwards all is known."""
        if self.text:
            yield self.text
        async for piece in self._pieces:
            self.text += piece
            yield piece

    async def whole(self) -> ChatAnswer:
        """In one piece."""
        async for _ in self.pieces():
            pass
        choice = ChatChoice(message=AnswerMessage(content=self.text), finish_reason=self.reason)
        return ChatAnswer(
            id=self.id, created=self.created, model=self.queue.model_name, choices=[choice], usage=self.usage
        )

    @property
    def reason(self) -> Any:
        """Why it ended."""
        return "length" if self.reply.cut else "stop"

    @property
    def usage(self) -> ChatUsage:
        """In words."""
        answered = len(self.text.split())
        return ChatUsage(prompt_tokens=self.asked, completion_tokens=answered, total_tokens=self.asked + answered)

    async def events(self, *, with_usage: bool) -> AsyncIterator[bytes]:
        """As server-sent events; what goes wrong on the way is the last of them."""
        yield self._chunk({"role": "assistant", "content": ""})
        try:
            async for piece in self.pieces():
                yield self._chunk({"content": piece})
        except (Problem, NunbitError) as error:
            yield _event((error if isinstance(error, Problem) else problem_of(error)).body())
            return
        yield self._chunk({}, self.reason)
        if with_usage:
            yield _event({**self._head(), "choices": [], "usage": self.usage.model_dump()})
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> bytes:
        return _event({**self._head(), "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _head(self) -> dict[str, Any]:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created}
        return {**head, "model": self.queue.model_name}


class _Events(StreamingResponse):
    """An answer as server-sent events, which is given up when its client has left."""

    def __init__(self, answer: _Answer, *, with_usage: bool) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies pass each event on at once
        super().__init__(answer.events(with_usage=with_usage), headers=headers, media_type="text/event-stream")
        self._reply = answer.reply

    async def __call__(self, *given: Any) -> None:
        """Send it."""
        try:
            await super().__call__(*given)
        finally:
            self._reply.stop()


def _said(messages: Sequence[ChatMessage], limits: Limits) -> list[Said]:
    """The conversation of a request.

    Raises:
        Problem: 413, too many messages or pictures; 400, a picture that is no data URL in base64.
    """
    _check(len(messages), limits.chat_messages, "messages", "leave the oldest ones out")
    shown = sum(isinstance(part, ImageUrlInput) for one in messages for part in one.content)
    _check(shown, limits.chat_pictures, "pictures", "show each picture once, in the message that asks about it")
    found = []
    for number, one in enumerate(messages):
        given = [one.content] if isinstance(one.content, str) else one.content
        parts = tuple(_part(part, f"messages.{number}.content.{place}") for place, part in enumerate(given))
        found.append(Said("system" if one.role == "developer" else one.role, parts))
    return found


def _part(part: Any, param: str) -> str | bytes:
    if not isinstance(part, ImageUrlInput):
        text: str = part if isinstance(part, str) else part.text
        return text
    url = part.image_url.url
    if url[:5].lower() != "data:":
        message = "a conversation's pictures come within it, and are fetched from nowhere"
        raise Problem(400, "remote_url", message, "send data:image/jpeg;base64,...", param)
    return picture_bytes(url, param)


def _config(wanted: ChatRequest, limits: Limits) -> GenerationConfig:
    from nunbit.generate import GenerationConfig

    tokens = wanted.max_completion_tokens or wanted.max_tokens or min(_TOKENS, limits.chat_tokens)
    _check(tokens, limits.chat_tokens, "tokens of an answer", "ask for fewer, or start the server with a higher limit")
    stop = () if wanted.stop is None else (wanted.stop,) if isinstance(wanted.stop, str) else tuple(wanted.stop)
    return GenerationConfig(
        max_new_tokens=tokens,
        temperature=wanted.temperature or 0.0,
        top_p=wanted.top_p or 1.0,
        seed=secrets.randbits(32) if wanted.seed is None else wanted.seed,
        stop=stop,
    )


def _check(count: int, most: int, what: str, hint: str) -> None:
    if count > most:
        raise Problem(413, "too_many", f"{count:,} {what}, at most {most:,}", hint)


def _words(said: Sequence[Said]) -> int:
    return sum(len(part.split()) for one in said for part in one.parts if isinstance(part, str))


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n\n"
