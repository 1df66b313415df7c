"""The page, its files, and the cookie by which it shows a key."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from nunbit.serve.access import COOKIE, Access
from nunbit.serve.keys import Caller
from nunbit.serve.problems import Problem
from nunbit.serve.routes.dependencies import Serving, caller_of, problems

router = APIRouter()
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "favicon.svg": "image/svg+xml",
}


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return page_file("index.html")


@router.get("/page/{name}", include_in_schema=False)
async def page_file_of(name: str) -> Response:
    """One of its files."""
    return page_file(name)


@router.get("/favicon.ico", include_in_schema=False)
async def favicon() -> Response:
    """What browsers ask for by themselves."""
    return page_file("favicon.svg")


def page_file(name: str) -> Response:
    """A file of the page; no other file can be named."""
    if name not in _TYPES:
        raise Problem(404, "no_such_page", "there is no such page", "the page is at /")
    content = (files("nunbit.serve") / "page" / name).read_bytes()
    return Response(content, media_type=_TYPES[name], headers={"cache-control": "no-cache"})


@router.get("/v1/session", responses=problems(), tags=["session"])
async def get_session(request: Request, service: Serving) -> dict[str, Any]:
    """Whether keys are needed, and what the caller may do."""
    access: Access = request.app.state.access
    try:
        caller: Caller | None = caller_of(request)
    except Problem as problem:
        if problem.status != 401:
            raise
        caller = None
    return {
        "keys_needed": access.keys_needed,
        "caller": caller.name if caller and access.keys_needed else None,
        "scope": caller.scope.name.lower() if caller else None,
        "root": service.indexing.root is not None,
        "chat": service.chat is not None,
    }


@router.post("/v1/session", responses=problems(), tags=["session"])
async def open_session(
    request: Request, response: Response, caller: Annotated[Caller, Depends(caller_of)]
) -> dict[str, str]:
    """Put the key of the Authorization header into a cookie that scripts cannot read."""
    key = request.headers.get("authorization", "").partition(" ")[2].strip()
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=secure, max_age=30 * 86_400)
    return {"scope": caller.scope.name.lower()}


@router.delete("/v1/session", responses=problems(), tags=["session"])
async def close_session(response: Response) -> dict[str, bool]:
    """Forget the cookie."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return {"closed": True}
