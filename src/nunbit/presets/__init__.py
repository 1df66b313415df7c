"""Known dual encoders as data: the sizes of every architecture, and where the weights of every model are.

Place in the river: above ``clip``, below whatever loads a model by name. Two JSON files beside this module:
``architectures.json`` holds the plain form of a `nunbit.clip.ClipConfig` under each name; an entry may say which other
one it ``extends`` and what differs. ``models.json`` holds what `ModelPreset` lists. Nothing here imports torch but
`architecture`.
"""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nunbit.config import from_plain
from nunbit.errors import ConfigError

if TYPE_CHECKING:
    from nunbit.clip.config import ClipConfig

RESEARCH_LICENSES = ("apple-amlr",)
"""Licenses that forbid use in products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPreset:
    """One set of published weights.

    Attributes:
        name: What it is called here.
        architecture: Its name in ``architectures.json``.
        hub_id: The hub repository that holds the weights.
        license: Of the weights.
        zero_shot_imagenet: Published top-1 accuracy on ImageNet without training on it, in percent; None if there is
            no figure.
        source: Where that figure is published.
        languages: Codes of the languages that its texts may be in, or ``multilingual``.
    """

    name: str
    architecture: str
    hub_id: str
    license: str
    zero_shot_imagenet: float | None
    source: str
    languages: tuple[str, ...]

    @property
    def family(self) -> str:
        """``clip`` (softmax) or ``siglip`` (sigmoid)."""
        return "siglip" if _plain_architecture(self.architecture)["objective"] == "sigmoid" else "clip"

    @property
    def embedding_size(self) -> int:
        """E, the width of the shared space."""
        size: int = _plain_architecture(self.architecture)["text"]["projection_size"]
        return size


def list_presets() -> list[ModelPreset]:
    """Every known model, family by family, as in ``models.json``."""
    return [from_plain(ModelPreset, {"name": name, **rest}, where=name) for name, rest in _read("models").items()]


def find_preset(name: str) -> ModelPreset | None:
    """The model of that name, or None.

    Example:
        >>> find_preset("siglip2-b-16-224").hub_id
        'google/siglip2-base-patch16-224'
    """
    return next((preset for preset in list_presets() if preset.name == name), None)


def list_architectures() -> list[str]:
    """The names that `architecture` takes."""
    return list(_read("architectures"))


def architecture(name: str) -> ClipConfig:
    """The configuration of a known architecture; imports torch.

    Args:
        name: As in ``architectures.json``: open_clip's name, or for SigLIP the hub's.

    Raises:
        ConfigError: There is none of that name.

    Example:
        >>> architecture("ViT-B-32").embedding_size
        512
    """
    from nunbit.clip.config import ClipConfig

    return from_plain(ClipConfig, _plain_architecture(name), where=name)


def _plain_architecture(name: str) -> dict[str, Any]:
    known = _read("architectures")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known ones: {', '.join(known)}"
        raise ConfigError(f"there is no architecture called {name!r}", hint=hint)
    own = {part: value for part, value in known[name].items() if part != "extends"}
    if "extends" not in known[name]:
        return own
    base = known[known[name]["extends"]]
    return base | {part: {**base[part], **changes} for part, changes in own.items()}


@functools.cache
def _read(name: str) -> dict[str, dict[str, Any]]:
    text = files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = json.loads(text)
    return content
