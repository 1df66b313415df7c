"""Which language a text is in: told by its script where that is enough, else by py3langid.

py3langid knows 142 languages by byte n-grams. It is unsure of a few words: a short text is judged by its script alone,
and a longer one goes only when the languages that are allowed have, together, next to no probability.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from nunbit.errors import ConfigError, UsageError

_SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Hangul": ("\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff", ("ko",)),
    "kana": ("\u3040-\u30ff\u31f0-\u31ff", ("ja",)),
    "Han": ("\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff", ("zh", "ja", "yue", "wuu")),
    "Thai": ("\u0e01-\u0e5b", ("th",)),
    "Greek": ("\u0370-\u03ff\u1f00-\u1fff", ("el", "grc")),
    "Hebrew": ("\u0590-\u05ff", ("he", "hbo")),
    "Georgian": ("\u10a0-\u10ff", ("ka",)),
    "Armenian": ("\u0530-\u058f", ("hy",)),
}
"""Scripts that tell the language, or the few that it can be."""

_SHARED: dict[str, tuple[str, tuple[str, ...]]] = {
    "Cyrillic": (
        "\u0400-\u052f",
        ("ba", "be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "tg", "tt", "uk", "uz"),
    ),
    "Arabic": (
        "\u0600-\u06ff\u0750-\u077f",
        ("ar", "ary", "arz", "fa", "ks", "ku", "pa", "ps", "sd", "sdh", "ug", "ur"),
    ),
    "Devanagari": ("\u0900-\u097f", ("hi", "mr", "ne", "sa", "gom")),
}
"""Scripts of several languages: they only tell what a text is not in. Any other is left to py3langid altogether."""

_ENOUGH = 15  # letters; of two words of English, one text in eleven would be taken for another language

_FORMS = {name: re.compile(f"[{letters}]") for name, (letters, _) in (_SCRIPTS | _SHARED).items()}
_LETTER = re.compile(r"[^\W\d_]")


class Languages:
    """Tells whether texts are in one of some languages.

    Args:
        allowed: ISO 639-1 codes, such as ``ko`` and ``en``.
        doubt: A text goes when the allowed languages have less than this probability together.

    Raises:
        ConfigError: A code that is not known.
        UsageError: py3langid is needed and not installed.
    """

    def __init__(self, allowed: Sequence[str], doubt: float) -> None:
        self._allowed = frozenset(allowed)
        self._doubt = doubt
        by_script = {language for _, languages in _SCRIPTS.values() for language in languages}
        self._identifier = None if self._allowed <= by_script else _open_identifier()
        known = by_script | set(self._identifier.nb_classes if self._identifier else ())
        for code in allowed:
            if code not in known:
                close = difflib.get_close_matches(code, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "give codes of two letters, such as ko and en"
                raise ConfigError(f"there is no language {code!r}", hint=hint)

    def judge(self, text: str) -> tuple[str, float] | None:
        """Say what a text is in that is in none of the languages.

        Returns:
            Its language or script, and the probability of the allowed languages together; None for a text that may
            stay. One without letters may.
        """
        letters = len(_LETTER.findall(text))
        script = _script(text, letters)
        if script and not self._allowed.intersection((_SCRIPTS | _SHARED)[script][1]):
            return script, 0.0
        if script in _SCRIPTS or letters == 0:
            return None
        if self._identifier is None:
            return "another script", 0.0
        if letters < _ENOUGH:
            return None
        ranked = self._identifier.rank(text)
        probability = sum(float(share) for language, share in ranked if language in self._allowed)
        return (str(ranked[0][0]), probability) if probability < self._doubt else None


def _script(text: str, letters: int) -> str:
    """The script of at least half of the letters, if it tells the language; Han beside kana is Japanese."""
    counts = {name: len(form.findall(text)) for name, form in _FORMS.items()}
    if counts["kana"]:
        counts["kana"] += counts.pop("Han")
    name = max(counts, key=lambda name: counts[name])
    return name if counts[name] and 2 * counts[name] >= letters else ""


def _open_identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]
    except ImportError as error:
        hint = 'pip install "nunbit[curate]"'
        raise UsageError("telling languages apart needs py3langid, which is not installed", hint=hint) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
