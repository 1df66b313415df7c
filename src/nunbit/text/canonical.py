"""What each model family does to a text before cutting it into tokens.

A model that was trained on lower-case text without punctuation answers worse, silently, when it gets anything else.
"""

from __future__ import annotations

import html
import string
from collections.abc import Callable
from typing import Literal, TypeAlias

Canonicalization: TypeAlias = Literal[
    "none", "nfc_lower", "lower", "words", "cased_words", "repair", "repair_lower", "repair_words"
]
"""How a text is prepared.

``none``: not at all. ``nfc_lower``: Unicode NFC, runs of white space become one space, lower case (CLIP in
`transformers`). ``lower``: lower case (SigLIP 2). ``words``: lower case, ASCII punctuation removed, white space folded
(SigLIP). ``cased_words``: the same without lower case. ``repair``, ``repair_lower``, ``repair_words``: broken encodings
and HTML entities are repaired first, then white space is folded, and for the last two what their names say (open_clip).
``nfc_lower`` and ``lower`` are done by the tokenizer library itself, character by character, as its models do.
"""

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonicalizer(name: Canonicalization) -> Callable[[str], str] | None:
    """The function of that name; None where nothing is to be done to the string beforehand."""
    return {
        "none": None,
        "nfc_lower": None,
        "lower": None,
        "words": lambda text: _words(text.lower()),
        "cased_words": _words,
        "repair": lambda text: _fold(_repair(text)),
        "repair_lower": lambda text: _fold(_repair(text)).lower(),
        "repair_words": lambda text: _words(_repair(text).lower().replace("_", " ")),
    }[name]


def _words(text: str) -> str:
    return _fold(text.translate(_WITHOUT_PUNCTUATION))


def _fold(text: str) -> str:
    return " ".join(text.split())


def _repair(text: str) -> str:
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()
