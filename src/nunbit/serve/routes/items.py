"""``/v1/items``: the pictures of the collection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from nunbit.errors import ImageError
from nunbit.serve.filters import select
from nunbit.serve.problems import Problem, problem_of
from nunbit.serve.projection import principal_map
from nunbit.serve.requests import UploadedFile, parse, parse_with_files
from nunbit.serve.routes.dependencies import (
    READS,
    WRITES,
    Serving,
    body_of,
    check_count,
    item_body,
    problems,
)
from nunbit.serve.routes.gathering import all_or_first_error
from nunbit.serve.schemas import (
    MAX_CONDITIONS,
    MAX_PAGE,
    AddedAnswer,
    Deleted,
    ItemBody,
    ItemChange,
    ItemsAnswer,
    MapAnswer,
    NewItem,
    NewItems,
    RejectedBody,
)
from nunbit.serve.thumbnails import ThumbnailSize
from nunbit.serve.writer import NewPicture

if TYPE_CHECKING:
    from nunbit.serve.service import Service

router = APIRouter(tags=["items"])
Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
_EXAMPLE = {"items": [{"image": "data:image/png;base64,...", "name": "mug.png", "attributes": {"sku": "A-17"}}]}
_FILTER = Query(description="Conditions as JSON, as in /v1/search.", examples=['{"format": "JPEG"}'])
_YEAR = 31_536_000
_REASONS = {
    "bad_picture": "bad base64",
    "bad_url": "not fetched",
    "not_fetched": "not fetched",
    "remote_url": "not fetched",
    "too_large": "too many bytes",
}
"""Codes of problems that concern one picture of several."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A picture that cannot be used: as listed beside others that can, and as an answer where there are none."""

    body: RejectedBody
    problem: Problem


@router.get("/v1/items", response_model=ItemsAnswer, responses=problems(), dependencies=[READS])
async def list_items(
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    filter: Annotated[str | None, _FILTER] = None,
) -> ItemsAnswer:
    """A page of the collection, the newest first."""
    conditions = _conditions(filter)

    def page() -> ItemsAnswer:
        view = service.collection.view
        mask = select(view, conditions)
        rows = view.newest if mask is None else view.newest[mask[view.newest]]
        some = rows[offset : offset + limit].tolist()
        after = offset + len(some)
        data = [item_body(service, view.items[row]) for row in some]
        return ItemsAnswer(data=data, total=len(rows), next_offset=after if some and after < len(rows) else None)

    return await service.in_thread(page)


@router.post(
    "/v1/items",
    response_model=AddedAnswer,
    status_code=201,
    responses=problems(415, 507),
    dependencies=[WRITES],
    openapi_extra=body_of(NewItems, _EXAMPLE, files="Pictures to add."),
)
async def add_items(request: Request, service: Serving) -> AddedAnswer:
    """Add pictures. When this answers they are on the disk.

    The same picture again is the same item; it keeps its name, and attributes are added to those it has. Pictures that
    cannot be used are listed with the reason, and the others are added. When none can be used the answer is an error.
    """
    wanted, files = await parse_with_files(request, NewItems)
    given: list[NewItem | UploadedFile] = [*files, *wanted.items]
    check_count(service, len(given), "pictures")
    if not given:
        raise Problem(400, "bad_request", "there is no picture", "upload files, or give items", "items")
    results = await all_or_first_error(
        [_add(service, number, picture, wanted.attributes) for number, picture in enumerate(given)]
    )
    refused = [result for result in results if isinstance(result, _Refused)]
    if len(refused) == len(results):
        raise refused[0].problem
    rejected = [one.body for one in refused]
    return AddedAnswer(data=[result for result in results if isinstance(result, ItemBody)], rejected=rejected)


@router.get("/v1/items/{id}", response_model=ItemBody, responses=problems(404), dependencies=[READS])
async def get_item(id: Id, service: Serving) -> ItemBody:
    """One picture."""
    return item_body(service, service.item(id))


