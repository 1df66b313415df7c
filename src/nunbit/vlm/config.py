"""What decides a vision-language model, as data; presets are files of it.

Shapes: S side of a picture in pixels, P patches, D width of the patch features, Q tokens of a picture, W width of the
language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from nunbit.errors import ConfigError
from nunbit.lora import LoraConfig
from nunbit.preprocessing import Preprocessing
from nunbit.projector import ProjectorConfig
from nunbit.vision_encoder import VisionConfig, VitConfig

PARTS = ("eye", "projector", "language_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class EyeConfig:
    """A vision encoder, and what of it is read.

    Attributes:
        vision: The encoder.
        preprocessing: Pictures → pixels.
        layer: Behind which block the patches are read, counted from the end when negative (LLaVA: -2); None: behind
            the last one and the final norm.
        class_token: The class token is a feature like those of the patches (BLIP-2, mPLUG-Owl).
    """

    vision: VisionConfig
    preprocessing: Preprocessing
    layer: int | None = None
    class_token: bool = False
    kind: Literal["vision-encoder"] = "vision-encoder"

    def __post_init__(self) -> None:
        vit = isinstance(self.vision, VitConfig)
        if isinstance(self.vision, VitConfig) and self.vision.flexible:
            raise ConfigError("the eye of a vision-language model takes pictures of one size, not of any (NaFlex)")
        if not vit and (self.layer is not None or self.class_token):
            raise ConfigError(f"a {self.vision.kind} has no layers to choose from and no class token")
        if self.vision.image_size != self.preprocessing.image_size:
            sizes = f"{self.vision.image_size} pixels, its preprocessing makes {self.preprocessing.image_size}"
            raise ConfigError(f"the vision encoder takes pictures of {sizes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterEyeConfig:
    """The starter's picture tower, from its package: a grid of cells of 32 pixels.

    Attributes:
        image_size: S, a multiple of 32.
    """

    image_size: int = 256
    kind: Literal["starter"] = "starter"

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 32:
            raise ConfigError(f"the starter's eye takes pictures of a multiple of 32 pixels, not of {self.image_size}")


AnyEyeConfig: TypeAlias = EyeConfig | StarterEyeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureMarks:
    """Texts around the tokens of a picture.

    Attributes:
        before: In front of a picture's tokens.
        after: Behind the last of them.
        tile: In front of each tile's tokens; ``{row}`` and ``{column}`` count from 1.
        row_end: Behind a row of tiles.
        overview: In front of the whole picture's tokens where tiles came before it; by default ``before``.
    """

    before: str = ""
    after: str = ""
    tile: str = ""
    row_end: str = ""
    overview: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TilesConfig:
    """Large pictures are cut into tiles of the eye's size, and looked at whole as well (arXiv 2504.05299).

    Attributes:
        max_side: The longer side of a picture is made this long, in pixels, before it is cut.
    """

    max_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """How a conversation is written down; what is learned of it are the answers and their ends.

    Attributes:
        opening: In front of all.
        system: What is said first unless somebody says something else.
        system_before: In front of that.
        system_after: Behind it.
        user_before: In front of what the user says.
        user_lead: The first characters of what the user says, where that begins with words.
        user_after: Behind it.
        answer_before: In front of an answer.
        answer_lead: The first characters of every answer, one text with it.
        answer_after: Behind it: by this an answer ends.
        picture_after: Behind a picture in the user's words.
        begin_token: The tokenizer's own first token stands in front of all.
    """

    opening: str = ""
    system: str = ""
    system_before: str = ""
    system_after: str = ""
    user_before: str = ""
    user_lead: str = ""
    user_after: str = ""
    answer_before: str = ""
    answer_lead: str = ""
    answer_after: str = ""
    picture_after: str = ""
    begin_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What learns in a stage of training.

    Attributes:
        train: Parts (``eye``, ``projector``, ``language_model``) or beginnings of parameter names within
            (``projector.projection``).
        lora: Corrections of weights that stay themselves; its ``targets`` are patterns of parameter names.
        rates: Beginning of parameter names → factor on the learning rate; 1 for all others.
        learning_rate: Recommended.
        plain: The question is dropped: what is read is a picture, its caption and a new line, and no format of a
            conversation (LLaVA's first stage).
    """

    train: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 1e-3
    plain: bool = False

    def __post_init__(self) -> None:
        for name in (*self.train, *self.rates):
            if name.split(".")[0] not in PARTS:
                raise ConfigError(f"a stage trains {name!r}, which is no part", hint=f"parts: {', '.join(PARTS)}")
        if not self.train and self.lora is None:
            raise ConfigError("a stage trains nothing", hint="name parts in train, or give lora")


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmConfig:
    """A vision-language model.

    Attributes:
        eye: Pictures → (P, D).
        projector: (P, D) → (Q, W).
        language_model: A ``config.json`` of `transformers`: ``model_type`` and sizes.
        chat: How conversations are written down.
        marks: Texts around pictures.
        tiles: How large pictures are cut; None: they are not.
        new_tokens: Tokens that the language model's tokenizer has to be given, for marks; with ``{row}`` and
            ``{column}`` one for every tile.
        align: The first stage; None: there is one stage alone.
        finetune: The last stage.
    """

    eye: AnyEyeConfig
    projector: ProjectorConfig
    language_model: Mapping[str, Any]
    chat: ChatFormat = ChatFormat()
    marks: PictureMarks = PictureMarks()
    tiles: TilesConfig | None = None
    new_tokens: tuple[str, ...] = ()
    align: Stage | None = Stage(train=("projector",), plain=True)
    finetune: Stage = Stage(train=("projector", "language_model"), learning_rate=2e-5)

    def token_names(self) -> list[str]:
        """`new_tokens`, those of tiles one by one."""
        side = 0 if self.tiles is None else -(-self.tiles.max_side // self.eye_size)
        places = [(row, column) for row in range(1, side + 1) for column in range(1, side + 1)]
        names = [
            name.format(row=row, column=column)
            for name in self.new_tokens
            for row, column in (places if "{row}" in name else [(0, 0)])
        ]
        return list(dict.fromkeys(names))

    @property
    def eye_size(self) -> int:
        """S, the side of the pictures that the eye takes."""
        return self.eye.image_size if isinstance(self.eye, StarterEyeConfig) else self.eye.preprocessing.image_size

    def stage(self, name: str) -> Stage:
        """The stage of that name: ``align`` or ``finetune``.

        Raises:
            ConfigError: This model has no such stage.
        """
        found = {"align": self.align, "finetune": self.finetune}.get(name)
        if found is None:
            raise ConfigError(f"this model has no stage {name!r}", hint="it has: finetune")
        return found
