"""Prompt templates: the sentences that a label is put into before it is embedded.

Place in the river: words → `templates` → tokenizer. The named sets are data, in ``templates.json`` beside this file;
`TEMPLATE_SETS` reads it on first use.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nunbit.config import from_plain
from nunbit.errors import ConfigError

BLANK = "{}"
"""Where the label goes."""


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """Templates that are used together.

    Attributes:
        language: Of the labels that belong into them.
        source: Where they come from, with their license when it is not this project's.
        templates: Each with exactly one ``{}``.
    """

    language: str
    source: str
    templates: tuple[str, ...]


if TYPE_CHECKING:
    TEMPLATE_SETS: Mapping[str, TemplateSet]


def __getattr__(name: str) -> Any:
    """Read ``TEMPLATE_SETS`` when somebody asks for it: importing this module touches no file."""
    if name != "TEMPLATE_SETS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _read_sets()


@cache
def _read_sets() -> Mapping[str, TemplateSet]:
    path = Path(__file__).with_name("templates.json")
    plain = json.loads(path.read_text(encoding="utf-8"))
    return MappingProxyType({name: from_plain(TemplateSet, row, where=name) for name, row in plain.items()})


def get_templates(name_or_templates: str | Sequence[str]) -> tuple[str, ...]:
    """The templates of a named set, or the caller's own after a check.

    Args:
        name_or_templates: A name in `TEMPLATE_SETS`, a template, or several; each with exactly one ``{}``.

    Raises:
        ConfigError: No such set, no template, or one without exactly one ``{}``.

    Example:
        >>> get_templates("photo")
        ('a photo of a {}.',)
    """
    if isinstance(name_or_templates, str) and BLANK not in name_or_templates:
        return _named(name_or_templates)
    templates = (name_or_templates,) if isinstance(name_or_templates, str) else tuple(name_or_templates)
    if not templates:
        raise ConfigError("there are no templates", hint="for labels without a sentence around them write 'none'")
    for template in templates:
        if template.count(BLANK) != 1:
            raise ConfigError(
                f"the template {template!r} has {template.count(BLANK)} places for the label, expected one",
                hint="mark the place with {}, as in 'a photo of a {}.'",
            )
    return templates


def _named(name: str) -> tuple[str, ...]:
    known = _read_sets()
    if name in known:
        return known[name].templates
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known sets: {', '.join(known)}"
    raise ConfigError(f"there is no set of templates called {name!r}", hint=hint)


def fill(template: str, classname: str) -> str:
    """Put a label into a template; braces in the label itself mean nothing.

    Example:
        >>> fill("a photo of a {}.", "cat")
        'a photo of a cat.'
    """
    return template.replace(BLANK, classname)
