"""``POST /v1/embeddings``, in OpenAI's form."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from nunbit.serve.problems import Problem
from nunbit.serve.requests import parse_with_files
from nunbit.serve.routes.dependencies import READS, Serving, body_of, check_count, problems
from nunbit.serve.routes.gathering import all_or_first_error
from nunbit.serve.schemas import (
    EmbeddingRow,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    ImageUrlInput,
    PictureInput,
    TextInput,
    Usage,
    as_region,
)

if TYPE_CHECKING:
    from nunbit.serve.service import Service
    from nunbit.types import FloatArray

router = APIRouter(tags=["embeddings"])
_EXAMPLE = {"model": "starter", "input": ["a dog on a beach", "해변의 개"]}


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsAnswer,
    responses=problems(404, 415),
    dependencies=[READS],
    openapi_extra=body_of(EmbeddingsRequest, _EXAMPLE, files="Pictures; their embeddings come first."),
)
async def create_embeddings(request: Request, service: Serving) -> EmbeddingsAnswer:
    """Embed texts and pictures: unit vectors of one space."""
    wanted, files = await parse_with_files(request, EmbeddingsRequest)
    check_model(service, wanted.model)
    if wanted.dimensions not in (None, service.encoder.embedding_size):
        message = f"embeddings of this model have {service.encoder.embedding_size} dimensions"
        raise Problem(400, "bad_dimensions", message, "leave dimensions out", "dimensions")
    given = wanted.input if isinstance(wanted.input, list) else [] if wanted.input is None else [wanted.input]
    check_count(service, len(files) + len(given), "inputs")
    if not files and not given:
        raise Problem(400, "bad_request", "there is nothing to embed", 'write "input": ["a dog"]', "input")
    jobs = [service.embed_file(file.content) for file in files]
    jobs += [_embed(service, number, value) for number, value in enumerate(given)]
    rows = await all_or_first_error(jobs)
    words = sum(len(value.split()) for value in given if isinstance(value, str) and not value.startswith("data:"))
    shown = _as_base64 if wanted.encoding_format == "base64" else lambda row: row.tolist()
    data = [EmbeddingRow(index=number, embedding=shown(row)) for number, row in enumerate(rows)]
    usage = Usage(prompt_tokens=words, total_tokens=words)
    return EmbeddingsAnswer(data=data, model=service.model_name, usage=usage)


def check_model(service: Service, name: str | None) -> None:
    """Refuse the name of another model.

    Raises:
        Problem: 404.
    """
    if name is not None and name != service.model_name:
        hint = f"this server runs {service.model_name!r}"
        raise Problem(404, "no_such_model", f"there is no model {name[:100]!r} here", hint, "model")


async def _embed(service: Service, number: int, value: Any) -> FloatArray:
    param = f"input.{number}"
    region = None
    if isinstance(value, PictureInput):
        given, region = value.image, as_region(value.region)
    elif isinstance(value, ImageUrlInput):
        given = value.image_url.url
    else:
        given = value.text if isinstance(value, TextInput) else value
        if not given.startswith("data:image/"):
            return await service.batcher.text(given)
    return await service.embed_given(given, param, region)


def _as_base64(row: FloatArray) -> str:
    """A row in base64, as OpenAI's clients ask for it."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
