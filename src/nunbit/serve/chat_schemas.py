"""Conversations as requests and answers have them, in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from nunbit.serve.schemas import ImageUrlInput, Strict, Text, TextInput, Usage

Stop = Annotated[str, Field(min_length=1, max_length=100)]


class ChatMessage(Strict):
    """What one says. Only users show pictures, as data URLs."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextInput | ImageUrlInput], Field(min_length=1, fail_fast=True)]


class StreamOptions(Strict):
    """What comes beside the pieces of an answer."""

    include_usage: bool = False


class ChatRequest(Strict):
    """As OpenAI's. By default the likeliest words are taken (``temperature`` 0)."""

    model: str | None = Field(None, description="As /v1/models lists it; may be left out.")
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    n: Literal[1] | None = None
    user: str | None = None


class ChatUsage(Usage):
    """Words that were asked and answered."""

    completion_tokens: int


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """The one answer. ``length``: it was cut at as many tokens as were allowed."""

    index: int = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]


class ChatAnswer(BaseModel):
    """An answer in one piece."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
