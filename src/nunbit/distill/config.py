"""What decides a distillation, as data: a YAML file and ``--set`` have these names."""

from __future__ import annotations

from dataclasses import dataclass, field

from nunbit.augmentation import AugmentationConfig
from nunbit.distilled.config import LiteTower, TowerConfig
from nunbit.errors import ConfigError
from nunbit.training.config import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureConfig:
    """What is looked at.

    Attributes:
        paths: Picture files, and folders with pictures in them or below.
        views: In how many ways the teacher looks at each picture, once: whole, then parts of it, mirrored or not. An
            epoch shows the student one of them, so that both look at the same (arXiv 2106.05237).
        smallest_view: The least share of a side that a part has, drawn evenly in the logarithm.
        stretch: Largest factor between the shares of the two sides.
        held_out: One of so many pictures teaches nothing: by these the student is measured.
        batch_size: Pictures a step.
        cache_mb: Memory for decoded pictures; what does not fit is decoded again each time.
        augmentation: Further changes that the student alone sees: of color, if anything.
    """

    paths: tuple[str, ...]
    views: int = 4
    smallest_view: float = 0.5
    stretch: float = 1.5
    held_out: int = 20
    batch_size: int = 32
    cache_mb: int = 1000
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("pictures: there are no paths", hint="give folders with pictures")
        if self.views < 1 or not 0 < self.smallest_view <= 1 or self.stretch < 1:
            raise ConfigError("pictures: expected views and stretch of at least 1, smallest_view in (0, 1]")
        if self.held_out < 2 or self.batch_size < 2:
            raise ConfigError("pictures: held_out and batch_size must be at least 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """How the losses of `nunbit.losses.distillation` are added.

    Attributes:
        feature: Weight of the distance to the teacher's embedding.
        similarity: Weight of the similarities between the pictures of a batch.
        labels: Weight of the probabilities of labels.
        similarity_temperature: Of cosines between pictures.
        label_temperature: The teacher's ``logit_scale`` is divided by it.
    """

    feature: float = 1.0
    similarity: float = 0.1
    labels: float = 0.1
    similarity_temperature: float = 0.1
    label_temperature: float = 1.0

    def __post_init__(self) -> None:
        weights = (self.feature, self.similarity, self.labels)
        if min(weights) < 0 or not any(weights):
            raise ConfigError(f"losses: the weights are {weights}, expected at least one above 0 and none below")
        if min(self.similarity_temperature, self.label_temperature) <= 0:
            raise ConfigError("losses: temperatures must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentTraining(TrainingConfig):
    """As `TrainingConfig`, with defaults for a student that starts near its teacher: small and short steps."""

    steps: int = 1000
    learning_rate: float = 3e-5
    warmup_steps: int = 20
    weight_decay: float = 0.05
    evaluate_every: int = 50
    checkpoint_every: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """A whole run.

    Attributes:
        pictures: What is looked at.
        teacher: What `nunbit.load` takes: a name, a model folder, a hub id.
        tower: The student's picture tower: ``{kind: efficientnet-lite0}``, ``{kind: vit}`` or ``{kind: timm}``.
        losses: What the student is told.
        labels: Words whose probabilities the student copies, and on which agreement is measured; by default some
            hundred names of everyday things.
        training: How parameters move.
        name: What the student is called.
        license: Of its weights, for the card.
    """

    pictures: PictureConfig
    teacher: str = "starter"
    tower: TowerConfig = field(default_factory=LiteTower)
    losses: LossConfig = LossConfig()
    labels: tuple[str, ...] = ()
    training: StudentTraining = field(default_factory=StudentTraining)
    name: str = "my-student"
    license: str = ""

    def __post_init__(self) -> None:
        if len(self.labels) == 1:
            raise ConfigError("labels: there is one, expected none or several")
        if self.training.fsdp:
            raise ConfigError("training.fsdp: a student is small, and learns in one process")
