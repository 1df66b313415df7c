"""``POST /v1/search``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from fastapi import APIRouter, Request

from nunbit.serve.filters import select
from nunbit.serve.problems import Problem
from nunbit.serve.requests import parse_with_files
from nunbit.serve.routes.dependencies import READS, Serving, body_of, check_count, item_body, problems
from nunbit.serve.routes.gathering import all_or_first_error
from nunbit.serve.schemas import MatchBody, QueryPart, SearchAnswer, SearchRequest, as_region

if TYPE_CHECKING:
    from nunbit.index import Item
    from nunbit.serve.service import Service
    from nunbit.types import FloatArray

router = APIRouter(tags=["search"])
_EXAMPLE = {
    "query": [{"text": "a beach"}, {"text": "people", "weight": -0.5}],
    "filter": {"width": {"gte": 200}},
    "limit": 10,
}


@router.post(
    "/v1/search",
    response_model=SearchAnswer,
    responses=problems(404, 415),
    dependencies=[READS],
    openapi_extra=body_of(SearchRequest, _EXAMPLE, files="Pictures to look for, added to the query."),
)
async def search(request: Request, service: Serving) -> SearchAnswer:
    """Find pictures by words, pictures, items or regions of them, added and subtracted."""
    wanted, files = await parse_with_files(request, SearchRequest)
    parts = list(wanted.query)
    if wanted.text is not None or wanted.image is not None or wanted.item is not None:
        parts += [
            QueryPart(**{name: value})
            for name in ("text", "image", "item")
            if (value := getattr(wanted, name)) is not None
        ]
    check_count(service, len(parts) + len(files), "parts of a query")
    if not parts and not files:
        message = "a query is needed: text, image, item, or a list of them"
        raise Problem(400, "bad_request", message, 'write "text": "a dog"', "query")
    jobs = [_embed(service, number, part) for number, part in enumerate(parts)]
    rows = await all_or_first_error([*jobs, *(service.embed_file(file.content) for file in files)])
    weights = [part.weight for part in parts] + [1.0] * len(files)
    query = np.sum([weight * row for weight, row in zip(weights, rows, strict=True)], axis=0, dtype=np.float32)
    if not np.linalg.norm(query) > 1e-6:
        raise Problem(400, "bad_request", "the parts of the query cancel each other out", param="query")
    found, total = await service.in_thread(_find, service, query, wanted)
    data = [
        MatchBody(**item_body(service, item).model_dump(), rank=rank, similarity=round(similarity, 6))
        for rank, (item, similarity) in enumerate(found, start=wanted.offset + 1)
    ]
    after = wanted.offset + len(found)
    return SearchAnswer(data=data, total=total, next_offset=after if found and after < total else None)


def _find(service: Service, query: FloatArray, wanted: SearchRequest) -> tuple[list[tuple[Item, float]], int]:
    view = service.collection.view
    mask = select(view, wanted.filter)
    return view.nearest(query, wanted.limit, wanted.offset, mask, least=wanted.min_similarity)


async def _embed(service: Service, number: int, part: QueryPart) -> FloatArray:
    param = f"query.{number}"
    if sum(value is not None for value in (part.text, part.image, part.item)) != 1:
        raise Problem(400, "bad_request", "a part of a query has exactly one of text, image, item", param=param)
    if part.text is not None:
        if part.region is not None:
            raise Problem(400, "bad_request", "a text has no region", param=param)
        return await service.batcher.text(part.text)
    region = as_region(part.region)
    if part.item is not None:
        return await service.embed_item(part.item, region)
    assert part.image is not None
    return await service.embed_given(part.image, param, region)
