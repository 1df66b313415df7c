"""What a model folder holds, read and checked, in this project's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nunbit.clip import Clip, ClipConfig
from nunbit.errors import UnsupportedModel
from nunbit.layers import Activation
from nunbit.preprocessing import AnyPreprocessing
from nunbit.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Settings:
    """All that is known about a model without its weights.

    Attributes:
        config: The towers.
        preprocessing: Pictures → pixels.
        tokenizer: Texts → ids.
    """

    config: ClipConfig
    preprocessing: AnyPreprocessing
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A model that was read: its settings, its tensors under our names, and what its folder says of its licence."""

    settings: Settings
    state: Mapping[str, Tensor]
    license: str


CARD = "README.md"
_ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
ACTIVATION_NAMES: dict[Activation, str] = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
"""Activations as `transformers` calls them."""


def activation(name: str) -> Activation:
    """The activation that `transformers` calls so.

    Raises:
        UnsupportedModel: It is none of those that the towers have.
    """
    if name not in _ACTIVATIONS:
        raise UnsupportedModel(f"the activation {name!r} is not known here; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UnsupportedModel: The file is missing, no JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnsupportedModel(
            f"{path.parent} has no {path.name}", hint="copy it from where the model is from"
        ) from error
    except (OSError, ValueError) as error:
        raise UnsupportedModel(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnsupportedModel(f"{path} holds no JSON object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object as people like to read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_license(folder: Path) -> str:
    """The licence that the front matter of a model card names; empty when it names none."""
    card = folder / CARD
    if not card.is_file():
        return ""
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if lines[:1] != ["---"]:
        return ""
    for line in lines[1:]:
        if line == "---":
            break
        if line.startswith("license:"):
            return line.removeprefix("license:").strip().strip("'\"")
    return ""


def square(value: Any, what: str) -> int:
    """A side in pixels, from one number or two equal ones.

    Raises:
        UnsupportedModel: The sides differ.
    """
    sides = value if isinstance(value, (list, tuple)) else [value]
    if len(set(sides)) != 1:
        raise UnsupportedModel(f"{what} is {value}; only squares are known here")
    return int(sides[0])


def with_end_token(config: ClipConfig, tokenizer: Tokenizer, *, highest: bool) -> ClipConfig:
    """The same model, reading a text at the end mark that the tokenizer writes.

    Args:
        config: What the model's files say.
        tokenizer: What closes texts.
        highest: The reference takes the token of the highest id, whatever it is (open_clip, and old files of
            `transformers`); then the end mark must have it.

    Raises:
        UnsupportedModel: The model would read texts somewhere else: all of them at their first token, for instance.
    """
    end = tokenizer.config.end_token_id
    if config.text.pooling != "end_token" or (config.text.end_token_id == end and not highest):
        return config
    if highest and tokenizer.vocabulary.highest_id() == end:
        return replace(config, text=replace(config.text, end_token_id=end))
    said = "the highest id" if highest else str(config.text.end_token_id)
    hint = "the vocabulary and the configuration belong to different models"
    raise UnsupportedModel(f"texts are read at the token {said}, the tokenizer closes them with {end}", hint=hint)


def blank_model(config: ClipConfig) -> Clip:
    """A model of the right shape, to be filled with tensors: without memory where that is possible."""
    import torch

    # A timm backbone may compute constants when it is built; on the meta device they would be lost.
    with torch.device("cpu" if config.vision.kind == "timm" else "meta"):
        return Clip(config)
