"""A model folder of this project, as a talker."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nunbit.chat.messages import Message, split
from nunbit.generate import GenerationConfig, Generator
from nunbit.vlm.folder import CONFIG, read_vlm

if TYPE_CHECKING:
    from nunbit.vlm.model import VisionLanguageModel


class LocalTalker:
    """A vision-language model of this machine.

    Args:
        name: What it was opened as.
        model: Answers.
    """

    def __init__(self, name: str, model: VisionLanguageModel) -> None:
        self.name = name
        self._generator = Generator(model)

    def talk(self, messages: Sequence[Message], config: GenerationConfig) -> abc.Generator[str, None, bool]:
        """As `Talker.talk`."""
        turns, images = split(messages)
        return (yield from self._generator.stream(self._generator.reader.read(turns, images, answer=True), config))


def is_local(spec: str) -> bool:
    """Whether this is a model folder of this project."""
    return (Path(spec) / CONFIG).is_file()


def open_local(spec: str) -> LocalTalker:
    """Open a model folder of this project.

    Raises:
        ModelError: Its files are not what they should be.
    """
    return LocalTalker(spec, read_vlm(Path(spec)))
