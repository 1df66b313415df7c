"""``/v1/indexing``: folders below the server's root are indexed while searches go on."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request

from nunbit.serve.requests import parse
from nunbit.serve.routes.dependencies import ADMINISTERS, READS, Serving, body_of, problems
from nunbit.serve.schemas import IndexingBody, IndexingRequest
from nunbit.serve.service import Service

router = APIRouter(prefix="/v1/indexing", tags=["indexing"])


@router.get("", response_model=IndexingBody, responses=problems(), dependencies=[READS])
async def get_indexing(service: Serving) -> IndexingBody:
    """How far the last indexing is."""
    return _body(service)


@router.post(
    "",
    response_model=IndexingBody,
    status_code=202,
    responses=problems(404, 409, 415),
    dependencies=[ADMINISTERS],
    openapi_extra=body_of(IndexingRequest, {"paths": ["holidays"]}),
)
async def start_indexing(request: Request, service: Serving) -> IndexingBody:
    """Make the index agree with folders below the root: add, update, and forget what is gone."""
    wanted = await parse(request, IndexingRequest)
    await service.in_thread(service.indexing.start, wanted.paths)
    return _body(service)


@router.delete("", response_model=IndexingBody, responses=problems(), dependencies=[ADMINISTERS])
async def cancel_indexing(service: Serving) -> IndexingBody:
    """End the indexing; what it has encoded stays."""
    await service.in_thread(service.indexing.cancel)
    return _body(service)


def _body(service: Service) -> IndexingBody:
    can_start = service.indexing.root is not None
    return IndexingBody(**asdict(service.indexing.progress), can_start=can_start)
