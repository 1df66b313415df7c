"""Models, health and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from nunbit.serve.problems import Problem
from nunbit.serve.routes.dependencies import READS, Serving, problems
from nunbit.serve.routes.embeddings import check_model
from nunbit.serve.schemas import ModelBody, Models
from nunbit.serve.service import Service

router = APIRouter(tags=["status"])


@router.get("/v1/models", response_model=Models, responses=problems(), dependencies=[READS])
async def list_models(service: Serving) -> Models:
    """What runs here: the encoder, then what answers questions."""
    return Models(data=_models(service))


@router.get("/v1/models/{model:path}", response_model=ModelBody, responses=problems(404), dependencies=[READS])
async def get_model(model: str, service: Serving) -> ModelBody:
    """A model by its name."""
    if service.chat is None or model != service.chat.model_name:
        check_model(service, model)
    return next(one for one in _models(service) if one.id == model)


@router.get("/healthz", responses=problems())
async def health(service: Serving) -> dict[str, object]:
    """Embeds a text and a picture; 200 proves that this works, not only that the process lives."""
    if not service.ready:
        raise Problem(503, "not_ready", "the server is starting or stopping", headers={"Retry-After": "2"})
    try:
        return {"status": "ok", "seconds": round(await service.check(), 4)}
    except Problem as problem:
        if problem.status == 429 and service.batcher.idle_seconds < service.settings.limits.seconds:
            return {"status": "busy"}  # more work than it takes is no illness, as long as some of it gets done
        raise


@router.get("/readyz", responses=problems())
async def readiness(service: Serving) -> dict[str, object]:
    """200 as long as requests are taken."""
    if not service.ready or service.traffic.stopping:
        raise Problem(503, "not_ready", "the server is starting or stopping", headers={"Retry-After": "2"})
    return {"status": "ready", "items": len(service.collection.view)}


@router.get("/metrics", dependencies=[READS], response_class=Response, responses=problems())
async def metrics(service: Serving) -> Response:
    """For Prometheus."""
    counts = service.metrics
    counts.open.set(service.traffic.open)
    counts.held_bytes.set(service.traffic.held_bytes)
    counts.waiting.set(service.batcher.inside)
    counts.chat.set(service.chat.inside if service.chat else 0)
    counts.items.set(len(service.collection.view))
    return Response(counts.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _models(service: Service) -> list[ModelBody]:
    encoder = ModelBody(
        id=service.model_name,
        created=service.created,
        embedding_size=service.encoder.embedding_size,
        engine=service.encoder.engine.name,
        fingerprint=service.encoder.fingerprint,
    )
    if service.chat is None:
        return [encoder]
    return [encoder, ModelBody(id=service.chat.model_name, created=service.created)]
