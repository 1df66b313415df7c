"""Distillation as a task of the training loop: a student, batches with the teacher's rows, three losses.

Shapes: N pictures, S side in pixels, M labels, E width of the teacher's space.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.augmentation import augment
from nunbit.distill.config import LossConfig
from nunbit.distilled.tower import LiteEncoder
from nunbit.losses import feature_distillation, label_distillation, similarity_distillation

if TYPE_CHECKING:
    from nunbit.distill.lessons import Batch
    from nunbit.distilled.tower import PictureTower
    from nunbit.preprocessing import Preprocessing
    from nunbit.training.config import TrainingPrecision

_EVALUATION_BATCH = 64
_FITTED_RATE = 0.1


@dataclass(frozen=True, slots=True)
class Words:
    """The labels of the label loss.

    Attributes:
        rows: (M, E) unit rows, the teacher's.
        logit_scale: The teacher's.
    """

    rows: Tensor
    logit_scale: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pictures that teach nothing.

    Attributes:
        images: (N, S, S, 3) uint8, whole pictures.
        rows: (N, E), the teacher's.
    """

    images: Tensor
    rows: Tensor


class DistillationTask:
    """What `nunbit.training.loop.train` trains.

    Args:
        tower: What learns.
        preprocessing: Its.
        lessons: From a step on → batches.
        held_out: What it is measured on.
        words: Labels.
        losses: Weights and temperatures.
        precision: Of products within the tower; losses are computed in float32.
    """

    def __init__(
        self,
        tower: PictureTower,
        preprocessing: Preprocessing,
        lessons: Callable[[int], Generator[Batch]],
        *,
        held_out: HeldOut,
        words: Words,
        losses: LossConfig,
        precision: TrainingPrecision,
    ) -> None:
        self.tower, self._lessons, self._losses, self._precision = tower, lessons, losses, precision
        self._device = next(tower.parameters()).device
        self._held_out, self._words = held_out, Words(words.rows.to(self._device), words.logit_scale)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self._mean, self._std = mean.to(self._device), std.to(self._device)

    @property
    def module(self) -> nn.Module:
        """The student's picture tower."""
        return self.tower

    def rate_factor(self, name: str) -> float:
        """That of a fitted projection is low: each of its numbers moves all embeddings, which are near already."""
        fitted = isinstance(self.tower.encoder, LiteEncoder) and name.startswith("encoder.projection.")
        return _FITTED_RATE if fitted else 1.0

    def batches(self, start: int) -> Generator[Batch]:
        """As the lessons make them."""
        return self._lessons(start)

    def constrain(self) -> None:
        """Nothing has a limit."""

    def backward(self, batch: Batch) -> dict[str, float]:
        """Embed, compare with the teacher's rows."""
        pixels = augment(batch.images.to(self._device), batch.changes)
        student = self._embed(pixels)
        found = self._compare(student, batch.rows.to(self._device))
        found["loss"].backward()  # type: ignore[no-untyped-call]
        others = len(student) * (len(student) - 1)
        alike = (student.detach().sum(0).square().sum() - len(student)) / others
        seen = {name: float(value.detach()) for name, value in found.items()}
        return seen | {"samples": float(len(student)), "image_similarity": float(alike)}

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Losses, mean cosine and the share of equal first labels, in percent, on held-out pictures."""
        student, teacher = self.embed(self._held_out.images), self._held_out.rows.to(self._device)
        firsts = [(rows @ self._words.rows.T).argmax(1) for rows in (student, teacher)]
        found = {name: float(value) for name, value in self._compare(student, teacher).items()}
        found["cosine"] = float((student * teacher).sum(1).mean())
        found["same_label"] = 100 * float((firsts[0] == firsts[1]).float().mean())
        return {f"validation/{name}": value for name, value in found.items()}

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 → (N, E) unit rows, with the weights as they are."""
        self.tower.eval()
        parts = torch.split(images, _EVALUATION_BATCH)
        return torch.cat([self._embed(part.to(self._device).permute(0, 3, 1, 2).float() / 255) for part in parts])

    def _embed(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] → (N, E)."""
        normalized = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            rows = self.tower(normalized)
        return functional.normalize(rows.float(), dim=-1)

    def _compare(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Each loss that has a weight, and ``loss``, their sum."""
        losses = self._losses
        found: dict[str, Tensor] = {}
        if losses.feature:
            found["feature_loss"] = feature_distillation(student, teacher)
        if losses.similarity and len(student) > 1:
            found["similarity_loss"] = similarity_distillation(student, teacher, losses.similarity_temperature)
        if losses.labels:
            scale = self._words.logit_scale / losses.label_temperature
            found["label_loss"] = label_distillation(student, teacher, self._words.rows, scale)
        weights = {"feature_loss": losses.feature, "similarity_loss": losses.similarity, "label_loss": losses.labels}
        nothing = torch.zeros((), device=student.device)
        loss = sum((weights[name] * value for name, value in found.items()), start=nothing)
        return found | {"loss": loss}
