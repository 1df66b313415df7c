"""A stage of a vision-language model's training as a task of the training loop."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nunbit.vlm.stages import rate_of

if TYPE_CHECKING:
    from nunbit.instruct.lessons import Lesson, Lessons
    from nunbit.training.config import TrainingConfig, TrainingPrecision
    from nunbit.training.distributed import World
    from nunbit.vlm.config import Stage
    from nunbit.vlm.model import VisionLanguageModel, VlmInputs

_MOST_MEASURED = 512  # held-out samples


class InstructTask:
    """What `nunbit.training.loop.train` trains: the mean of ``-log p`` over all tokens of answers in a step.

    Args:
        model: With its stage set; on its device.
        stage: What learns.
        lessons: Training samples.
        held_out: Samples that teach nothing; None: nothing is measured.
        config: Of the training.
        precision: Of products within the model; losses are computed in float32.
        world: This process among others.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        stage: Stage,
        lessons: Lessons,
        held_out: Lessons | None,
        config: TrainingConfig,
        *,
        precision: TrainingPrecision,
        world: World,
    ) -> None:
        self.model, self._stage, self._lessons, self._held_out = model, stage, lessons, held_out
        self._config, self._precision, self._world = config, precision, world

    @property
    def module(self) -> nn.Module:
        """The whole model; what is frozen in it requires no gradient."""
        return self.model

    def rate_factor(self, name: str) -> float:
        """The stage's."""
        return rate_of(self._stage, name)

    def batches(self, start: int) -> Generator[Lesson]:
        """As the lessons come."""
        yield from self._lessons.lessons(start, seed=self._config.seed, world=self._world)

    def constrain(self) -> None:
        """Nothing has a limit."""

    def backward(self, batch: Lesson) -> dict[str, float]:
        """Every row's loss over the step's tokens: however a step is cut into rows, its gradient is the same."""
        total = 0.0
        for part in batch.parts:
            loss = self._loss(part) / batch.asked
            if loss.requires_grad:  # texts without pictures teach nothing to what looks at these
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        tokens = sum(part.input_ids.numel() for part in batch.parts)
        return {
            "loss": self._world.sum(total),
            "samples": float(batch.samples),
            "answer_tokens": float(batch.asked),
            "tokens": self._world.sum(float(tokens)),
        }

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """The mean loss over answers of held-out samples."""
        if self._held_out is None:
            return {}
        total, asked = 0.0, 0
        for part in self._held_out.all_at_once(_MOST_MEASURED):
            assert part.labels is not None
            total += float(self._loss(part))
            asked += self.model.language_model.count_labels(part.labels)
        return {"validation/loss": total / max(1, asked)}

    def _loss(self, part: VlmInputs) -> Tensor:
        """Summed over the part's answers."""
        inputs, model = part.to(self._world.device), self.model
        assert inputs.labels is not None
        with self._computing():
            embedded = model.embed(inputs.input_ids, model.image_tokens(inputs))
            return model.language_model.loss(
                embedded, inputs.attention_mask, inputs.labels, position_ids=inputs.position_ids
            )

    def _computing(self) -> AbstractContextManager[Any]:
        low = self._precision == "bfloat16"
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=low)
