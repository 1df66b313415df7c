"""Contrastive learning as a task of the training loop: a student, batches, a loss.

Shapes: N pairs of all processes, n of this one, S side in pixels, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.augmentation import augment
from nunbit.contrastive.batches import Batch, BatchMaker
from nunbit.contrastive.config import ContrastiveConfig
from nunbit.contrastive.students import Student
from nunbit.contrastive.validation import Retrieval, mean_r1, measure_retrieval
from nunbit.contrastive.validation_sets import ValidationSet, show_examples
from nunbit.losses import Ranks, cached_backward, tiled_sigmoid, tiled_softmax
from nunbit.training.config import TrainingPrecision
from nunbit.training.distributed import World

if TYPE_CHECKING:
    from nunbit.types import FloatArray

_EVALUATION_BATCH = 256


class ContrastiveTask:
    """What `nunbit.training.loop.train` trains.

    Args:
        student: What learns.
        maker: Its batches.
        validation: What it is measured on.
        config: Of the run.
        precision: Of products within the towers; the loss is computed in float32.
        world: This process among others.

    Attributes:
        show: Told what the model answers, at each evaluation.
    """

    def __init__(
        self,
        student: Student,
        maker: BatchMaker,
        validation: tuple[ValidationSet, ...],
        config: ContrastiveConfig,
        precision: TrainingPrecision,
        world: World,
    ) -> None:
        self.student, self.maker, self.validation, self.config = student, maker, validation, config
        self._precision, self._world = precision, world
        self.show: Callable[[int, Mapping[str, Any]], None] = lambda step, content: None
        self._ranks = Ranks(exchange=config.exchange) if world.size > 1 else None
        mean, std = (torch.tensor(values) for values in (student.preprocessing.mean, student.preprocessing.std))
        self._mean, self._std = (values.view(1, 3, 1, 1).to(world.device) for values in (mean, std))

    @property
    def module(self) -> nn.Module:
        """The student's."""
        return self.student.module

    def rate_factor(self, name: str) -> float:
        """The student's."""
        return self.student.rate_factor(name)

    def batches(self, start: int) -> Generator[Batch]:
        """As the maker makes them."""
        return self.maker.batches(start)

    def constrain(self) -> None:
        """The student's."""
        self.student.constrain()

    def backward(self, batch: Batch) -> dict[str, float]:
        """Embed, compare with everybody's, and bring the gradients back, a chunk at a time."""
        seen: dict[str, float] = {}
        identities = type(batch.identities)(*(ids.to(self._world.device) for ids in batch.identities))

        def loss(images: Tensor, texts: Tensor) -> Tensor:
            seen.update(_similarities(images, texts))
            scale, bias = self.student.scale_and_bias()
            seen["logit_scale"] = float(scale.detach())
            if bias is None:
                return tiled_softmax(images, texts, scale, identities, ranks=self._ranks)
            seen["logit_bias"] = float(bias.detach())
            return tiled_sigmoid(images, texts, scale, bias, identities, ranks=self._ranks)

        value = cached_backward(self._embed, batch.chunks(self.config.data.chunk_size), loss)
        count = self.config.data.batch_size * batch.texts_per_picture
        _, bias = self.student.scale_and_bias()
        seen |= {
            "loss": float(value),
            "samples": float(self.config.data.batch_size),
            # Guessing: all equal for softmax; for sigmoid the best that one bias can do with N pairs in N squared.
            "chance_loss": math.log(count) if bias is None else math.log(count) - (count - 1) * math.log1p(-1 / count),
            "duplicates": _duplicates(batch),
        }
        return seen

    def evaluate(self, step: int) -> dict[str, float]:
        """Retrieval on every validation set; several are averaged, too. The first one's first pictures are shown."""
        found: dict[str, float] = {}
        results: list[Retrieval] = []
        for part in self.validation:
            images, texts = self.embed_images(part.images), self.embed_texts(part.text_inputs)
            if not results:
                self.show(step, show_examples(part, images, texts, step))
            results.append(measure_retrieval(images, texts, part.pairs))
            prefix = "validation" if len(self.validation) == 1 else f"validation/{part.name}"
            found |= {f"{prefix}/{kind}": value for kind, value in asdict(results[-1]).items()}
        if len(results) > 1:
            found["validation/mean_r1"] = mean_r1(results)
        return found

    def measure(self) -> list[Retrieval]:
        """Retrieval on each validation set, with the weights as they are."""
        return [
            measure_retrieval(self.embed_images(part.images), self.embed_texts(part.text_inputs), part.pairs)
            for part in self.validation
        ]

    @torch.no_grad()
    def embed_images(self, inputs: Tensor) -> FloatArray:
        """(N, S, S, 3) uint8, or (N, F) of a locked tower → (N, E)."""
        return self._in_parts(inputs, lambda part: self.student.embed_image(self._image_inputs(part, None)))

    @torch.no_grad()
    def embed_texts(self, inputs: Tensor) -> FloatArray:
        """(M, T) token ids, or (M, F) of a locked tower → (M, E)."""
        return self._in_parts(inputs, self.student.embed_text)

    def _in_parts(self, inputs: Tensor, embed: Any) -> FloatArray:
        self.module.eval()
        with self._computing():
            parts = [embed(part.to(self._world.device)) for part in torch.split(inputs, _EVALUATION_BATCH)]
        rows: FloatArray = functional.normalize(torch.cat(parts).float(), dim=-1).cpu().numpy()
        return rows

    def _embed(self, chunk: Batch) -> tuple[Tensor, Tensor]:
        device = self._world.device
        dropout = self.config.model.dropout
        with self._computing():
            pictures = self._image_inputs(chunk.images.to(device), chunk)
            texts = chunk.texts.to(device)
            if dropout and self.student.locked.image is not None:
                pictures = functional.dropout(pictures, dropout)
            if dropout and self.student.locked.text is not None:
                texts = functional.dropout(texts, dropout)
            embedded = self.student.embed_image(pictures), self.student.embed_text(texts)
        images, words = (functional.normalize(rows.float(), dim=-1) for rows in embedded)
        return images.repeat_interleave(chunk.texts_per_picture, dim=0), words

    def _image_inputs(self, images: Tensor, chunk: Batch | None) -> Tensor:
        if self.student.locked.image is not None:
            return images
        if chunk is None or chunk.changes is None:
            pixels = images.permute(0, 3, 1, 2).float() / 255
        else:
            pixels = augment(images, chunk.changes)
        return (pixels - self._mean) / self._std

    def _computing(self) -> AbstractContextManager[Any]:
        low = self._precision == "bfloat16"
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=low)


def _similarities(images: Tensor, texts: Tensor) -> Mapping[str, float]:
    """Mean cosine of different pictures, and of different texts: 1 when all embeddings are one."""
    found = {}
    for name, rows in (("image_similarity", images), ("text_similarity", texts)):
        count = len(rows)
        total = rows.detach().sum(0).square().sum() - count
        found[name] = float(total / max(1, count * (count - 1)))
    return found


def _duplicates(batch: Batch) -> float:
    """Share of pairs whose picture or text other pictures of the batch share."""
    each = batch.texts_per_picture
    pictures, texts = batch.identities.pictures, batch.identities.texts
    twice = _counts(pictures[::each]).repeat_interleave(each) > 1
    # A text that a picture was given twice is shared with nobody.
    own = (pictures[:, None] == pictures[None, :]) & (texts[:, None] == texts[None, :])
    return float((twice | (_counts(texts) > own.sum(1))).float().mean())


def _counts(numbers: Tensor) -> Tensor:
    """How often each number is there, (N,)."""
    _, places, counts = torch.unique(numbers, return_inverse=True, return_counts=True)
    found: Tensor = counts[places]
    return found
