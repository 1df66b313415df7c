"""One batch on several processes: value and gradients of one process, and what cannot be shared is refused."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from losses_batches import Batch, make_batch, with_gradients
from nunbit.errors import UsageError
from nunbit.losses import Exchange, Ranks, cached_backward, tiled_sigmoid, tiled_softmax

PAIRS = 11
TILE = 4


@pytest.fixture(scope="module", params=[2, 3])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found; starting processes is slow, so all questions are asked at once."""
    return run_ranks(request.param, answer, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_ranks_agree_with_one_process(
    answers: list[dict[str, Any]], kind: str, duplicates: bool, exchange: Exchange
) -> None:
    world = len(answers)
    expected, gradients = with_gradients(tiled(kind), make_batch(PAIRS * world, duplicates=duplicates))
    found = [rank[f"{kind} {duplicates} {exchange}"] for rank in answers]
    assert all(torch.equal(loss, found[0][0]) for loss, _ in found)
    torch.testing.assert_close(found[0][0], expected, rtol=0, atol=1e-6)
    for name, gradient in gradients.items():
        parts = [rank[name] for _, rank in found]
        whole = torch.cat(parts) if gradient.ndim else torch.stack(parts).sum()
        torch.testing.assert_close(whole, gradient, rtol=0, atol=1e-6)
        assert gradient.abs().max() > 1e-4


def test_the_loss_alone_agrees(answers: list[dict[str, Any]]) -> None:
    for kind in ("softmax", "sigmoid"):
        batch = make_batch(PAIRS * len(answers))
        expected = tiled(kind)(batch)
        for rank in answers:
            for exchange in ("gather", "ring"):
                torch.testing.assert_close(rank[f"{kind} alone {exchange}"], expected.detach(), rtol=0, atol=1e-6)


def test_bfloat16_travels(answers: list[dict[str, Any]]) -> None:
    batch = make_batch(PAIRS * len(answers)).to(torch.bfloat16)
    expected, gradients = with_gradients(tiled("softmax"), batch)
    for exchange in ("gather", "ring"):
        found = [rank[f"bfloat16 {exchange}"] for rank in answers]
        torch.testing.assert_close(found[0][0], expected, rtol=1e-2, atol=0)
        texts = torch.cat([rank["texts"] for _, rank in found])
        assert texts.dtype == torch.bfloat16
        torch.testing.assert_close(texts, gradients["texts"], rtol=0.1, atol=1e-3)


def test_cached_gradients_over_ranks_are_those_of_one_batch(answers: list[dict[str, Any]]) -> None:
    world = len(answers)
    weight = torch.eye(8, dtype=torch.float64, requires_grad=True)
    batch = make_batch(PAIRS * world)
    tiled_softmax(batch.images @ weight, batch.texts, 9.0).backward()
    summed = torch.stack([rank["cached"] for rank in answers]).sum(0)
    torch.testing.assert_close(summed, weight.grad, rtol=0, atol=1e-6)


def test_unequal_parts_are_refused_on_every_rank(answers: list[dict[str, Any]]) -> None:
    sizes = ", ".join(str(PAIRS + rank) for rank in range(len(answers)))
    for rank in answers:
        assert f"pairs must be the same on all ranks, but is {sizes}" in rank["unequal"]
        assert "drop an incomplete last one" in rank["unequal"]
        assert "gradients must be the same on all ranks, but is 1, 0" in rank["frozen on some"]


def test_ranks_need_a_group() -> None:
    batch = make_batch(3)
    with pytest.raises(UsageError, match="init_process_group"):
        tiled_softmax(batch.images, batch.texts, 1.0, ranks=Ranks())


def test_an_unknown_exchange_is_refused() -> None:
    with pytest.raises(UsageError, match="one of: gather, ring"):
        Ranks(exchange="star")  # type: ignore[arg-type]


def tiled(kind: str, **more: Any) -> Callable[[Batch], Tensor]:
    """A loss as a function of a batch."""
    if kind == "softmax":
        return lambda batch: tiled_softmax(batch.images, batch.texts, batch.scale, batch.identities, tile=TILE, **more)
    return lambda batch: tiled_sigmoid(
        batch.images, batch.texts, batch.scale, batch.bias, batch.identities, tile=TILE, **more
    )


def answer(rank: int, world: int) -> dict[str, Any]:
    """What one rank finds, by question."""
    found: dict[str, Any] = {}
    for exchange in ("gather", "ring"):
        ranks = Ranks(exchange=exchange)  # type: ignore[arg-type]
        for kind in ("softmax", "sigmoid"):
            for duplicates in (False, True):
                part = make_batch(PAIRS * world, duplicates=duplicates).part(rank, PAIRS)
                found[f"{kind} {duplicates} {exchange}"] = with_gradients(tiled(kind, ranks=ranks), part)
            with torch.no_grad():
                found[f"{kind} alone {exchange}"] = tiled(kind, ranks=ranks)(
                    make_batch(PAIRS * world).part(rank, PAIRS)
                )
        part = make_batch(PAIRS * world).to(torch.bfloat16).part(rank, PAIRS)
        found[f"bfloat16 {exchange}"] = with_gradients(tiled("softmax", ranks=ranks), part)
    found["cached"] = cached(rank, world)
    found["unequal"] = refusal(make_batch(PAIRS + rank))
    images, texts = make_batch(PAIRS).images.detach(), make_batch(PAIRS).texts.detach()
    found["frozen on some"] = refusal(Batch(images.requires_grad_(rank == 0), texts, torch.tensor(1.0), None, None))
    return found


def cached(rank: int, world: int) -> Tensor:
    """A weight's gradient, by `cached_backward` in chunks of four."""
    weight = torch.eye(8, dtype=torch.float64, requires_grad=True)
    part = make_batch(PAIRS * world).part(rank, PAIRS)
    chunks = list(zip(part.images.detach().split(4), part.texts.detach().split(4), strict=True))
    ring = Ranks(exchange="ring")
    cached_backward(lambda c: (c[0] @ weight, c[1]), chunks, lambda i, t: tiled_softmax(i, t, 9.0, ranks=ring))
    assert weight.grad is not None
    return weight.grad


def refusal(batch: Batch) -> str:
    """Why a batch is not shared."""
    try:
        tiled_softmax(batch.images, batch.texts, batch.scale.detach(), ranks=Ranks())
    except UsageError as error:
        return str(error)
    return ""


def run_ranks(world: int, work: Callable[[int, int], dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Run ``work(rank, world)`` in processes that talk over loopback; what each returns."""
    context = mp.get_context("spawn")
    processes = [context.Process(target=_rank, args=(rank, world, work, folder)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
    failed = [(folder / f"{rank}.txt").read_text() for rank in range(world) if (folder / f"{rank}.txt").exists()]
    assert not failed, failed[0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _rank(rank: int, world: int, work: Callable[[int, int], dict[str, Any]], folder: Path) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
        torch.save(work(rank, world), folder / f"{rank}.pt")
        dist.destroy_process_group()
    except Exception:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
