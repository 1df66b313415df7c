"""``/v1/labels``: sets of labels that the server keeps."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from nunbit.serve.label_sets import KeptLabels
from nunbit.serve.requests import parse
from nunbit.serve.routes.dependencies import READS, WRITES, Serving, body_of, problems
from nunbit.serve.schemas import Deleted, LabelSetBody, LabelSetInfo, LabelSets, NewLabelSet

router = APIRouter(prefix="/v1/labels", tags=["labels"])
Name = Annotated[str, Path(max_length=64)]
_EXAMPLE = {"name": "animals", "labels": ["cat", "dog", "말"], "templates": "none"}


@router.get("", response_model=LabelSets, responses=problems(), dependencies=[READS])
async def list_label_sets(service: Serving) -> LabelSets:
    """All label sets."""
    return LabelSets(data=[_info(kept) for kept in service.label_sets.all()])


@router.post(
    "",
    response_model=LabelSetInfo,
    status_code=201,
    responses=problems(409, 415, 507),
    dependencies=[WRITES],
    openapi_extra=body_of(NewLabelSet, _EXAMPLE),
)
async def create_label_set(request: Request, service: Serving) -> LabelSetInfo:
    """Keep labels under a new name; they are embedded now, so that their first use is quick."""
    wanted = await parse(request, NewLabelSet)
    return await _put(service, wanted.name, wanted, new=True)


@router.get("/{name}", response_model=LabelSetInfo, responses=problems(404), dependencies=[READS])
async def get_label_set(name: Name, service: Serving) -> LabelSetInfo:
    """One label set."""
    return _info(service.label_sets.get(name))


@router.put(
    "/{name}",
    response_model=LabelSetInfo,
    responses=problems(409, 415, 507),
    dependencies=[WRITES],
    openapi_extra=body_of(LabelSetBody, {"labels": ["cat", "dog"]}),
)
async def put_label_set(name: Name, request: Request, service: Serving) -> LabelSetInfo:
    """Keep labels under a name, in place of those that were there."""
    wanted = await parse(request, LabelSetBody)
    return await _put(service, name, wanted, new=False)


@router.delete("/{name}", response_model=Deleted, responses=problems(404), dependencies=[WRITES])
async def delete_label_set(name: Name, service: Serving) -> Deleted:
    """Forget a label set."""
    await service.in_thread(service.label_sets.delete, name)
    return Deleted(id=name, object="label_set")


async def _put(service: Serving, name: str, wanted: LabelSetBody, *, new: bool) -> LabelSetInfo:
    kept = await service.in_thread(lambda: service.label_sets.put(name, wanted.labels, wanted.templates, new=new))
    await service.labels(kept.labels or (), kept.templates)
    return _info(kept)


def _info(kept: KeptLabels) -> LabelSetInfo:
    labels = None if kept.labels is None else list(kept.labels)
    return LabelSetInfo(name=kept.name, count=kept.count, templates=kept.templates, labels=labels)
