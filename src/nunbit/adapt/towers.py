"""Rungs that change the picture tower: its weights, or low-rank corrections of them, and an average with the start.

Place in the river: the pictures of the examples → what the tower takes → a changed tower and a head on its embeddings.
The text tower stays: whatever else was said by words is still said by them. Of the starter, whose towers are locked,
the bridge changes; what it takes is computed once. Of any other encoder these rungs look at pixels, and take minutes.

Shapes: N examples, C classes, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nunbit.adapt.rung import ClassTexts, Rung
from nunbit.adapt.trained import descend
from nunbit.contrastive.config import ModelConfig
from nunbit.contrastive.start import make_student
from nunbit.contrastive.starter_student import StarterStudent
from nunbit.contrastive.students import Student
from nunbit.encode import Encoder
from nunbit.errors import UsageError
from nunbit.head import Head
from nunbit.images import open_image
from nunbit.loading import is_starter, locate
from nunbit.lora import LoraConfig, merged_parameters
from nunbit.training.averaging import interpolate

if TYPE_CHECKING:
    from nunbit.adapt.rung import Logits, Targets
    from nunbit.console import ShowProgress
    from nunbit.types import FloatArray

_AT_ONCE = 32
_SHARES = (0.25, 0.5, 0.75, 1.0)


class Towers:
    """The picture tower of an encoder, to be changed.

    Args:
        encoder: On whatever engine; its torch model is loaded by its name.

    Raises:
        UsageError: It is not what its name loads.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._name = encoder.name
        place = locate(encoder.name)
        self._is_starter = place.is_dir() and is_starter(place)
        self._plain = self._make(None)
        if self._plain.start_fingerprint != encoder.fingerprint:
            raise UsageError(f"{encoder.name} was changed in memory: save it and load the folder to change its tower")
        self._start = merged_parameters(self._plain.module)
        self._learning: dict[LoraConfig | None, tuple[Student, dict[str, Tensor]]] = {}

    def inputs(self, images: Sequence[str | bytes], *, progress: ShowProgress | None = None) -> FloatArray:
        """What the tower takes, all of it in memory: pixels are some 0.6 MB a picture of 224 × 224.

        Args:
            images: N paths or contents of files that can be read.
            progress: Told how many are decoded, and of how many.

        Returns:
            (N, ...) float32.
        """
        if self._plain.locked.image is not None:
            return self._plain.locked_image_encoder().encode_image(list(images))
        made = []
        for number, image in enumerate(images, start=1):
            picture, info = open_image(image)
            made.append(self._plain.preprocessing(picture, info))
            if progress is not None:
                progress(number, len(images), "decoding")
        return np.stack(made)

    def learner(self, lora: LoraConfig | None) -> Student:
        """The model as it was at first, free to learn: all of the picture tower, or corrections alone."""
        if lora not in self._learning:
            student = self._make(lora)
            self._learning[lora] = student, {name: one.clone() for name, one in student.module.state_dict().items()}
        student, first = self._learning[lora]
        student.module.load_state_dict(first)
        student.module.eval()  # statistics of batch norms stay: few pictures would spoil them
        return student

    def changed(self, tuned: Mapping[str, Tensor], share: float) -> Student:
        """The model between its start and what was learned; good until the next call."""
        interpolate(self._plain.module, self._start, dict(self._start) | dict(tuned), share)
        self._plain.module.eval()
        return self._plain

    def difference(self, student: Student) -> dict[str, Tensor]:
        """The weights of a student that are no longer those of the start, corrections added."""
        learned = merged_parameters(student.module)
        return {name: one for name, one in learned.items() if not torch.equal(one, self._start[name])}

    def _make(self, lora: LoraConfig | None) -> Student:
        adapted = None if lora is None else replace(lora, targets=self._patterns())
        config = ModelConfig(start=self._name, locked=() if self._is_starter else ("text",), lora=adapted)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # corrections start at random
            return make_student(config, (), name=self._name, license="")

    def _patterns(self) -> tuple[str, ...]:
        """Which matrices low-rank corrections are for."""
        if isinstance(self._plain, StarterStudent):
            return ("class_vectors", "feature_map")
        if hasattr(self._plain.module.vision_encoder, "blocks"):
            return ("vision_encoder.blocks.*.weight",)
        return ("vision_encoder.*.weight",)


