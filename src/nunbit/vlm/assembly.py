"""Presets, and parts put together with random weights or with those of parts that are there.

A preset is a file: ``model`` holds a `nunbit.vlm.config.VlmConfig`, ``tiny`` what differs in a model of the same shape
that trains in a second. ``extends`` names a preset that is changed; a mapping with ``replace: true`` is taken as it
stands instead of being merged.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import nn

from nunbit.config import from_plain, override, read_yaml, to_plain
from nunbit.errors import ConfigError
from nunbit.language_model import LanguageModel, make_language_model
from nunbit.vlm.config import VlmConfig
from nunbit.vlm.model import VisionLanguageModel

if TYPE_CHECKING:
    from nunbit.language_model import LanguageTokenizer

_FOLDER = files("nunbit.vlm") / "presets"


def list_presets() -> list[str]:
    """Names of all presets, by the alphabet."""
    return sorted(Path(entry.name).stem for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def read_preset(name: str, *, tiny: bool = False, overrides: Sequence[str] = ()) -> VlmConfig:
    """A preset, or a file of your own in the form of one.

    Args:
        name: One of `list_presets`, or the path of a file that ends in ``.yaml``.
        tiny: The same shape in small.
        overrides: ``a.b=value`` each: settings that replace those of the preset, the value as YAML writes it.

    Raises:
        ConfigError: There is none of that name; settings that are not known, or that do not fit.
    """
    content = _read(name)
    if "model" not in content or (tiny and "tiny" not in content):
        raise ConfigError(f"{name} has no {'tiny' if 'model' in content else 'model'}", hint="or name one in extends")
    model = _merge(content["model"], content["tiny"]) if tiny else content["model"]
    override(model, overrides)
    return from_plain(VlmConfig, model, where=name)


def build(config: VlmConfig, tokenizer: LanguageTokenizer | None = None) -> VisionLanguageModel:
    """A model with random weights (but for the starter's eye, which has its own).

    Args:
        config: What it is.
        tokenizer: Of the language model; it is given the marks that it does not have.
    """
    settings = config.language_model
    if tokenizer is not None:
        add_marks(tokenizer, config)
        settings = {**settings, "vocab_size": max(int(settings["vocab_size"]), len(tokenizer))}
    return VisionLanguageModel(replace(config, language_model=settings), make_language_model(settings, tokenizer))


def assemble(config: VlmConfig, language_model: LanguageModel) -> VisionLanguageModel:
    """A model around a language model that is there; eye (but for the starter's) and projector have random weights.

    Args:
        config: What it is; ``language_model`` in it follows the one that is given.
        language_model: Its tokenizer is given the marks that it does not have, and it gets rows for them.
    """
    add_marks(language_model.tokenizer, config)
    if len(language_model.tokenizer) > language_model.vocab_size:
        language_model.model.resize_token_embeddings(len(language_model.tokenizer), mean_resizing=False)
    settings = language_model.model.config.to_diff_dict()
    model = VisionLanguageModel(replace(config, language_model=settings), language_model)
    _begin_as_words(model)
    return model


@torch.no_grad()
def _begin_as_words(model: VisionLanguageModel) -> None:
    """Let tokens of pictures begin about as long as those of words: much longer ones drown what blocks add to them."""
    last = [part for part in model.projector.modules() if isinstance(part, nn.Linear)][-1]
    spread = model.language_model.model.get_input_embeddings().weight.std()
    nn.init.normal_(last.weight, std=float(spread) * last.in_features**-0.5)
    if last.bias is not None:
        nn.init.zeros_(last.bias)


def add_marks(tokenizer: LanguageTokenizer, config: VlmConfig) -> None:
    """Give a tokenizer the marks of a model, and see to it that they are letters in what people say.

    Args:
        tokenizer: Changed in place. Of its own added tokens those that stand in the format become special: others are
            cut out of any text, so that a question could end the user's turn.
        config: The model.
    """
    their: Any = tokenizer
    chat, marks = to_plain(config.chat), to_plain(config.marks)
    written = "\n".join(text for text in (*chat.values(), *marks.values()) if isinstance(text, str))
    used = [name for name in their.get_added_vocab() if name in written]
    their.add_tokens(list(dict.fromkeys([*used, *config.token_names()])), special_tokens=True)


def _read(name: str) -> dict[str, Any]:
    if name.endswith((".yaml", ".yml")):
        content = read_yaml(Path(name))
        if unknown := sorted(content.keys() - {"extends", "model", "tiny"}):
            raise ConfigError(f"{name}: there is no setting called {unknown[0]!r}", hint="known: extends, model, tiny")
        return _extended(content)
    if name not in list_presets():
        close = difflib.get_close_matches(name, list_presets(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(list_presets())}"
        raise ConfigError(f"there is no preset {name!r}", hint=hint)
    return _extended(yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def _extended(content: dict[str, Any]) -> dict[str, Any]:
    below = content.pop("extends", None)
    return content if below is None else _merge(_read(below), content)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        inner = merged.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping) and not _replaces(value, inner):
            merged[name] = _merge(inner, value)
        else:
            merged[name] = _without_marks(value)
    return merged


def _replaces(value: Mapping[str, Any], inner: Mapping[str, Any]) -> bool:
    """It says so, or describes something of another kind."""
    return bool(value.get("replace")) or value.get("kind", inner.get("kind")) != inner.get("kind")


def _without_marks(value: Any) -> Any:
    return {name: inner for name, inner in value.items() if name != "replace"} if isinstance(value, Mapping) else value
