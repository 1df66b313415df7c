"""Tokens → pieces of text, each as soon as nothing that follows can change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nunbit.language_model import LanguageTokenizer
    from nunbit.vlm.config import ChatFormat

_UNFINISHED = "�"  # what a tokenizer gives for the first bytes of a character whose last are still to come


@dataclass(frozen=True, slots=True)
class Endings:
    """What ends an answer, and is no part of it.

    Attributes:
        ids: Tokens.
        mark: A sequence of tokens; () where there is none.
        stop: Texts.
        lead: The characters that every answer begins with; they are no part of it either.
    """

    ids: frozenset[int] = frozenset()
    mark: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    lead: str = ""


def endings_of(chat: ChatFormat, tokenizer: LanguageTokenizer, stop: Sequence[str]) -> Endings:
    """What ends an answer of a model.

    Args:
        chat: Its format.
        tokenizer: Its tokenizer.
        stop: Further texts.
    """
    mark = chat.answer_after
    ids = tuple(tokenizer.encode(mark, add_special_tokens=False)) if mark else ()
    letters = ids and ids == tuple(tokenizer.encode(mark, add_special_tokens=False, split_special_tokens=True))
    if letters:  # a text like "###" can also come in other pieces than those that were learned
        stop = (*stop, mark)
    end = tokenizer.eos_token_id
    return Endings(frozenset(() if end is None else (end,)), ids, tuple(stop), chat.answer_lead)


class AnswerText:
    """One answer, while it is said.

    Args:
        tokenizer: Of the model that says it.
        endings: What ends it.

    Attributes:
        done: It has ended.
    """

    def __init__(self, tokenizer: LanguageTokenizer, endings: Endings) -> None:
        self._tokenizer, self._endings = tokenizer, endings
        self._ids: list[int] = []
        self._given = 0
        self.done = False

    def add(self, token: int) -> str:
        """Take the next token.

        Returns:
            The text that is certain now and was not before; often none.
        """
        if token in self._endings.ids:
            return self.finish()
        self._ids.append(token)
        mark = self._endings.mark
        if mark and tuple(self._ids[-len(mark) :]) == mark:
            del self._ids[-len(mark) :]
            return self.finish()
        text = self._text(len(self._ids) - _overlap(self._ids, mark))
        if (end := self._stop_in(text)) is not None:
            self.done = True
            return self._new(text[:end])
        text = text.rstrip(_UNFINISHED)
        return self._new(text[: len(text) - max((_overlap(text, stop) for stop in self._endings.stop), default=0)])

    def finish(self) -> str:
        """Take it that nothing follows.

        Returns:
            The text that was held back.
        """
        if self.done:
            return ""
        self.done = True
        text = self._text(len(self._ids))
        end = self._stop_in(text)
        return self._new(text[:end])

    def _text(self, tokens: int) -> str:
        return self._tokenizer.decode(self._ids[:tokens], skip_special_tokens=True)

    def _stop_in(self, text: str) -> int | None:
        places = [text.find(stop) for stop in self._endings.stop]
        return min((place for place in places if place >= 0), default=None)

    def _new(self, text: str) -> str:
        """What of a certain text was not given, without the lead."""
        lead = self._endings.lead
        if not self.done and len(text) < len(lead) and lead.startswith(text):
            return ""
        start = max(self._given, len(lead) if lead and text.startswith(lead) else 0)
        self._given = max(start, len(text))
        return text[start:]


def _overlap(said: Sequence[object], ending: Sequence[object]) -> int:
    """How much of the end of what was said is the beginning of an ending, but not all of it."""
    longest = min(len(said), len(ending) - 1)
    return next((size for size in range(longest, 0, -1) if list(said[-size:]) == list(ending[:size])), 0)
