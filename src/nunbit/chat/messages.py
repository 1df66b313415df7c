"""What is said, with pictures in it, and who answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from PIL import Image

from nunbit.vlm.conversation import PICTURE, Role, Turn, check_turns

if TYPE_CHECKING:
    from nunbit.generate import GenerationConfig


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What one says.

    Attributes:
        role: Who.
        parts: Texts, and pictures in mode RGB, which only users show.
    """

    role: Role
    parts: tuple[str | Image.Image, ...]


class Talker(Protocol):
    """Answers questions about pictures."""

    name: str
    """What it was opened as."""

    def talk(self, messages: Sequence[Message], config: GenerationConfig) -> Generator[str, None, bool]:
        """Answer.

        Args:
            messages: The user and the assistant in turn, a question last; a system's words may stand in front.
            config: How the answer is drawn.

        Yields:
            Pieces of the answer.

        Returns:
            Whether it was cut after ``max_new_tokens``.

        Raises:
            UsageError: Another order of messages, or more of them than can be read.
            EndpointError: The endpoint does not answer, or with a refusal.
        """


@runtime_checkable
class TalksSideBySide(Protocol):
    """A talker that answers several questions in little more time than one."""

    def answer(self, asked: Sequence[Sequence[Message]], config: GenerationConfig) -> list[str]:
        """An answer for each conversation, as `Talker.talk` gives it alone."""


def answer_each(talker: Talker, asked: Sequence[Sequence[Message]], config: GenerationConfig) -> Iterator[str]:
    """Whole answers to several conversations: all at once where the talker can, else each when it is asked for.

    Raises:
        UsageError: As `Talker.talk`.
        EndpointError: As `Talker.talk`.
    """
    if isinstance(talker, TalksSideBySide):
        yield from talker.answer(asked, config)
    else:
        yield from ("".join(talker.talk(messages, config)) for messages in asked)


def split(messages: Sequence[Message]) -> tuple[list[Turn], list[Image.Image]]:
    """Messages → turns with places for pictures, and the pictures.

    Raises:
        UsageError: They are no conversation that ends with a question.
    """
    images = [part for message in messages for part in message.parts if isinstance(part, Image.Image)]
    turns = [
        Turn(message.role, tuple(part if isinstance(part, str) else PICTURE for part in message.parts))
        for message in messages
    ]
    check_turns(turns, len(images), answer=True)
    return turns, images
