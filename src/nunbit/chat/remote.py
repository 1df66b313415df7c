"""Any OpenAI-compatible endpoint, as a talker: ``POST /chat/completions``, answers as server-sent events.

The key is read from the environment when it is needed, is sent to the endpoint alone (redirects are not followed), and
stands in no message, whatever the endpoint echoes.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from nunbit.chat.messages import Message, split
from nunbit.chat.refusals import NEW_LIMIT, refusal
from nunbit.errors import EndpointError, UsageError
from nunbit.generate import GenerationConfig

MAX_SIDE = 1024
"""Larger pictures are scaled down to this before they are sent, in pixels; most services look no closer."""

_QUALITY = 90
_ERRORS = (OSError, http.client.HTTPException)  # URLError and timeouts are OSErrors


class RemoteTalker:
    """A model behind an endpoint.

    Args:
        url: With the version: ``https://api.example.com/v1``. Behind ``#`` the model's name; without one the endpoint
            is asked for it, and must have a single one.
        key_variable: The environment variable that holds the key; None: no key is sent.
        seconds: How long to wait for the next words.

    Raises:
        UsageError: The URL cannot be meant, or the variable is not set.
    """

    def __init__(self, url: str, *, key_variable: str | None = None, seconds: float = 120.0) -> None:
        base, _, model = url.partition("#")
        if not is_endpoint(url) or not urlsplit(base).hostname or urlsplit(base).username is not None:
            hint = "like https://api.example.com/v1#model; a key comes from the environment (--key-env)"
            raise UsageError("the URL of the endpoint cannot be meant", hint=hint)
        if key_variable is not None and not os.environ.get(key_variable):
            hint = f"export {key_variable}=..., or name another one (--key-env)"
            raise UsageError(f"the environment variable {key_variable} is not set", hint=hint)
        self.name = url
        self._base, self._model = base.rstrip("/"), model
        self._key_variable, self._seconds = key_variable, seconds
        self._opener = urllib.request.build_opener(_NoRedirect)

    def talk(self, messages: Sequence[Message], config: GenerationConfig) -> Generator[str, None, bool]:
        """As `Talker.talk`."""
        split(messages)
        body = {
            "model": self._model or self._only_model(),
            "messages": [_plain(message) for message in messages],
            "stream": True,
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
        }
        if config.temperature > 0:
            body |= {"top_p": config.top_p, "seed": config.seed}
        if config.stop:
            body["stop"] = list(config.stop)
        with closing(self._post(body)) as answer:
            return (yield from self._read(answer))

    def _post(self, body: dict[str, Any]) -> Any:
        try:
            return self._ask("/chat/completions", body)
        except EndpointError as error:
            if NEW_LIMIT not in error.message or "max_tokens" not in body:
                raise
            renamed = {NEW_LIMIT if name == "max_tokens" else name: value for name, value in body.items()}
            return self._ask("/chat/completions", renamed)

    def _only_model(self) -> str:
        with closing(self._ask("/models")) as answer:
            try:
                names = [str(model["id"]) for model in json.load(answer)["data"]]
            except (ValueError, KeyError, TypeError, *_ERRORS) as error:
                raise EndpointError(f"{self._base} does not list its models", hint="name one: URL#MODEL") from error
        if len(names) != 1:
            listed = ", ".join(names[:20]) or "none"
            raise UsageError(f"{self._base} has {len(names)} models", hint=f"name one behind #; it has: {listed}")
        self._model = names[0]
        return self._model

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The open response.

        Raises:
            EndpointError: There is none, or a refusal.
        """
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        key = os.environ.get(self._key_variable, "") if self._key_variable else ""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, headers=headers)
        try:
            return self._opener.open(request, timeout=self._seconds)
        except urllib.error.HTTPError as error:
            with closing(error):
                raise refusal(self._base, error, key) from None  # its trace holds the request, and so the key
        except (*_ERRORS, ValueError) as error:  # a key with a line break in it is a ValueError that quotes it
            raise self._silence(error) from None

    def _silence(self, error: Exception) -> EndpointError:
        cause = getattr(error, "reason", error)
        if isinstance(cause, TimeoutError):
            hint = "try again; a model that is being loaded can take longer"
            return EndpointError(f"{self._base} said nothing for {self._seconds:.0f} seconds", hint=hint)
        what = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
        return EndpointError(
            f"{self._base} cannot be reached: {what}", hint="is the server running, and the URL right?"
        )

    def _read(self, answer: Any) -> Generator[str, None, bool]:
        """Pieces of the answer: of a stream of events, or of one body where the endpoint has no streams."""
        reason = ""
        try:
            if answer.headers.get_content_type() != "text/event-stream":
                content = answer.read()
                yield from self._words(content)
                return _reason(content) == "length"
            for line in answer:
                content = line.removeprefix(b"data:").strip()
                if content == b"[DONE]":
                    return reason == "length"
                if line.startswith(b"data:") and content:
                    yield from self._words(content)
                    reason = reason or _reason(content)
        except _ERRORS as error:
            raise self._silence(error) from None
        if not reason:
            raise EndpointError(f"{self._base} broke off in the middle of an answer", hint="try again")
        return reason == "length"

    def _words(self, content: bytes) -> Iterator[str]:
        try:
            told = json.loads(content)
            if told.get("error"):
                raise refusal(self._base, told, os.environ.get(self._key_variable or "", ""))
            for choice in told.get("choices") or []:
                words = (choice.get("delta") or choice.get("message") or {}).get("content")
                if words:
                    yield str(words)
        except (ValueError, AttributeError) as error:
            hint = "is it an OpenAI-compatible endpoint? the URL ends with /v1 on most"
            raise EndpointError(f"{self._base} answered with something else than an answer", hint=hint) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another place."""

    def redirect_request(self, *args: Any) -> None:
        """None: it is an error like others."""


def is_endpoint(spec: str) -> bool:
    """Whether a text is meant as an endpoint."""
    return spec[:8].lower().startswith(("http://", "https://"))


def _reason(content: bytes) -> str:
    """Why an answer ends, where an event says that it does; not every endpoint says ``[DONE]`` as well."""
    reasons = [choice.get("finish_reason") for choice in json.loads(content).get("choices") or []]
    return next((str(reason) for reason in reasons if reason), "")


def _plain(message: Message) -> dict[str, Any]:
    if all(isinstance(part, str) for part in message.parts):
        return {"role": message.role, "content": "".join(part for part in message.parts if isinstance(part, str))}
    parts = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in message.parts
    ]
    return {"role": message.role, "content": parts}


def data_url(image: Image.Image) -> str:
    """A picture in mode RGB as a JPEG in a URL, its longer side at most `MAX_SIDE` pixels."""
    smaller = image.copy()
    smaller.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
