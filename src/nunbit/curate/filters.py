"""The filters that look at one picture or one text, and the names of all of them, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from nunbit.curate.boilerplate import Boilerplate
from nunbit.curate.facts import PictureFacts
from nunbit.curate.languages import Languages
from nunbit.curate.rules import CurationConfig
from nunbit.curate.words import Phrases, mostly_cjk, read_words, split_words
from nunbit.errors import ConfigError

FILTERS = {
    "unreadable": "Rows without a picture or a text",
    "broken": "Pictures that cannot be decoded",
    "min_side": "Pictures that are too small",
    "max_side": "Pictures that are too large",
    "max_aspect": "Pictures that are too long and narrow",
    "blank": "Pictures of almost one color",
    "blurred": "Blurred pictures",
    "characters": "Texts that are too short or too long, in characters",
    "words": "Texts that are too short or too long, in words",
    "boilerplate": "Texts that say nothing",
    "banned_words": "Texts with banned words",
    "language": "Texts in other languages",
    "repeats": "Texts of too many different pictures",
    "same_bytes": "Files that are there twice",
    "same_pixels": "Pictures that are there twice, in other files",
    "near_hash": "Near duplicates, by how they look",
    "near_embedding": "Near duplicates, by their embeddings",
    "similarity": "Texts that do not fit their picture",
    "top_similarity": "Records of the least fitting texts",
    "balance": "Records of concepts that are frequent",
}
"""Name → what it takes out. Texts go by themselves; a record goes with the last of them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why something goes.

    Attributes:
        filter: One of ``FILTERS``.
        detail: What was found, for people.
        score: What was measured, where something was.
    """

    filter: str
    detail: str
    score: float | None = None


PictureFilter: TypeAlias = Callable[[PictureFacts, CurationConfig], Finding | None]


def too_small(facts: PictureFacts, config: CurationConfig) -> Finding | None:
    """Find a picture whose shorter side has too few pixels."""
    if facts.short_side >= config.min_side:
        return None
    return Finding("min_side", f"{facts.width} x {facts.height}", facts.short_side)


def too_large(facts: PictureFacts, config: CurationConfig) -> Finding | None:
    """Find a picture whose longer side has too many pixels."""
    longer = max(facts.width, facts.height)
    if not config.max_side or longer <= config.max_side:
        return None
    return Finding("max_side", f"{facts.width} x {facts.height}", longer)


def too_narrow(facts: PictureFacts, config: CurationConfig) -> Finding | None:
    """Find a picture that is much longer than wide."""
    if not config.max_aspect or facts.aspect <= config.max_aspect:
        return None
    return Finding("max_aspect", f"{facts.width} x {facts.height}", round(facts.aspect, 3))


def blank(facts: PictureFacts, config: CurationConfig) -> Finding | None:
    """Find a picture that is almost one color."""
    if facts.one_color <= config.max_one_color:
        return None
    return Finding("blank", f"{facts.one_color:.1%} of one color", facts.one_color)


def blurred(facts: PictureFacts, config: CurationConfig) -> Finding | None:
    """Find a picture without sharp edges."""
    if facts.sharpness >= config.min_sharpness:
        return None
    return Finding("blurred", f"sharpness {facts.sharpness:.1f}", facts.sharpness)


PICTURE_FILTERS: tuple[PictureFilter, ...] = (too_small, too_large, too_narrow, blank, blurred)


def judge_picture(facts: PictureFacts, config: CurationConfig) -> Finding | None:
    """The first reason why a picture goes, if there is one."""
    return next((found for judge in PICTURE_FILTERS if (found := judge(facts, config))), None)


class TextFilters:
    """The filters of one text, with the lists that they need.

    Args:
        config: The rules.

    Raises:
        ConfigError: A file of words cannot be read, or a language is not known.
    """

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._boilerplate = Boilerplate(config.boilerplate_texts) if config.boilerplate else None
        self._banned = Phrases([*config.banned_words, *words_of_file(config.banned_words_file)])
        self._languages = Languages(config.languages, config.language_doubt) if config.languages else None

    def judge(self, text: str) -> Finding | None:
        """The first reason why a text goes, if there is one."""
        return next(self._findings(text), None)

    def _findings(self, text: str) -> Iterator[Finding]:
        config, cjk = self._config, mostly_cjk(text)
        length, words = len(text.strip()), len(split_words(text))
        if length < (min(config.min_characters, 1) if cjk else config.min_characters):
            yield Finding("characters", f"{length} characters", length)
        if config.max_characters and length > config.max_characters:
            yield Finding("characters", f"{length:,} characters", length)
        if not cjk and (words < config.min_words or (config.max_words and words > config.max_words)):
            yield Finding("words", f"{words} words", words)
        if self._boilerplate and (kind := self._boilerplate.find(text)):
            yield Finding("boilerplate", kind)
        if len(self._banned) and (banned := self._banned.find(text)):
            yield Finding("banned_words", ", ".join(banned))
        if self._languages and (other := self._languages.judge(text)):
            yield Finding("language", other[0], round(other[1], 4))


def words_of_file(path: str) -> list[str]:
    """The words of a file, one a line; an empty path has none.

    Raises:
        ConfigError: It cannot be read.
    """
    if not path:
        return []
    try:
        return read_words(Path(path).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(
            f"the list of words {path} cannot be read: {reason}", hint="one word a line, UTF-8"
        ) from error
