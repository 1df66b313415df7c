"""Logits → the next token.

Shapes: B answers, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nunbit.generate.config import GenerationConfig


class Sampler:
    """Draws tokens, for each answer of a batch with random numbers of its own: it says what it would say alone.

    Args:
        config: How.
        answers: B.
    """

    def __init__(self, config: GenerationConfig, answers: int) -> None:
        self._config = config
        self._random = [torch.Generator().manual_seed(config.seed) for _ in range(answers)]

    def __call__(self, logits: Tensor) -> list[int]:
        """Draw a token for each answer.

        Args:
            logits: (B, V) floating, on any device.
        """
        if self._config.temperature == 0:
            greedy: list[int] = logits.argmax(1).tolist()
            return greedy
        exact = logits.cpu().double()
        below = exact - exact.amax(1, keepdim=True)
        probabilities = (below / self._config.temperature).softmax(1)  # nothing overflows, however small it is
        if self._config.top_p < 1:
            probabilities = keep_likely(probabilities, self._config.top_p)
        return [
            int(torch.multinomial(row, 1, generator=random))
            for row, random in zip(probabilities, self._random, strict=True)
        ]


def keep_likely(probabilities: Tensor, top_p: float) -> Tensor:
    """Leave the fewest tokens that together have a probability of at least ``top_p``; never none.

    Args:
        probabilities: (B, V) floating.
        top_p: More than 0.

    Returns:
        (B, V), 0 for those that are not left; the rest is not scaled.
    """
    ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
    enough = ordered.cumsum(1) - ordered >= top_p  # what stands in front is enough
    return probabilities.scatter(1, order, ordered.masked_fill(enough, 0))
