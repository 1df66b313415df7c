"""What went wrong, in the shape that OpenAI's clients understand, with a hint and without a path of this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from nunbit.errors import ImageError, StoreBusy, StoreFull, UsageError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
    504: "timeout_error",
    507: "server_error",
}
_MESSAGE = 1000


@dataclass(eq=False)
class Problem(Exception):
    """Ends a request.

    Attributes:
        status: Of HTTP.
        code: Short and stable, for programs.
        message: What happened and what was expected.
        hint: How to mend it.
        param: The part of the request that is to blame.
        headers: To be sent with it.
    """

    status: int
    code: str
    message: str
    hint: str = ""
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """As JSON. A message may quote the request, but not all of it."""
        message = self.message if len(self.message) <= _MESSAGE else f"{self.message[:_MESSAGE]}..."
        return {
            "error": {
                "message": f"{message}. {self.hint[0].upper()}{self.hint[1:]}." if self.hint else message,
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
                "hint": self.hint or None,
            }
        }

    def content(self) -> bytes:
        """The body as bytes."""
        return json.dumps(self.body(), ensure_ascii=False).encode("utf-8", "backslashreplace")


def busy(what: str, seconds: int = 1) -> Problem:
    """Too much at once; the client should come again."""
    return Problem(
        429, "too_busy", what, "come again after the seconds in Retry-After", headers={"Retry-After": str(seconds)}
    )


def stopping() -> Problem:
    """The server takes nothing new."""
    return Problem(
        503, "stopping", "the server is shutting down", "come again in a moment", headers={"Retry-After": "5"}
    )


def problem_of(error: Exception) -> Problem:
    """An error as an answer. Only messages that quote nothing of this machine are passed on."""
    if isinstance(error, ImageError):
        status = {"too many pixels": 413, "too many bytes": 413, "out of memory": 413}.get(error.reason, 400)
        return Problem(status, "bad_picture", error.message, error.hint)
    if isinstance(error, UsageError):
        return Problem(400, "bad_request", error.message, error.hint)
    if isinstance(error, StoreBusy):
        wait = {"Retry-After": "5"}
        message = "another program is writing to the index"
        return Problem(503, "index_busy", message, "come again; searching is possible meanwhile", headers=wait)
    if isinstance(error, StoreFull):
        return Problem(507, "disk_full", "the server's disk is full; what was acknowledged before is safe")
    return Problem(500, "server_error", "the server failed; its log says more under this request id")
