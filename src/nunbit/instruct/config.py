"""What decides a run that teaches a vision-language model, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nunbit.errors import ConfigError
from nunbit.training.config import TrainingConfig
from nunbit.vlm.config import Stage, VlmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSource:
    """A file of conversations.

    Attributes:
        path: In one of the shapes of `nunbit.instruct.formats`; a relative one starts from the configuration's folder.
        images: The folder that its pictures' paths start from; by default that of the file.
        share: How often its samples come in an epoch: 2 twice, 0.5 half of them.
    """

    path: str
    images: str = ""
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.share <= 0:
            raise ConfigError(f"{self.path}: share is {self.share}, expected above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructModelConfig:
    """What learns.

    Attributes:
        start: A vision-language model's folder; empty: a new one of ``preset`` or ``parts``.
        preset: A name of `nunbit.vlm.assembly.list_presets`.
        tiny: The preset in small, with random weights throughout.
        parts: A configuration in full.
        language_model: Its weights: as `nunbit.language_model.load_language_model` takes it; empty: random.
        stage: ``align``: the projector learns to speak the language model's language. ``finetune``: the last stage.
        learns: What learns in it, in place of what the model says of the stage.
    """

    start: str = ""
    preset: str = ""
    tiny: bool = False
    parts: VlmConfig | None = None
    language_model: str = ""
    stage: Literal["align", "finetune"] = "finetune"
    learns: Stage | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("start", "preset", "parts") if getattr(self, name)]
        if len(given) != 1:
            found = f"{' and '.join(given)} are" if given else "nothing is"
            raise ConfigError(f"model: {found} given to begin with", hint="one of start, preset and parts")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructDataConfig:
    """What it learns from.

    Attributes:
        train: Files.
        validation: Files that teach nothing; their loss is measured.
        batch_size: Samples a step.
        micro_tokens: Tokens of a forward pass: a step is made of as many as it takes.
        max_tokens: Longer samples lose the end of their answers; one that would lose pictures or all answers is set
            aside.
        pack: Samples share a row, and those about the same pictures share these; else they are padded to the longest.
        cache: What a frozen eye says is computed once and kept so; None: it looks each time.
    """

    train: tuple[ConversationSource, ...]
    validation: tuple[ConversationSource, ...] = ()
    batch_size: int = 32
    micro_tokens: int = 1024
    max_tokens: int = 1024
    pack: bool = True
    cache: Literal["float16", "float32"] | None = "float16"

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError("data.train: no source is given")
        if min(self.batch_size, self.micro_tokens, self.max_tokens) < 1:
            raise ConfigError("data: batch_size, micro_tokens and max_tokens must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructConfig:
    """A run.

    Attributes:
        model: What learns.
        data: From what.
        training: How.
        name: Of the model.
        license: Of what was learned.
    """

    model: InstructModelConfig
    data: InstructDataConfig
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=1000))
    name: str = "my-vlm"
    license: str = ""
