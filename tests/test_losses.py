"""Losses: their values where these are known, and tiles that give what the formula gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from losses_batches import Batch, make_batch, with_gradients
from nunbit.errors import UsageError
from nunbit.losses import (
    Identities,
    cached_backward,
    same,
    sigmoid_contrastive,
    softmax_contrastive,
    tiled_sigmoid,
    tiled_softmax,
)
from nunbit.losses.tiles import Tiles

KINDS = ("softmax", "sigmoid")
batches = st.builds(make_batch, st.integers(1, 12), seed=st.integers(0, 10**6), duplicates=st.booleans())
quick = settings(max_examples=40, deadline=None)


def plain(kind: str) -> Callable[[Batch], Tensor]:
    """The formula, as a function of a batch."""

    def loss(batch: Batch) -> Tensor:
        positives = None if batch.identities is None else same(*batch.identities)
        if kind == "softmax":
            return softmax_contrastive(batch.images, batch.texts, batch.scale, positives)
        assert batch.bias is not None
        return sigmoid_contrastive(batch.images, batch.texts, batch.scale, batch.bias, positives)

    return loss


def tiled(kind: str, tile: int = 4) -> Callable[[Batch], Tensor]:
    """The same in tiles."""

    def loss(batch: Batch) -> Tensor:
        if kind == "softmax":
            return tiled_softmax(batch.images, batch.texts, batch.scale, batch.identities, tile=tile)
        assert batch.bias is not None
        return tiled_sigmoid(batch.images, batch.texts, batch.scale, batch.bias, batch.identities, tile=tile)

    return loss


def assert_agree(found: Any, expected: Any, **tolerance: float) -> None:
    """Two results of `with_gradients`, or two tensors."""
    torch.testing.assert_close(found, expected, check_dtype=False, **(tolerance or {"rtol": 0, "atol": 1e-9}))


@pytest.mark.parametrize("loss", [softmax_contrastive, tiled_softmax])
def test_softmax_of_equal_similarities_is_ln_n(loss: Callable[..., Tensor]) -> None:
    rows = functional.normalize(torch.ones(7, 4), dim=1)
    assert loss(rows, rows, 20.0).item() == pytest.approx(math.log(7), abs=1e-6)


@pytest.mark.parametrize("loss", [sigmoid_contrastive, tiled_sigmoid])
def test_sigmoid_at_initialization(loss: Callable[..., Tensor]) -> None:
    images, texts = torch.eye(8)[:4], torch.eye(8)[4:]  # all similarities are 0
    expected = math.log1p(math.exp(10)) + 3 * math.log1p(math.exp(-10))
    assert loss(images, texts, 10.0, -10.0).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", [softmax_contrastive, tiled_softmax])
def test_softmax_of_pairs_that_stand_alone_is_zero(loss: Callable[..., Tensor]) -> None:
    assert loss(torch.eye(5), torch.eye(5), 100.0).item() == pytest.approx(0, abs=1e-6)


def test_softmax_with_two_positives_by_hand() -> None:
    """Pairs 0 and 1 have the same text; row 0 of the logits is 1, 1, 0 and each column alike."""
    images, texts = torch.eye(3)[[0, 1, 2]], torch.eye(3)[[0, 0, 2]]
    positives = same(torch.tensor([0, 1, 2]), torch.tensor([5, 5, 6]))
    assert positives.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    e = math.e
    rows = [math.log(2 * e + 1) - 1, math.log(3) - 0, math.log(2 + e) - 1]  # logits (1,1,0), (0,0,0), (0,0,1)
    columns = [math.log(e + 2) - 0.5, math.log(e + 2) - 0.5, math.log(2 + e) - 1]  # (1,0,0), (1,0,0), (0,0,1)
    expected = (sum(rows) + sum(columns)) / 6
    assert softmax_contrastive(images, texts, 1.0, positives).item() == pytest.approx(expected, abs=1e-6)


def test_sigmoid_by_hand() -> None:
    images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    logits = [[1.0, 1.0], [-1.0, -1.0]]  # 2 * cosine - 1
    for positives, signs in ((None, [[1, -1], [-1, 1]]), (torch.ones(2, 2, dtype=torch.bool), [[1, 1], [1, 1]])):
        terms = [math.log1p(math.exp(-signs[i][j] * logits[i][j])) for i in range(2) for j in range(2)]
        found = sigmoid_contrastive(images, texts, 2.0, -1.0, positives)
        assert found.item() == pytest.approx(sum(terms) / 2, abs=1e-6)


def test_two_pictures_with_one_caption_do_not_repel() -> None:
    """The same words for two pictures: without identities the loss pushes them apart, with them it does not."""
    images = torch.eye(3, dtype=torch.float64)
    texts = functional.normalize(torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.float64), dim=1)
    texts.requires_grad_()
    ids = Identities(torch.tensor([0, 1, 2]), torch.tensor([7, 7, 8]))
    for known in (None, ids):
        (gradient,) = torch.autograd.grad(tiled_softmax(images, texts, 50.0, known), texts)
        away = gradient[0, 1] > 1  # text 0 from picture 1, as far as the loss has its way
        assert away == (known is None)


def test_pairs_that_share_nothing_are_negatives_even_with_a_common_third() -> None:
    shared = same(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    assert shared.tolist() == [[True, True, False], [True, True, True], [False, True, True]]


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_give_what_the_formula_gives(kind: str, duplicates: bool) -> None:
    batch = make_batch(301, width=32, duplicates=duplicates)
    assert_agree(with_gradients(tiled(kind, 64), batch), with_gradients(plain(kind), batch))


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_as_exact_as_it_can_be(kind: str, duplicates: bool) -> None:
    batch = make_batch(301, width=32, duplicates=duplicates)
    expected = with_gradients(plain(kind), batch)
    assert_agree(with_gradients(tiled(kind, 64), batch.to(torch.float32)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_sums_in_float32(kind: str) -> None:
    batch = make_batch(301, width=32)
    loss, gradients = with_gradients(tiled(kind, 4), batch.to(torch.bfloat16))
    expected, exact = with_gradients(plain(kind), batch)
    assert loss.dtype == torch.float32
    assert gradients["images"].dtype == torch.bfloat16
    assert_agree(loss, expected, rtol=3e-3, atol=0.0)
    for name in ("images", "texts"):
        error = (gradients[name].double() - exact[name]).norm() / exact[name].norm()
        assert error < 0.005, name  # sums over 76 tiles in bfloat16 would be off by 0.009


@quick
@given(batch=batches, tile=st.integers(1, 13), kind=st.sampled_from(KINDS))
def test_the_tile_size_does_not_matter(batch: Batch, tile: int, kind: str) -> None:
    assert_agree(with_gradients(tiled(kind, tile), batch), with_gradients(plain(kind), batch))


@quick
@given(batch=batches, seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS))
def test_order_does_not_matter(batch: Batch, seed: int, kind: str) -> None:
    order = torch.randperm(len(batch.images), generator=torch.Generator().manual_seed(seed))
    ids = None if batch.identities is None else Identities(*(one[order] for one in batch.identities))
    mixed = batch._replace(images=batch.images[order], texts=batch.texts[order], identities=ids)
    loss, gradients = with_gradients(tiled(kind), batch)
    mixed_loss, mixed_gradients = with_gradients(tiled(kind), mixed)
    assert_agree(mixed_loss, loss)
    assert_agree(mixed_gradients["images"], gradients["images"][order])


@quick
@given(batch=batches, kind=st.sampled_from(KINDS))
def test_both_sides_are_alike(batch: Batch, kind: str) -> None:
    turned = batch._replace(images=batch.texts, texts=batch.images)
    loss, gradients = with_gradients(tiled(kind), batch)
    turned_loss, turned_gradients = with_gradients(tiled(kind), turned)
    assert_agree(turned_loss, loss)
    assert_agree(turned_gradients["texts"], gradients["images"])


@quick
@given(batch=batches, kind=st.sampled_from(KINDS))
def test_gradients_are_slopes(batch: Batch, kind: str) -> None:
    names = {"images": batch.images, "texts": batch.texts, "scale": batch.scale}
    _, gradients = with_gradients(tiled(kind), batch)
    for name, leaf in names.items():
        step = torch.full_like(leaf, 1e-5)
        there, back = (tiled(kind)(batch._replace(**{name: leaf.detach() + sign * step})) for sign in (1, -1))
        assert_agree(((there - back) / 2e-5).detach(), gradients[name].sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_do_not_overflow(kind: str) -> None:
    rows = functional.normalize(torch.cat([torch.ones(3, 4), -torch.ones(3, 4)]), dim=1)
    batch = Batch(rows.clone().requires_grad_(), rows.flip(0).clone().requires_grad_(), torch.tensor(500.0))
    batch = batch._replace(scale=batch.scale.requires_grad_(), bias=torch.tensor(-10.0, requires_grad=True))
    loss, gradients = with_gradients(tiled(kind), batch)
    expected, exact = with_gradients(plain(kind), batch.to(torch.float64))
    assert_agree(loss, expected, rtol=1e-5, atol=0.0)
    for name, gradient in gradients.items():
        assert_agree(gradient, exact[name], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_handed_over_once_and_not_copied(kind: str) -> None:
    batch = make_batch(9)
    loss = tiled(kind)(batch)
    kept = [one.data_ptr() for one in loss.grad_fn.gradients[:2]]  # type: ignore[union-attr]
    (3 * loss).backward()
    assert [batch.images.grad.data_ptr(), batch.texts.grad.data_ptr()] == kept  # type: ignore[union-attr]
    assert_agree(batch.images.grad, 3 * with_gradients(plain(kind), batch)[1]["images"])
    with pytest.raises(UsageError, match="already called"):
        loss.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_alone_computes_no_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(9)
    monkeypatch.setattr(Tiles, "add_gradients", lambda *_: pytest.fail("nobody asked for gradients"))
    with torch.no_grad():
        assert_agree(tiled(kind)(batch), plain(kind)(batch))
    detached = batch._replace(**{name: one.detach() for name, one in batch._asdict().items() if one is not None})
    assert not tiled(kind)(detached).requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_side_may_stand_beside_one_that_learns(kind: str) -> None:
    batch = make_batch(9)
    tiled(kind)(batch._replace(images=batch.images.detach())).backward()
    assert_agree(batch.texts.grad, with_gradients(plain(kind), batch)[1]["texts"])


def test_scale_and_bias_may_be_numbers() -> None:
    batch = make_batch(9)
    assert_agree(tiled_softmax(batch.images, batch.texts, 9), plain("softmax")(batch))
    assert_agree(tiled_sigmoid(batch.images, batch.texts, 9, -3), plain("sigmoid")(batch))


def test_autocast_does_not_round() -> None:
    batch = make_batch(9).to(torch.float32)
    exact = with_gradients(tiled("softmax"), batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert_agree(with_gradients(tiled("softmax"), batch), exact, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"texts": torch.ones(8, 8, dtype=torch.float64)}, r"images are \(9, 8\) and texts \(8, 8\)"),
        ({"texts": torch.ones(9, 8)}, "same type and device"),
        ({"images": torch.ones(9, 8).half(), "texts": torch.ones(9, 8).half()}, "embeddings are torch.float16"),
        ({"images": torch.ones(0, 8), "texts": torch.ones(0, 8)}, r"expected twice \(n, D\)"),
        ({"scale": torch.ones(1)}, r"logit_scale is \(1,\)"),
        ({"identities": Identities(torch.arange(9), torch.arange(8))}, r"expected \(9,\) of int64"),
        ({"identities": Identities(torch.arange(9), torch.ones(9))}, "torch.float32"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tiled("sigmoid")(make_batch(9)._replace(**change))


def test_a_tile_has_a_size() -> None:
    with pytest.raises(UsageError, match="tile is 0"):
        tiled("softmax", 0)(make_batch(3))


def test_positives_that_do_not_fit_are_refused() -> None:
    rows = torch.eye(3)
    with pytest.raises(UsageError, match=r"expected \(3, 3\) of torch.bool"):
        softmax_contrastive(rows, rows, 1.0, torch.eye(3))
    with pytest.raises(UsageError, match=r"positives are \(2, 3\)"):
        sigmoid_contrastive(rows, rows, 1.0, 0.0, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(UsageError, match="no positive"):
        softmax_contrastive(rows, rows, 1.0, torch.tensor([[1, 1, 1], [0, 0, 0], [0, 0, 0]]).bool())


class Towers(nn.Module):
    """Two towers with dropout, and the loss's own parameters."""

    def __init__(self, dropout: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = (
            nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8)) for _ in range(2)
        )
        self.scale, self.bias = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-3.0))
        self.calls: list[Tensor] = []
        self.to(dtype)

    def encode(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        images, texts = (functional.normalize(tower(chunk), dim=1) for tower in (self.image, self.text))
        self.calls.append(torch.cat([images, texts]).detach())
        return images, texts

    def loss(self, images: Tensor, texts: Tensor) -> Tensor:
        return tiled_sigmoid(images, texts, self.scale.exp(), self.bias)

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", [[10, 10, 10], [16, 13, 1]])
def test_cached_gradients_are_those_of_one_batch(dtype: torch.dtype, sizes: list[int]) -> None:
    items = torch.randn(30, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    whole, parts = Towers(0.0, dtype), Towers(0.0, dtype)
    expected = whole.loss(*whole.encode(items))
    expected.backward()
    found = cached_backward(parts.encode, items.split(sizes), parts.loss)
    assert not found.requires_grad
    assert_agree(found, expected.detach(), rtol=0.0, atol=1e-5)
    assert len(parts.gradients()) == 10
    for mine, theirs in zip(parts.gradients(), whole.gradients(), strict=True):
        assert_agree(mine, theirs, rtol=0.0, atol=1e-5)


def test_dropout_is_the_same_in_both_passes_and_goes_on_after_them() -> None:
    towers, chunks = Towers(0.5), torch.ones(12, 6, dtype=torch.float64).split(4)
    torch.manual_seed(3)
    cached_backward(towers.encode, chunks, lambda images, texts: towers.loss(images, texts) * torch.rand(()))
    after = torch.rand(3)
    first, second = towers.calls[:3], towers.calls[3:]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(3)
    with torch.no_grad():
        for chunk in chunks:
            towers.encode(chunk)
    torch.rand(())  # the loss's
    assert torch.equal(torch.rand(3), after)


def test_one_chunk_is_encoded_once() -> None:
    towers, items = Towers(0.0), torch.randn(8, 6, dtype=torch.float64)
    assert not cached_backward(towers.encode, [items], towers.loss).requires_grad
    assert len(towers.calls) == 1
    assert len(towers.gradients()) == 10


def test_a_frozen_tower_may_be_cached() -> None:
    towers = Towers(0.0)
    towers.image.requires_grad_(False)
    cached_backward(towers.encode, torch.randn(8, 6, dtype=torch.float64).split(4), towers.loss)
    assert len(towers.gradients()) == 6


def test_autocast_rounds_weights_in_both_passes() -> None:
    towers, items = Towers(0.0, torch.float32), torch.randn(8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        cached_backward(towers.encode, items.split(4), towers.loss)
    assert len(towers.gradients()) == 10
    assert all(gradient.abs().max() > 0 for gradient in towers.gradients())


def test_what_is_encoded_otherwise_the_second_time_is_refused() -> None:
    towers, calls = Towers(0.0), iter(range(100))
    with pytest.raises(UsageError, match="otherwise the second time"):
        cached_backward(
            lambda chunk: towers.encode(chunk + next(calls)),
            torch.randn(8, 6, dtype=torch.float64).split(4),
            towers.loss,
        )


def test_chunks_are_needed() -> None:
    with pytest.raises(UsageError, match="no chunks"):
        cached_backward(Towers(0.0).encode, [], Towers(0.0).loss)
