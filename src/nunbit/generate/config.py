"""How an answer is drawn, as data."""

from __future__ import annotations

from dataclasses import dataclass

from nunbit.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """How an answer is drawn.

    Attributes:
        max_new_tokens: It is cut after so many.
        temperature: 0 takes the likeliest token each time; 1 draws by the model's own probabilities, less is bolder.
        top_p: Drawn from the likeliest tokens alone, that together have this probability.
        seed: The same seed gives the same answer; of a batch every answer is drawn with it anew.
        stop: An answer ends in front of any of these texts.

    Raises:
        ConfigError: A value out of its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}, expected at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}, expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected more than 0 and at most 1")
        if "" in self.stop:
            raise ConfigError("an answer shall end in front of an empty text", hint="leave it out of stop")
