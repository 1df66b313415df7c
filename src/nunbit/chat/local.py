"""A model folder of this project, as a talker."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nunbit.chat.messages import Message, split
from nunbit.generate import GenerationConfig, Generator
from nunbit.generate.openvino_engine import choose_engine
from nunbit.memory import give_back
from nunbit.vlm.folder import CONFIG
from nunbit.vlm.loading import find_vlm, load_vlm

if TYPE_CHECKING:
    from nunbit.vlm.model import VisionLanguageModel


class LocalTalker:
    """A vision-language model of this machine.

    Args:
        name: What it was opened as.
        model: Answers.
        engine: What computes it, as `nunbit.generate.openvino_engine.choose_engine` takes it.
        tell: Told in a few words what takes long.
    """

    def __init__(
        self,
        name: str,
        model: VisionLanguageModel,
        engine: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._generator = Generator(model, engine=choose_engine(model, engine, tell))
        give_back()

    def talk(self, messages: Sequence[Message], config: GenerationConfig) -> abc.Generator[str, None, bool]:
        """As `Talker.talk`."""
        turns, images = split(messages)
        return (yield from self._generator.stream(self._generator.reader.read(turns, images, answer=True), config))

    def answer(self, asked: Sequence[Sequence[Message]], config: GenerationConfig) -> list[str]:
        """As `TalksSideBySide.answer`."""
        reader = self._generator.reader
        return self._generator.answer([reader.read(*split(one), answer=True) for one in asked], config)


def is_local(spec: str) -> bool:
    """Whether this is a model folder of this project."""
    return (find_vlm(spec) / CONFIG).is_file()


def open_local(spec: str, engine: str | None = None, tell: Callable[[str], None] = lambda _: None) -> LocalTalker:
    """Open a model folder of this project.

    Raises:
        ModelError: Its files are not what they should be.
        UsageError: There is no such engine.
    """
    return LocalTalker(spec, load_vlm(spec), engine, tell)
