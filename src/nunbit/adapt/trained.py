"""Rungs that learn by gradients on embeddings: seconds, since no picture is looked at again.

Shapes: N examples, C classes, D width, H width inside of the adapter, K candidates that learn side by side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nunbit.adapt.rung import ClassTexts, Rung, text_head
from nunbit.adapt.training_free import make_cache, with_cache
from nunbit.head import FeatureAdapter, Head

if TYPE_CHECKING:
    from nunbit.adapt.rung import Targets
    from nunbit.types import FloatArray


class LinearProbe(Rung):
    """Logistic regression that starts at the words and is held there (arXiv 2103.00020; held as in 2312.12730).

    Minimizes ``mean cross-entropy + strength / 2 * |W - W_text|^2 / C`` over unit-scale weights ``W``, with logits
    ``logit_scale * (W @ x) + b``. The bias is held at its start as well. A class without examples stays at its words
    but for being no longer mistaken for others.
    """

    NAME = "linear-probe"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"strength": 0.3}
    CANDIDATES = tuple({"strength": strength} for strength in (10.0, 3.0, 1.0, 0.3, 0.1, 0.03))

    @classmethod
    def path(cls, classes: ClassTexts, rows: FloatArray, targets: Targets, multi_label: bool) -> list[Head]:
        """From the strongest hold to the weakest, each from where the one before it ended."""
        heads, start = [], None
        for one in cls.CANDIDATES:
            head, start = _probe(classes, rows, targets, multi_label, one["strength"], start)
            heads.append(head)
        return heads

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head:
        return _probe(self.classes, rows, targets, multi_label, self.settings["strength"])[0]


class TrainedTogether(Rung):
    """A rung whose candidates learn side by side, stacked in one tensor: a step costs about as much as for one.

    No candidate sees another: the loss is the sum of theirs, and the optimizer takes each number by itself.
    """

    @classmethod
    def path(cls, classes: ClassTexts, rows: FloatArray, targets: Targets, multi_label: bool) -> list[Head]:
        """All candidates at once."""
        return cls._learn_together([cls(classes, **one) for one in cls.CANDIDATES], rows, targets, multi_label)

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head:
        return self._learn_together([self], rows, targets, multi_label)[0]

    @staticmethod
    @abstractmethod
    def _learn_together(
        rungs: Sequence[TrainedTogether], rows: FloatArray, targets: Targets, multi_label: bool
    ) -> list[Head]:
        """Rungs that differ in settings other than those of `descend` → the head of each."""


class TipAdapterTrained(TrainedTogether):
    """Tip-Adapter-F (arXiv 2111.03930): the keys of the cache learn, from where `TipAdapter` has them."""

    NAME = "tip-adapter-f"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"alpha": 1.0, "beta": 5.5, "steps": 100, "learning_rate": 1e-3}
    CANDIDATES = tuple({"alpha": alpha, "beta": beta} for alpha in (1.0, 3.0) for beta in (1.0, 5.5))

    @staticmethod
    def _learn_together(
        rungs: Sequence[TrainedTogether], rows: FloatArray, targets: Targets, multi_label: bool
    ) -> list[Head]:
        classes = rungs[0].classes
        base = text_head(classes, classes.rows, multi_label=multi_label)
        caches = [
            make_cache(classes, rows, targets, alpha=rung.settings["alpha"], beta=rung.settings["beta"])
            for rung in rungs
        ]
        inputs, values = torch.from_numpy(rows), torch.from_numpy(caches[0].values)
        said = torch.from_numpy(base.logits(rows)).float()
        keys = torch.stack([torch.from_numpy(cache.keys) for cache in caches]).requires_grad_(True)  # (K, N, D)
        alpha = torch.tensor([cache.alpha for cache in caches])[:, None, None]
        beta = torch.tensor([cache.beta for cache in caches])[:, None, None]

        def logits(chosen: Tensor) -> Tensor:
            cosines = torch.unflatten(inputs[chosen] @ keys.flatten(0, 1).T, 1, keys.shape[:2]).transpose(0, 1)
            return said[chosen] + alpha * torch.exp(-beta * (1 - cosines)) @ values

        descend([keys], logits, targets, multi_label, rungs[0].settings)
        learned = keys.detach().numpy()
        return [with_cache(base, replace(cache, keys=one)) for cache, one in zip(caches, learned, strict=True)]


class Adapter(TrainedTogether):
    """CLIP-Adapter (arXiv 2110.04544): a bottleneck changes the embedding of a picture, the words stay."""

    NAME = "adapter"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"ratio": 0.2, "reduction": 4, "steps": 100, "learning_rate": 1e-3}
    CANDIDATES = ({"ratio": 0.2}, {"ratio": 0.6})

    @staticmethod
    def _learn_together(
        rungs: Sequence[TrainedTogether], rows: FloatArray, targets: Targets, multi_label: bool
    ) -> list[Head]:
        base = text_head(rungs[0].classes, rungs[0].classes.rows, multi_label=multi_label)
        count, width = len(rungs), rows.shape[1]
        hidden = max(1, width // rungs[0].settings["reduction"])
        generator = torch.Generator().manual_seed(0)
        down = width**-0.5 * torch.randn(hidden, width, generator=generator)
        up = hidden**-0.5 * torch.randn(width, hidden, generator=generator)
        down, up = (one.repeat(count, 1, 1).requires_grad_(True) for one in (down, up))  # (K, H, D), (K, D, H)
        ratio = torch.tensor([rung.settings["ratio"] for rung in rungs])[:, None, None]
        inputs, weights, bias = (torch.from_numpy(one) for one in (rows, base.weights, base.bias))

        def logits(chosen: Tensor) -> Tensor:
            given = inputs[chosen]
            changed = torch.relu(torch.relu(given @ down.mT) @ up.mT)
            return functional.normalize((1 - ratio) * given + ratio * changed, dim=2) @ weights.T + bias

        descend([down, up], logits, targets, multi_label, rungs[0].settings)
        learned = zip(rungs, down.detach().numpy(), up.detach().numpy(), strict=True)
        adapters = [FeatureAdapter(low, high, rung.settings["ratio"]) for rung, low, high in learned]
        return [replace(base, adapter=adapter) for adapter in adapters]


Start = tuple[Tensor, Tensor]


def _probe(
    classes: ClassTexts,
    rows: FloatArray,
    targets: Targets,
    multi_label: bool,
    strength: float,
    start: Start | None = None,
) -> tuple[Head, Start]:
    inputs, words = torch.from_numpy(rows), torch.from_numpy(classes.rows)
    truth = torch.from_numpy(targets)
    offset = (classes.logit_bias or 0.0) if multi_label else 0.0
    weights, bias = start or (words.clone(), torch.full((len(words),), offset))
    weights, bias = weights.clone().requires_grad_(True), bias.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = classes.logit_scale * inputs @ weights.T + bias
        held = (weights - words).square().sum() + (bias - offset).square().sum() / classes.logit_scale**2
        loss = _cross_entropy(logits, truth, multi_label) + strength / 2 * held / len(words)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head = Head(
            classes.names,
            (classes.logit_scale * weights).numpy().astype(np.float32),
            bias.numpy().copy(),
            multi_label=multi_label,
        )
    return head, (weights.detach(), bias.detach())


def descend(
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
    logits: Callable[[Tensor], Tensor],
    targets: Targets,
    multi_label: bool,
    settings: Mapping[str, Any],
) -> None:
    """Minimize a cross-entropy by AdamW, the rate falling in half a cosine.

    Args:
        parameters: What learns, or groups of it with rates of their own.
        logits: Positions of examples (B,) → their (B, C) logits, with gradients; or (K, B, C) of what learns side by
            side.
        targets: (N, C) bool.
        multi_label: Each class is judged by itself.
        settings: ``steps``, ``learning_rate``, and ``batch_size``: so many examples a step, in an order that is always
            the same; without it all examples are in every step.
    """
    steps, rate = settings["steps"], settings["learning_rate"]
    optimizer = torch.optim.AdamW(parameters, lr=rate, eps=1e-4, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    truth = torch.from_numpy(targets)
    for chosen in _batches(len(truth), steps, settings.get("batch_size")):
        optimizer.zero_grad()
        _cross_entropy(logits(chosen), truth[chosen], multi_label).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _batches(count: int, steps: int, size: int | None) -> Iterator[Tensor]:
    if size is None or size >= count:
        yield from [torch.arange(count)] * steps
        return
    generator = torch.Generator().manual_seed(0)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


def _cross_entropy(logits: Tensor, truth: Tensor, multi_label: bool) -> Tensor:
    """Mean over pictures: of the softmax, or of the sum over labels judged by themselves; the sum over candidates."""
    count, labels = truth.shape
    each = logits.reshape(-1, count, labels)
    if multi_label:
        wanted = truth.float().expand_as(each)
        return functional.binary_cross_entropy_with_logits(each, wanted, reduction="sum") / count
    wanted = truth.int().argmax(1).expand(len(each), count)
    return functional.cross_entropy(each.flatten(0, 1), wanted.flatten(), reduction="sum") / count
