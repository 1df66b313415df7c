"""The rules of a curation: one value for each filter, each of which can be turned off."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nunbit.config import from_plain, read_config, to_plain
from nunbit.errors import ConfigError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class CurationConfig:
    """Which records stay.

    Attributes:
        min_side: Least pixels of the shorter side; 0 is off.
        max_side: Most pixels of the longer side; 0 is off.
        max_aspect: Most that the longer side may be of the shorter; 0 is off.
        max_one_color: Largest share in [0, 1] of pixels of nearly one color; above, a picture is blank; 1 is off.
        min_sharpness: Least variance of the Laplacian, with the longer side scaled down to 256 pixels; 0 is off.
        min_characters: Least characters of a text; 0 is off. Of one that is mostly Hangul, kana or Han, one suffices.
        max_characters: Most characters of a text; 0 is off.
        min_words: Least words of a text; 0 is off. Texts of mostly Hangul, kana or Han have no count of words.
        max_words: Most words of a text; 0 is off.
        boilerplate: Whether file names, addresses, dates, numbers and stock phrases alone go.
        boilerplate_texts: Further texts that say nothing.
        banned_words: Words and phrases; a text with one goes. Whole words, but for Hangul, kana and Han.
        banned_words_file: A file with more of them, one a line; empty is none.
        languages: Codes of the languages that texts may be in (``ko``, ``en``); none is off.
        language_doubt: Probability of those languages together below which a text is in another one.
        max_repeats: Most different pictures that may have the same text; 0 is off.
        exact_duplicates: Whether of pictures with the same bytes or the same pixels one stays.
        merge_texts: Whether that one is given the texts of the others.
        near_distance: Bits, at most 16, in which the hashes of near duplicates differ; -1 is off.
        near_similarity: Least cosine of the embeddings of near duplicates, where there is an encoder; 0 is off.
        min_similarity: Least cosine of a picture and a text; -1 is off. Needs an encoder.
        top_similarity: Share in (0, 1] of the records that stays, those of the most similar text; 1 is off.
        balance_cap: How many records a concept lets stay; 0 is off. See `nunbit.curate.balance`.
        balance_words: The concepts: words and phrases; none for the words that are frequent.
        balance_words_file: A file with more of them, one a line; empty is none.
        balance_min_count: In how many records a word is frequent; at most ``balance_cap``.
        balance_others: Whether records without any concept stay.
        split: Shares of train, validation and test, or of the first two; none is off.
        split_distance: As ``near_distance``, for pictures that must be on one side; -1 is off.
        split_texts: Whether records with an identical text must be on one side.
        seed: Decides which records of a frequent concept stay, and the sides.
    """

    min_side: int = 32
    max_side: int = 0
    max_aspect: float = 8.0
    max_one_color: float = 0.99
    min_sharpness: float = 5.0
    min_characters: int = 3
    max_characters: int = 2000
    min_words: int = 0
    max_words: int = 0
    boilerplate: bool = True
    boilerplate_texts: tuple[str, ...] = ()
    banned_words: tuple[str, ...] = ()
    banned_words_file: str = ""
    languages: tuple[str, ...] = ()
    language_doubt: float = 0.02
    max_repeats: int = 0
    exact_duplicates: bool = True
    merge_texts: bool = True
    near_distance: int = 8
    near_similarity: float = 0.96
    min_similarity: float = -1.0
    top_similarity: float = 1.0
    balance_cap: int = 0
    balance_words: tuple[str, ...] = ()
    balance_words_file: str = ""
    balance_min_count: int = 20
    balance_others: bool = True
    split: tuple[float, ...] = ()
    split_distance: int = 12
    split_texts: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} is {value}", hint=f"expected {least} to {most}")
        frequent = self.balance_cap and not self.balance_words and not self.balance_words_file
        if frequent and not 1 <= self.balance_min_count <= self.balance_cap:
            hint = f"expected 1 to balance_cap, which is {self.balance_cap}"
            raise ConfigError(f"balance_min_count is {self.balance_min_count}", hint=hint)
        if self.split and (len(self.split) not in (2, 3) or min(self.split) <= 0 or abs(sum(self.split) - 1) > 1e-6):
            shown = ",".join(map(str, self.split))
            raise ConfigError(f"split is {shown}", hint="two or three shares that add up to 1, such as 0.9,0.05,0.05")

    @property
    def measures_similarity(self) -> bool:
        """Whether texts are compared with their pictures."""
        return self.min_similarity > -1 or self.top_similarity < 1


_ANY = 1 << 40
_RANGES: dict[str, tuple[float, float]] = {
    "min_side": (0, _ANY),
    "max_side": (0, _ANY),
    "max_aspect": (0, _ANY),
    "max_one_color": (0, 1),
    "min_sharpness": (0, _ANY),
    "min_characters": (0, _ANY),
    "max_characters": (0, _ANY),
    "min_words": (0, _ANY),
    "max_words": (0, _ANY),
    "language_doubt": (0, 1),
    "max_repeats": (0, _ANY),
    "near_distance": (-1, 16),
    "near_similarity": (0, 1),
    "min_similarity": (-1, 1),
    "top_similarity": (1e-9, 1),
    "balance_cap": (0, _ANY),
    "split_distance": (-1, 16),
}


def rule_lines() -> list[str]:
    """Each rule with its default and meaning, for people."""
    meanings = dict(re.findall(r"^ {8}(\w+): (.*)$", CurationConfig.__doc__ or "", re.MULTILINE))
    defaults = to_plain(CurationConfig())
    return [f"{name:20} {json.dumps(default):>8}  {meanings[name]}" for name, default in defaults.items()]


def make_rules(
    file: Path | None = None, changes: Sequence[str] = (), *, split: str = "", seed: int | None = None
) -> CurationConfig:
    """The rules of a file with changes.

    Args:
        file: YAML or JSON: the names of `CurationConfig`, those that it changes.
        changes: Each ``NAME=VALUE``; several values are separated by commas.
        split: As a change of ``split``; empty changes nothing.
        seed: As a change of ``seed``.

    Raises:
        ConfigError: No such rule, with the one that was probably meant, or a value that is none.
    """
    values = to_plain(read_config(CurationConfig, file) if file else CurationConfig())
    for change in (*changes, *([f"split={split}"] if split else []), *([] if seed is None else [f"seed={seed}"])):
        name, equals, text = change.partition("=")
        name = name.strip()
        if name not in values:
            close = difflib.get_close_matches(name, values, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(values)}"
            raise ConfigError(f"there is no rule {name!r}", hint=hint)
        if not equals:
            raise ConfigError(f"{name} is given no value", hint=f"write {name}=VALUE")
        values[name] = _value(name, text.strip())
    return from_plain(CurationConfig, values, where="rules")


def _value(name: str, text: str) -> Any:
    """What a change says, as the kind of the rule's default."""
    default = next(field.default for field in fields(CurationConfig) if field.name == name)
    if isinstance(default, str):
        return text
    if isinstance(default, tuple):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [_number(part) for part in parts] if name == "split" else parts
    return _number(text)


def _number(text: str) -> Any:
    """A number or ``true`` or ``false``; anything else stays a text, which `from_plain` refuses."""
    try:
        return json.loads(text.lower())
    except ValueError:
        return text
