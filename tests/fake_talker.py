"""A talker that does as it is told."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence

from nunbit.chat import Message
from nunbit.generate import GenerationConfig


class FakeTalker:
    """Says a word whenever it is allowed one, and notes what happens to it.

    Args:
        allowed: So many words it may say at once.
    """

    name = "/models/fake"

    def __init__(self, allowed: int = 0) -> None:
        self.allowed = threading.Semaphore(allowed)
        self.conversations: list[Sequence[Message]] = []
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.at_once = self.most_at_once = 0

    def talk(self, messages: Sequence[Message], config: GenerationConfig) -> Generator[str, None, bool]:
        self.conversations.append(messages)
        words = str(messages[-1].parts[-1])
        self.asked.append(words)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for number in range(config.max_new_tokens):
                assert self.allowed.acquire(timeout=60)
                yield f"{words}{number} "
        finally:
            self.at_once -= 1
            self.ended.append(words)
        return True