@router.put(
    "/v1/items/{id}",
    response_model=ItemBody,
    responses=problems(409, 415, 507),
    dependencies=[WRITES],
    openapi_extra=body_of(NewItem, _EXAMPLE["items"][0], files="One picture."),
)
async def put_item(id: Id, request: Request, service: Serving) -> ItemBody:
    """Replace an item's picture, or add one under an id of your own (32 hex digits).

    An item keeps its name and attributes, but for those that are given.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        wanted, files = await parse_with_files(request, NewItems)
        if len(files) != 1 or wanted.items:
            raise Problem(400, "bad_request", f"exactly one file is needed, there are {len(files)}", param="file")
        return await _store(service, files[0].content, files[0], wanted.attributes, id)
    item = await parse(request, NewItem)
    async with service.content_of(item.image, "image") as content:
        return await _store(service, content, item, item.attributes, id)


@router.patch(
    "/v1/items/{id}",
    response_model=ItemBody,
    responses=problems(404, 415, 507),
    dependencies=[WRITES],
    openapi_extra=body_of(ItemChange, {"attributes": {"sku": "A-18"}}),
)
async def change_item(id: Id, request: Request, service: Serving) -> ItemBody:
    """Change an item's name or attributes."""
    wanted = await parse(request, ItemChange)
    return item_body(service, await service.writer.change(id, wanted.name, wanted.attributes))


@router.delete("/v1/items/{id}", response_model=Deleted, responses=problems(404, 507), dependencies=[WRITES])
async def delete_item(id: Id, service: Serving) -> Deleted:
    """Take a picture out. The file of an upload is deleted; a file of an indexed folder stays where it is."""
    await service.writer.remove(id)
    return Deleted(id=id, object="item")


@router.get(
    "/v1/items/{id}/thumbnail",
    response_class=Response,
    responses={**problems(404), 200: {"content": {"image/jpeg": {}}}, 304: {"description": "As you have it."}},
    dependencies=[READS],
)
async def thumbnail(id: Id, request: Request, service: Serving, size: ThumbnailSize = ThumbnailSize.CARD) -> Response:
    """The picture, small, as JPEG. With the item's ``modified`` as ``v`` it may be kept for a year."""
    item = service.item(id)
    etag = f'"{item.metadata["content_hash"] or item.metadata["mtime_ns"]}-{size.value}"'
    forever = "v" in request.query_params
    headers = {
        "etag": etag,
        "cache-control": f"private, max-age={_YEAR}, immutable" if forever else "private, no-cache",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    content = await service.thumbnail(item, size.value)
    return Response(content, media_type="image/jpeg", headers=headers)


@router.get("/v1/map", response_model=MapAnswer, responses=problems(), dependencies=[READS])
async def collection_map(
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=20_000)] = 5000,
    filter: Annotated[str | None, _FILTER] = None,
) -> MapAnswer:
    """Places in the plane, so that what looks alike lies together."""
    conditions = _conditions(filter)

    def draw() -> MapAnswer:
        view = service.collection.view
        mask = select(view, conditions)
        rows = view.newest if mask is None else view.newest[mask[view.newest]]
        some = rows[:: -(-len(rows) // limit) or 1]
        places = principal_map(view.vectors[some]).round(5)
        ids = [view.items[row].id for row in some.tolist()]
        return MapAnswer(total=len(rows), ids=ids, x=places[:, 0].tolist(), y=places[:, 1].tolist())

    return await service.in_thread(draw)


def _conditions(text: str | None) -> Mapping[str, Any] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Problem(400, "bad_filter", "the filter is no JSON object", '{"width": {"gte": 640}}', "filter")
    if len(found) > MAX_CONDITIONS:
        raise Problem(400, "bad_filter", f"the filter has more than {MAX_CONDITIONS} conditions", param="filter")
    return found


async def _add(
    service: Service, number: int, given: NewItem | UploadedFile, common: Mapping[str, Any]
) -> ItemBody | _Refused:
    try:
        if isinstance(given, UploadedFile):
            return await _store(service, given.content, given, common)
        async with service.content_of(given.image, f"items.{number}.image") as content:
            return await _store(service, content, given, {**common, **given.attributes})
    except ImageError as error:
        refused = RejectedBody(index=number, name=given.name, reason=error.reason, detail=error.message)
        return _Refused(refused, problem_of(error))
    except Problem as problem:
        if problem.code not in _REASONS:
            raise
        reason = _REASONS[problem.code]
        return _Refused(RejectedBody(index=number, name=given.name, reason=reason, detail=problem.message), problem)


async def _store(
    service: Service,
    content: bytes,
    given: NewItem | UploadedFile,
    attributes: Mapping[str, Any],
    id_: str | None = None,
) -> ItemBody:
    embedding, info = await service.embed_picture(content)
    names = (given.name, "") if isinstance(given, NewItem) else ("", given.name)
    picture = NewPicture(content, info, embedding, names[0], attributes, file_name=names[1])
    return item_body(service, await service.writer.add(picture, id_))
