"""Conversations → token ids and labels, by construction.

Every piece of text is turned into ids once and by itself, and carries its labels with it; nothing is searched for in a
text that was put together. What users and data say can hold no marks: ``<|im_end|>`` in a question is eight characters
and ends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from nunbit.errors import UsageError
from nunbit.language_model.model import IGNORED
from nunbit.vlm.model import IMAGE_TOKEN_ID

if TYPE_CHECKING:
    from nunbit.language_model import LanguageTokenizer
    from nunbit.vlm.config import ChatFormat, PictureMarks

Role: TypeAlias = Literal["system", "user", "assistant"]


class Place(Enum):
    """Where a picture stands among words."""

    PICTURE = "picture"


PICTURE = Place.PICTURE


@dataclass(frozen=True, slots=True)
class Turn:
    """What one says.

    Attributes:
        role: Who.
        parts: Texts, and `PICTURE` where a picture stands.
    """

    role: Role
    parts: tuple[str | Place, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a picture is looked at.

    Attributes:
        rows: Of tiles; 0 where the picture is looked at whole alone.
        columns: Of tiles.
        tokens: Q, of each tile and of the whole.
    """

    rows: int
    columns: int
    tokens: int

    @property
    def looks(self) -> int:
        """How many times the eye looks: at each tile and at the whole."""
        return self.rows * self.columns + 1


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as a model reads it.

    Attributes:
        input_ids: T ids, `IMAGE_TOKEN_ID` where tokens of pictures go.
        labels: T, -100 where nothing is asked.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def asked(self) -> int:
        """Tokens that are learned."""
        return sum(label != IGNORED for label in self.labels[1:])


class ConversationEncoder:
    """Writes conversations down as one model reads them.

    Args:
        chat: How.
        marks: Texts around pictures.
        tokenizer: The language model's.
    """

    def __init__(self, chat: ChatFormat, marks: PictureMarks, tokenizer: LanguageTokenizer) -> None:
        self._chat, self._marks, self._tokenizer = chat, marks, tokenizer

    def encode(self, turns: Sequence[Turn], layouts: Sequence[Layout], *, answer: bool = False) -> Encoded:
        """Write down a conversation.

        Args:
            turns: The user and the assistant in turn; a system's words may stand in front.
            layouts: Of each picture, in the order of their places.
            answer: The conversation ends with a question, and the assistant is to speak.

        Raises:
            UsageError: Another order of turns, or another number of pictures than of places.
        """
        check_turns(turns, len(layouts), answer=answer)
        waiting = iter(layouts)
        pieces = _Pieces(self._tokenizer)
        if self._chat.begin_token and self._tokenizer.bos_token_id is not None:
            pieces.add([self._tokenizer.bos_token_id])
        pieces.mark(self._chat.opening)
        if turns[0].role != "system" and self._chat.system:
            turns = [Turn("system", (self._chat.system,)), *turns]
        for turn in turns:
            self._add(turn, pieces, waiting)
        if answer:
            pieces.mark(self._chat.answer_before)
        return Encoded(pieces.input_ids, pieces.labels)

    def instruction(self, turns: Sequence[Turn]) -> str:
        """The words of the last question, which a Q-Former reads beside the pictures."""
        asked = [turn for turn in turns if turn.role == "user"]
        return "".join(part for part in asked[-1].parts if isinstance(part, str)).strip() if asked else ""

    def _add(self, turn: Turn, pieces: _Pieces, layouts: Iterable[Layout]) -> None:
        chat = self._chat
        if turn.role == "assistant":
            pieces.mark(chat.answer_before)
            pieces.say(chat.answer_lead + _text(turn), learn=True)
            pieces.mark(chat.answer_after, learn=True)
            return
        if turn.role == "system":
            pieces.mark(chat.system_before)
            pieces.say(_text(turn))
            pieces.mark(chat.system_after)
            return
        pieces.mark(chat.user_before)
        for number, part in enumerate(turn.parts):
            if isinstance(part, str):
                pieces.say(part if number else chat.user_lead + part)
            else:
                self._look(next(iter(layouts)), pieces)
                pieces.mark(chat.picture_after)
        pieces.mark(chat.user_after)

    def _look(self, layout: Layout, pieces: _Pieces) -> None:
        marks, places = self._marks, [IMAGE_TOKEN_ID] * layout.tokens
        for row in range(1, layout.rows + 1):
            for column in range(1, layout.columns + 1):
                pieces.mark(marks.tile.format(row=row, column=column))
                pieces.add(places)
            pieces.mark(marks.row_end)
        tiled = layout.rows > 0 and marks.overview is not None
        pieces.mark(marks.overview if tiled and marks.overview is not None else marks.before)
        pieces.add(places)
        pieces.mark(marks.after)


class _Pieces:
    """Ids and labels that grow together."""

    def __init__(self, tokenizer: LanguageTokenizer) -> None:
        self._tokenizer = tokenizer
        self.input_ids: list[int] = []
        self.labels: list[int] = []

    def add(self, ids: Sequence[int], *, learn: bool = False) -> None:
        self.input_ids += ids
        self.labels += ids if learn else [IGNORED] * len(ids)

    def mark(self, text: str, *, learn: bool = False) -> None:
        """A text of the format, in which marks are marks."""
        if text:
            self.add(self._tokenizer.encode(text, add_special_tokens=False), learn=learn)

    def say(self, text: str, *, learn: bool = False) -> None:
        """A text of somebody, in which they are letters."""
        if text:
            self.add(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True), learn=learn)


def check_turns(turns: Sequence[Turn], pictures: int, *, answer: bool) -> None:
    """Refuse what is no conversation.

    Args:
        turns: As `ConversationEncoder.encode` takes them.
        pictures: How many there are.
        answer: It ends with a question.

    Raises:
        UsageError: As there.
    """
    spoken = list(turns[1:] if turns and turns[0].role == "system" else turns)
    order = [turn.role for turn in spoken]
    expected = [("user", "assistant")[number % 2] for number in range(len(order))]
    if not order or order != expected:
        raise UsageError(
            f"the turns are {', '.join(order) or 'none'}", hint="user and assistant speak in turn, the user first"
        )
    if answer != (order[-1] == "user"):
        what = "a question" if answer else "an answer"
        raise UsageError(f"the last turn is the {order[-1]}'s, expected {what}")
    places = [turn.role for turn in turns for part in turn.parts if part is PICTURE]
    if any(role != "user" for role in places):
        raise UsageError("a picture stands in what the assistant or the system says", hint="only users show pictures")
    if len(places) != pictures:
        raise UsageError(f"the words have {len(places)} places for pictures, and there are {pictures}")


def _text(turn: Turn) -> str:
    return "".join(part for part in turn.parts if isinstance(part, str))
