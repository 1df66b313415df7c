"""``POST /v1/recognize`` for pictures, ``POST /v1/recognize/items`` for the whole collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request

from nunbit.serve.filters import select
from nunbit.serve.problems import Problem
from nunbit.serve.requests import parse, parse_with_files
from nunbit.serve.routes.dependencies import (
    READS,
    Serving,
    body_of,
    check_count,
    item_body,
    prediction_body,
    problems,
)
from nunbit.serve.routes.gathering import all_or_first_error
from nunbit.serve.schemas import (
    BinBody,
    PictureInput,
    RecognizeAnswer,
    RecognizedBody,
    RecognizeRequest,
    SortAnswer,
    SortedItem,
    SortRequest,
    as_region,
)
from nunbit.serve.sorting import UNKNOWN, sort_by_labels

if TYPE_CHECKING:
    from nunbit.head import Head
    from nunbit.recognition import Labels
    from nunbit.serve.collection import View
    from nunbit.serve.service import Service
    from nunbit.types import FloatArray, Recognition

router = APIRouter(tags=["recognition"])
_EXAMPLE = {"images": ["data:image/png;base64,..."], "labels": ["cat", "dog", "고양이"], "top_k": 2}
_SORT_EXAMPLE = {"labels": ["cat", "dog"], "min_probability": 0.6}
_SHOWN = 5


@router.post(
    "/v1/recognize",
    response_model=RecognizeAnswer,
    responses=problems(404, 415),
    dependencies=[READS],
    openapi_extra=body_of(RecognizeRequest, _EXAMPLE, files="Pictures; they come before those of images."),
)
async def recognize(request: Request, service: Serving) -> RecognizeAnswer:
    """Say which labels fit pictures best. Probabilities are over the labels given; only a head's are calibrated."""
    wanted, files = await parse_with_files(request, RecognizeRequest)
    check_count(service, len(files) + len(wanted.images) + len(wanted.items), "pictures")
    if not files and not wanted.images and not wanted.items:
        raise Problem(400, "bad_request", "there is no picture", "give images, items, or upload files", "images")
    predict = await service.predictor(wanted.labels, wanted.label_set, wanted.templates)
    jobs = [service.embed_file(file.content) for file in files]
    jobs += [_embed(service, number, image) for number, image in enumerate(wanted.images)]
    rows = await all_or_first_error([*jobs, *(service.embed_item(id_) for id_ in wanted.items)])
    names: list[str | None] = [*([None] * len(jobs)), *wanted.items]

    def answer() -> list[RecognizedBody]:
        return [
            _recognized(number, name, predict(row, wanted.top_k))
            for number, (name, row) in enumerate(zip(names, rows, strict=True))
        ]

    return RecognizeAnswer(data=await service.in_thread(answer))


@router.post(
    "/v1/recognize/items",
    response_model=SortAnswer,
    responses=problems(404, 415),
    dependencies=[READS],
    openapi_extra=body_of(SortRequest, _SORT_EXAMPLE),
)
async def sort_items(request: Request, service: Serving) -> SortAnswer:
    """Sort all pictures of the collection by labels, into a bin for each and one for unknown."""
    wanted = await parse(request, SortRequest)
    labels = await service.judge(wanted.labels, wanted.label_set, wanted.templates)
    if wanted.bin is not None and wanted.bin >= len(labels.classnames):
        raise Problem(400, "bad_request", f"there are {len(labels.classnames)} labels, counted from 0", param="bin")
    return await service.in_thread(_sorted, service, labels, wanted)


def _recognized(number: int, item: str | None, found: Recognition) -> RecognizedBody:
    return RecognizedBody(
        index=number,
        item=item,
        predictions=[*map(prediction_body, found.predictions)],
        unknown=found.unknown,
        answers=None if found.answers is None else list(found.answers),
    )


def _sorted(service: Service, labels: Labels | Head, wanted: SortRequest) -> SortAnswer:
    view = service.collection.view
    mask = select(view, wanted.filter)
    found = sort_by_labels(view, labels, mask, wanted.min_probability, wanted.min_similarity)
    numbers = list(found.bins) if wanted.bin is None else [wanted.bin]
    bins = [(number, found.bins[number]) for number in numbers]
    shown = slice(wanted.offset, wanted.offset + wanted.limit)
    return SortAnswer(
        total=found.total,
        data=[
            BinBody(
                bin=number,
                label=None if number == UNKNOWN else labels.classnames[number],
                count=len(rows),
                data=[_sorted_item(service, view, labels, row) for row in rows[shown].tolist()],
            )
            for number, rows in bins
        ],
    )


def _sorted_item(service: Service, view: View, labels: Labels | Head, row: int) -> SortedItem:
    predictions = [prediction_body(prediction) for prediction in labels.predict(view.vectors[row], _SHOWN)]
    return SortedItem(**item_body(service, view.items[row]).model_dump(), predictions=predictions)


async def _embed(service: Service, number: int, image: str | PictureInput) -> FloatArray:
    param = f"images.{number}"
    if isinstance(image, PictureInput):
        return await service.embed_given(image.image, param, as_region(image.region))
    return await service.embed_given(image, param)
