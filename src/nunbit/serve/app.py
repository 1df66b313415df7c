"""The application: routes, errors in one shape, and the gate around all of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from nunbit.errors import NunbitError
from nunbit.serve import chat_schemas, schemas
from nunbit.serve.access import Access
from nunbit.serve.gate import AsgiApp, Gate
from nunbit.serve.keys import KeyFile
from nunbit.serve.problems import Problem, problem_of
from nunbit.serve.requests import invalid
from nunbit.serve.routes import chat, embeddings, indexing, items, labels, page, recognize, search, status
from nunbit.serve.service import Service
from nunbit.serve.settings import is_loopback

_log = logging.getLogger("nunbit")
_BODIES: tuple[Any, ...] = (
    chat_schemas.ChatRequest,
    schemas.EmbeddingsRequest,
    schemas.IndexingRequest,
    schemas.ItemChange,
    schemas.LabelSetBody,
    schemas.NewItem,
    schemas.NewItems,
    schemas.NewLabelSet,
    schemas.RecognizeRequest,
    schemas.SearchRequest,
    schemas.SortRequest,
)
_HTTP = {
    404: ("no_such_path", "/openapi.json lists all paths"),
    405: ("bad_method", "/openapi.json lists what each path takes"),
}


def create_app(service: Service, log: Callable[[str], object] | None = None) -> AsgiApp:
    """Make the ASGI application of a server.

    Args:
        service: Not started yet; the application starts and stops it.
        log: Takes a line of JSON for every request; stderr by default.
    """
    settings = service.settings

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(title="nunbit", version=version("nunbit"), lifespan=lifespan, redoc_url=None, docs_url=None)
    app.state.service = service
    keys = KeyFile(settings.keys_file)
    app.state.access = Access(keys, settings.limits, open_to_all=is_loopback(settings.host))
    for part in (embeddings, chat, recognize, search, items, labels, indexing, status, page):
        app.include_router(part.router)
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(NunbitError, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(Exception, _answer)
    app.openapi = lambda: _documentation(app)  # type: ignore[method-assign]
    gate = Gate(app, settings, service.traffic, service.metrics.answered, log)
    if not settings.origins:
        return gate
    return CORSMiddleware(  # around the gate: a page must be able to read its refusals, too
        gate,
        allow_origins=settings.origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["Retry-After", "X-Request-Id"],
    )


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        problem = invalid(error.errors())
    elif isinstance(error, HTTPException):
        code, hint = _HTTP.get(error.status_code, ("http_error", ""))
        problem = Problem(error.status_code, code, str(error.detail), hint, headers=dict(error.headers or {}))
    elif isinstance(error, NunbitError):
        problem = problem_of(error)
        if problem.status >= 500:
            _log.error("request %s: %s", request.scope["state"]["request_id"], error)
    else:
        problem = error if isinstance(error, Problem) else problem_of(error)
    return Response(problem.content(), problem.status, problem.headers, media_type="application/json")


def _documentation(app: FastAPI) -> dict[str, Any]:
    """OpenAPI of all routes, with the bodies that are read by hand, and without the 422 that is never sent."""
    if app.openapi_schema is None:
        found = FastAPI.openapi(app)
        parts = found["components"]["schemas"]
        _, more = models_json_schema(
            [(model, "validation") for model in _BODIES], ref_template="#/components/schemas/{model}"
        )
        parts.update(more["$defs"])
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            parts.pop(name, None)
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}, {}]
    assert app.openapi_schema is not None
    return app.openapi_schema
