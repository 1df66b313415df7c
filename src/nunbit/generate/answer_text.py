"""Tokens → pieces of text, each as soon as nothing that follows can change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nunbit.language_model import LanguageTokenizer
    from nunbit.vlm.config import ChatFormat

_UNFINISHED = "�"  # what a tokenizer gives for the first bytes of a character whose last are still to come


_FAR = 16  # tokens; what some tokenizers write depends on a few that stand before


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


@dataclass(frozen=True, slots=True)
class _Settled:
    """What the first ``tokens`` of an answer say; the next are decoded together with those behind ``context``."""

    text: str = ""
    context: int = 0
    tokens: int = 0


class AnswerText:
    """One answer, while it is said.

    Args:
        tokenizer: Of the model that says it.
        endings: What ends it.
        limit: It is cut after so many tokens.

    Attributes:
        done: It has ended.
        cut: It has ended before its end: at the limit, or because nothing followed.
    """

    def __init__(self, tokenizer: LanguageTokenizer, endings: Endings, limit: int) -> None:
        self._tokenizer, self._endings, self._limit = tokenizer, endings, limit
        self._ids: list[int] = []
        self._settled = _Settled()
        self._given = 0
        self.done = self.cut = False

    def add(self, token: int) -> str:
        """Take the next token.

        Returns:
            The text that is certain now and was not before; often none.
        """
        if token in self._endings.ids:
            return self._finish()
        self._ids.append(token)
        mark = self._endings.mark
        if mark and tuple(self._ids[-len(mark) :]) == mark:
            del self._ids[-len(mark) :]
            return self._finish()
        text = self._text(len(self._ids) - _overlap(self._ids, mark))
        if (end := self._stop_in(text)) is not None:
            self.done = True
            return self._new(text[:end])
        if len(self._ids) == self._limit:
            return self.finish()
        text = text.rstrip(_UNFINISHED)
        return self._new(text[: len(text) - max((_overlap(text, stop) for stop in self._endings.stop), default=0)])

    def finish(self) -> str:
        """Cut it: nothing follows.

        Returns:
            The text that was held back, without a character of which only a part was said.
        """
        self.cut = self.cut or not self.done
        return self._finish()

    def _finish(self) -> str:
        if self.done:
            return ""
        self.done = True
        text = self._text(len(self._ids))
        end = self._stop_in(text)
        return self._new(text.rstrip(_UNFINISHED) if self.cut and end is None else text[:end])

    def _text(self, tokens: int) -> str:
        """Of the first tokens. Those long settled are not decoded again, or a long answer would take ever longer."""
        settled = self._settled
        known = self._decode(settled.context, settled.tokens)
        text = settled.text + self._decode(settled.context, tokens)[len(known) :]
        if tokens - settled.tokens >= _FAR and not text.endswith(_UNFINISHED):
            context = settled.tokens if len(text) > len(settled.text) else settled.context  # marks are no context
            self._settled = _Settled(text, context, tokens)
        return text

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)

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
