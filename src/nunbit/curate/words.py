"""Words and phrases in texts: whole words where words are written apart, anything within where they are not.

Particles stand at the end of Korean words, and Chinese and Japanese are written without spaces: there a phrase is found
wherever its characters are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

CJK = "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
"""Hangul, kana and Han characters, as a range of a regular expression."""

_CJK = re.compile(f"[{CJK}]")
_TOKEN = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+(?:['’][^\W_{CJK}]+)*")
_LETTER = re.compile(r"[^\W\d_]")


def plain(text: str) -> str:
    """The text as it is compared: NFKC, no upper case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_words(text: str) -> list[str]:
    """The words of a text, plain; a run of Hangul, kana or Han characters is one."""
    return _TOKEN.findall(plain(text))


def mostly_cjk(text: str) -> bool:
    """Tell whether at least half of the letters are Hangul, kana or Han."""
    letters = len(_LETTER.findall(text))
    return letters > 0 and 2 * len(_CJK.findall(text)) >= letters


class Phrases:
    """Finds phrases in texts, in time that does not grow with their number.

    Args:
        phrases: Words or several of them; empty ones are left out.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._spoken: dict[tuple[str, ...], str] = {}
        self._within: dict[str, str] = {}
        for phrase in phrases:
            words = tuple(split_words(phrase))
            if _CJK.search(phrase) or not words:
                self._within.setdefault(plain(phrase), phrase)
            else:
                self._spoken.setdefault(words, phrase)
        self._within.pop("", None)
        self._most_words = max(map(len, self._spoken), default=0)
        self._lengths = sorted({len(phrase) for phrase in self._within})

    def __len__(self) -> int:
        return len(self._spoken) + len(self._within)

    def find(self, text: str) -> list[str]:
        """The phrases in a text, each once, as they were given."""
        words, bare = split_words(text), plain(text) if self._within else ""
        found = dict[str, None]()
        for at in range(len(words)):
            for size in range(1, min(self._most_words, len(words) - at) + 1):
                if (phrase := self._spoken.get(tuple(words[at : at + size]))) is not None:
                    found[phrase] = None
        for size in self._lengths:
            for at in range(len(bare) - size + 1):
                if (phrase := self._within.get(bare[at : at + size])) is not None:
                    found[phrase] = None
        return list(found)


def read_words(lines: Iterable[str]) -> list[str]:
    """One word or phrase a line; empty lines and those that begin with ``#`` say nothing."""
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