@dataclass(frozen=True, slots=True, eq=False)
class TunedHead:
    """A head on the embeddings of a changed picture tower.

    Attributes:
        head: Takes the embeddings of the changed tower.
        towers: Of the encoder that was changed.
        tuned: The changed weights by name, as they were at the end of learning.
        share: How far from the start to there the tower is, in [0, 1].
    """

    head: Head
    towers: Towers
    tuned: Mapping[str, Tensor]
    share: float

    @property
    def multi_label(self) -> bool:
        """As the head's."""
        return self.head.multi_label

    @property
    def bytes(self) -> int:
        """What the head and the changed weights take."""
        return self.head.bytes + sum(one.numel() * one.element_size() for one in self.tuned.values())

    @torch.no_grad()
    def embed(self, inputs: FloatArray) -> FloatArray:
        """(N, ...) as `Towers.inputs` makes them → (N, D) unit rows of the changed tower."""
        student = self.towers.changed(self.tuned, self.share)
        parts = [torch.from_numpy(inputs[at : at + _AT_ONCE]) for at in range(0, len(inputs), _AT_ONCE)]
        rows: FloatArray = torch.cat([student.embed_image(part) for part in parts]).numpy()
        return rows

    def logits(self, inputs: FloatArray) -> Logits:
        """(N, ...) as `Towers.inputs` makes them → (N, C) float64."""
        return self.head.logits(self.embed(inputs))

    def save_encoder(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write a model folder with the changed tower and the text tower that the encoder had."""
        self.towers.changed(self.tuned, self.share).save(folder, provenance)


class _TowerRung(Rung):
    """Cross-entropy over the classes' words, through the tower; then back towards the start as the examples like it.

    The directions of the classes start as their words and learn with the tower. ``share`` is how much of what was
    learned is kept, for tower and directions alike: weights are averaged with the start (WiSE-FT, arXiv 2109.01903).
    """

    NEEDS_PICTURES = True
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "share": 0.5,
        "steps": 60,
        "learning_rate": 3e-4,
        "words_rate": 1e-3,
        "batch_size": _AT_ONCE,
    }
    CANDIDATES = tuple({"share": share} for share in _SHARES)
    LORA: ClassVar[LoraConfig | None] = None

    @classmethod
    def path(cls, classes: ClassTexts, rows: FloatArray, targets: Targets, multi_label: bool) -> list[TunedHead]:
        """Learned once: every share lies on the way there."""
        return cls(classes)._tune(rows, targets, multi_label, _SHARES)

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> TunedHead:
        (head,) = self._tune(rows, targets, multi_label, (self.settings["share"],))
        return head

    def _tune(
        self, inputs: FloatArray, targets: Targets, multi_label: bool, shares: Sequence[float]
    ) -> list[TunedHead]:
        classes, towers = self.classes, self.classes.towers
        if towers is None:
            raise UsageError(f"{self.NAME} needs the picture tower", hint="ClassTexts(..., towers=Towers(encoder))")
        student = towers.learner(self.LORA)
        given = torch.from_numpy(inputs)
        words = torch.from_numpy(classes.rows)
        offset = torch.full((len(words),), (classes.logit_bias or 0.0) if multi_label else 0.0)
        directions, bias = words.clone().requires_grad_(True), offset.clone().requires_grad_(True)

        def logits(chosen: Tensor) -> Tensor:
            return classes.logit_scale * student.embed_image(given[chosen]) @ directions.T + bias

        weights = [one for one in student.module.parameters() if one.requires_grad]
        groups = [{"params": weights}, {"params": [directions, bias], "lr": self.settings["words_rate"]}]
        descend(groups, logits, targets, multi_label, self.settings)
        tuned = towers.difference(student)
        found = []
        for share in shares:
            rows = classes.logit_scale * torch.lerp(words, directions.detach(), share)
            offsets = torch.lerp(offset, bias.detach(), share)
            head = Head(classes.names, rows.numpy(), offsets.numpy(), multi_label=multi_label)
            found.append(TunedHead(head, towers, tuned, share))
        return found


class LowRankTuning(_TowerRung):
    """Low-rank corrections of the picture tower's matrices (LoRA, arXiv 2106.09685; few shots: 2405.18541)."""

    NAME = "lora"
    LORA = LoraConfig(rank=8, alpha=16)


class FineTuning(_TowerRung):
    """All weights of the picture tower (averaged with the start: WiSE-FT, arXiv 2109.01903)."""

    NAME = "fine-tuning"
