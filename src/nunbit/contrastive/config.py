"""What decides a contrastive training run, as data: a YAML file has these names.

::

    model:    {scratch: {image_size: 64, patch_size: 8}}        # or  {start: starter}, {start: path/to/folder}
    data:     {train: [{path: pairs.jsonl}], validation: [{path: held-out.jsonl}], batch_size: 256}
    training: {steps: 2000, learning_rate: 1.0e-3}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from nunbit.augmentation import AugmentationConfig
from nunbit.data import SourceConfig
from nunbit.errors import ConfigError
from nunbit.lora import LoraConfig
from nunbit.training.config import TrainingConfig

Tower: TypeAlias = Literal["vision", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSize:
    """Sizes of one transformer; its MLPs are four times as wide inside."""

    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchConfig:
    """A new dual encoder of CLIP's form, with a vocabulary learned from the training texts.

    Attributes:
        image_size: Side of the square that pictures become, in pixels.
        patch_size: Side of a patch, in pixels.
        vision: The picture tower.
        text: The text tower.
        embedding_size: Width of the shared space.
        vocabulary_size: The most tokens.
        context_length: The most tokens of a text.
        resize: As in `nunbit.preprocessing.Preprocessing`.
        pooling: What becomes a picture's embedding: the class token, as in CLIP, or the mean of the patches, which
            `transformers` does not know.
    """

    image_size: int = 64
    patch_size: int = 8
    vision: TowerSize = TowerSize()
    text: TowerSize = TowerSize(num_hidden_layers=4)
    embedding_size: int = 256
    vocabulary_size: int = 8192
    context_length: int = 32
    resize: Literal["crop", "squash"] = "squash"
    pooling: Literal["class_token", "mean"] = "class_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What is trained.

    Attributes:
        start: What `nunbit.load` takes: a name, a model folder, a hub id. Not together with ``scratch``.
        scratch: A new model.
        objective: The loss: ``softmax`` (CLIP) or ``sigmoid`` (SigLIP). None: that of the start; softmax from scratch.
        locked: Towers that do not learn. Their outputs are computed once and kept, so an epoch reads no picture.
        lora: Adapt these weights by low-rank corrections, and leave all others (but the logit scale) as they are.
        layer_decay: Each block nearer to the input learns at this factor of the rate of the next one.
        recompute: Keep less for the backward pass and compute it again (gradient checkpointing).
        dropout: On the outputs of locked towers.
        wise_ft: After training, go back towards the start as far as the validation data like it best (WiSE-FT).
        may_lose: With ``wise_ft``: the most points of image-to-text R@1 that each validation set but the first may lose
            against the start. None: the mean over all sets decides alone.
    """

    start: str | None = None
    scratch: ScratchConfig | None = None
    objective: Literal["softmax", "sigmoid"] | None = None
    locked: tuple[Tower, ...] = ()
    lora: LoraConfig | None = None
    layer_decay: float = 1.0
    recompute: bool = False
    dropout: float = 0.0
    wise_ft: bool = False
    may_lose: float | None = None

    def __post_init__(self) -> None:
        if (self.start is None) == (self.scratch is None):
            raise ConfigError("model: give either start, a model to go on from, or scratch, the sizes of a new one")
        if self.scratch is not None and (self.locked or self.lora or self.wise_ft):
            raise ConfigError("model: a new model has nothing to lock, to adapt or to go back to")
        if not 0 < self.layer_decay <= 1 or not 0 <= self.dropout < 1:
            raise ConfigError("model: expected layer_decay in (0, 1] and dropout in [0, 1)")
        if self.may_lose is not None and (self.may_lose < 0 or not self.wise_ft):
            raise ConfigError("model: may_lose is a number of points, at least 0, and goes together with wise_ft")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What teaches.

    Attributes:
        train: Sources of pairs, mixed by their weights.
        validation: Sources that teach nothing; each is measured by itself.
        batch_size: Pairs a step, over all processes.
        chunk_size: Pairs of a process that pass the towers at a time; the step is the same, its memory is that of a
            chunk (gradient caching). None: all at once.
        texts_per_picture: How many of its own texts a picture meets in a step; it passes its tower once.
        shuffle_buffer: Records among which the next one is drawn.
        cache_mb: Memory for decoded pictures; what does not fit is decoded again each time.
        positives: A metadata column; records that agree in it belong together, as equal pictures and equal texts do.
        augmentation: Changes of pictures while training; a locked picture tower never sees them.
        validation_pairs: The most pairs of each validation source that are measured.
    """

    train: tuple[SourceConfig, ...]
    validation: tuple[SourceConfig, ...] = ()
    batch_size: int = 256
    chunk_size: int | None = None
    texts_per_picture: int = 1
    shuffle_buffer: int = 16384
    cache_mb: int = 1000
    positives: str = ""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    validation_pairs: int = 5000

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError("data: there is no training source", hint="train: [{path: pairs.jsonl}]")
        if self.batch_size < 2 or (self.chunk_size is not None and self.chunk_size < 1):
            raise ConfigError("data: batch_size must be at least 2 and chunk_size at least 1")
        if min(self.texts_per_picture, self.validation_pairs) < 1:
            raise ConfigError("data: texts_per_picture and validation_pairs must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveConfig:
    """A whole run.

    Attributes:
        model: What is trained.
        data: What teaches.
        training: How parameters move.
        name: What the trained model is called.
        license: Of the trained weights, for the model card.
        exchange: How several processes compare their pairs: ``gather`` (every process sees all texts at once) or
            ``ring`` (blocks of texts go round, in less memory; SigLIP's neighbor exchange).
    """

    model: ModelConfig
    data: DataConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    name: str = "my-encoder"
    license: str = ""
    exchange: Literal["gather", "ring"] = "gather"

    def __post_init__(self) -> None:
        sets = len(self.data.validation)
        if self.model.wise_ft and not sets:
            raise ConfigError(
                "model.wise_ft chooses by data.validation, and there is none", hint="add some, or leave it"
            )
        if self.model.may_lose is not None and sets < 2:
            message = "model.may_lose bounds what all validation sets but the first may lose, and there is one"
            raise ConfigError(message, hint="add a set of what the model should not forget")
