"""What every endpoint asks for: the service, and a caller who may do this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from nunbit.index import Item
from nunbit.serve.access import COOKIE, Access, check_scope
from nunbit.serve.keys import Caller, Scope
from nunbit.serve.problems import Problem
from nunbit.serve.schemas import ErrorBody, ItemBody, PredictionBody
from nunbit.serve.service import Service
from nunbit.types import Prediction

_MEANINGS = {
    400: "The request cannot be meant as written.",
    401: "An API key is needed, or wrong.",
    403: "The key's scope does not allow it.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It is there, or runs, already.",
    413: "Too large.",
    415: "Neither JSON nor multipart.",
    421: "The server does not go by that name.",
    429: "Too much at once: see Retry-After.",
    431: "Path and headers are too long.",
    500: "The server failed; its log says more.",
    503: "Not now: see Retry-After.",
    504: "It took too long.",
    507: "The disk is full.",
}


def service_of(request: Request) -> Service:
    """The server's service."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> Caller:
    """Who asks, whose rate this counts against.

    Raises:
        Problem: 401, 429.
    """
    access: Access = request.app.state.access
    address = request.client.host if request.client else "unknown"
    given = request.headers.get("authorization", "")
    caller = access.caller(given, request.cookies.get(COOKIE, ""), address)
    request.scope["state"]["caller"] = caller
    access.spend(caller.name)
    return caller


def _needs(scope: Scope) -> Callable[[Caller], Caller]:
    def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        check_scope(caller, scope)
        return caller

    return check


Serving = Annotated[Service, Depends(service_of)]
READS = Depends(_needs(Scope.READ))
WRITES = Depends(_needs(Scope.WRITE))
ADMINISTERS = Depends(_needs(Scope.ADMIN))


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint, for its documentation: these, and those that any may have."""
    every = (400, 401, 403, 408, 413, 421, 429, 431, 500, 503, 504)
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in sorted({*every, *statuses})}


def body_of(model: type[Any], example: dict[str, Any], *, files: str = "") -> dict[str, Any]:
    """The documentation of a body that `nunbit.serve.requests.parse` reads.

    Args:
        model: Of its fields.
        example: Of the JSON form.
        files: What files are for; empty where there are none.
    """
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}
    }
    if files:
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": files,
                    }
                },
                "additionalProperties": True,
            }
        }
    return {"requestBody": {"required": True, "content": content}}


def check_count(service: Service, count: int, what: str) -> None:
    """Refuse more pictures or texts than one request may have.

    Raises:
        Problem: 413.
    """
    most = service.settings.limits.batch
    if count > most:
        hint = f"send them in several requests of at most {most}"
        raise Problem(413, "too_many", f"{count} {what} in one request", hint)


def item_body(service: Service, item: Item) -> ItemBody:
    """An item as answers show it."""
    return ItemBody(
        id=item.id,
        name=item.name,
        width=item.metadata["width"],
        height=item.metadata["height"],
        format=item.metadata["format"],
        size=item.metadata["size"],
        taken=item.metadata["taken"],
        modified=item.modified,
        uploaded=service.index.uploads.owns(item.path),
        attributes=dict(item.attributes),
    )


def prediction_body(prediction: Prediction) -> PredictionBody:
    """A prediction as answers show it."""
    return PredictionBody(
        label=prediction.label,
        probability=round(prediction.probability, 6),
        similarity=round(prediction.similarity, 6),
    )
