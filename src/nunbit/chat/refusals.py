"""What an endpoint refuses, and how to mend it."""

from __future__ import annotations

import http.client
import json
import urllib.error
from typing import Any

from nunbit.errors import EndpointError
from nunbit.picture_files import one_line

NEW_LIMIT = "max_completion_tokens"
"""What newer services want instead of ``max_tokens``; they name it when they refuse that."""

_BYTES = 1 << 16
_LONGEST = 300  # of what an endpoint says, in characters
_HINTS = {
    401: "give the name of the environment variable that holds the key: --key-env NAME",
    403: "the key may not use this model: another key (--key-env), or another model",
    404: "is the model's name right, behind # in the URL, and does the URL end with /v1?",
    413: "show fewer or smaller pictures",
    429: "wait a while, or look at the limits of the key",
}


def refusal(base: str, told: urllib.error.HTTPError | dict[str, Any], key: str) -> EndpointError:
    """The error for a refusal.

    Args:
        base: The endpoint.
        told: The response, or an event in which an error came.
        key: Is struck out, should the endpoint quote it.
    """
    if isinstance(told, dict):
        status, words = "an error", _message(told)
        hint = _hint(0, words)
    else:
        status, words = f"{told.code} {told.reason}", _body(told)
        hint = _hint(told.code, words)
    words = words.replace(key, "***") if key else words
    return EndpointError(f"{base} answered {status}{': ' if words else ''}{one_line(words[:_LONGEST])}", hint=hint)


def _body(response: urllib.error.HTTPError) -> str:
    try:
        content = response.read(_BYTES)
        return _message(json.loads(content))
    except (ValueError, OSError, http.client.HTTPException):
        return ""  # a page of a proxy, say


def _message(told: Any) -> str:
    """The words of an error in any of the usual forms."""
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and name in told:
            told = told[name]
    return told.strip() if isinstance(told, str) else json.dumps(told, ensure_ascii=False)


def _hint(status: int, words: str) -> str:
    lower = words.lower()
    if status not in (401, 403, 429) and ("image" in lower or "vision" in lower or "multimodal" in lower):
        return "this model may take no pictures: name one that does, or ask without pictures"
    if status >= 500:
        return "the server failed: try again later, or look at its own messages"
    return _HINTS.get(status, "does the endpoint know this model and these settings?")
