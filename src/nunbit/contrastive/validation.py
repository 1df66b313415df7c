"""How well pictures and texts that taught nothing find each other.

A picture's answer is right when the text that is nearest to it is one of its own; a text's, when the nearest picture is
one that it belongs to. Equal texts are one text. Whatever ties with the right answer counts as nearer.

Shapes: N pictures, M different texts, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.errors import UsageError

if TYPE_CHECKING:
    from nunbit.types import FloatArray

_ROWS = 512


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Shares in percent of pictures that find one of their texts, and of texts that find one of their pictures."""

    image_to_text_r1: float
    image_to_text_r5: float
    text_to_image_r1: float
    text_to_image_r5: float

    @property
    def mean_r1(self) -> float:
        """The mean of both directions' first."""
        return (self.image_to_text_r1 + self.text_to_image_r1) / 2


def mean_r1(results: Sequence[Retrieval]) -> float:
    """The mean of both directions' first, over several measurements; 0 without any."""
    return float(np.mean([result.mean_r1 for result in results])) if results else 0.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures and texts with what belongs together.

    Attributes:
        texts: M different texts.
        texts_of: For each of N pictures the numbers of its texts.
    """

    texts: tuple[str, ...]
    texts_of: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]], identities: Sequence[object]) -> Pairs:
        """Collect pairs.

        Args:
            texts: For each picture its texts.
            identities: For each picture what is equal for those that share their texts.
        """
        numbers: dict[str, int] = {}
        shared: dict[object, dict[int, None]] = {}
        for words, identity in zip(texts, identities, strict=True):
            for text in words:
                shared.setdefault(identity, {})[numbers.setdefault(text, len(numbers))] = None
        return cls(tuple(numbers), tuple(tuple(shared[identity]) for identity in identities))


def measure_retrieval(images: FloatArray, texts: FloatArray, pairs: Pairs) -> Retrieval:
    """Rank all texts for each picture and all pictures for each text.

    Args:
        images: (N, E) unit rows.
        texts: (M, E) unit rows.
        pairs: What belongs together.
    """
    if len(images) != len(pairs.texts_of) or len(texts) != len(pairs.texts):
        raise UsageError(f"{len(images)} pictures and {len(texts)} texts, expected those of the pairs")
    pictures_of: list[list[int]] = [[] for _ in pairs.texts]
    for picture, numbers in enumerate(pairs.texts_of):
        for number in numbers:
            pictures_of[number].append(picture)
    there = _ranks(images, texts, pairs.texts_of)
    back = _ranks(texts, images, pictures_of)
    return Retrieval(*(float(100 * (ranks < k).mean()) for ranks in (there, back) for k in (1, 5)))


def _ranks(queries: FloatArray, answers: FloatArray, right: Sequence[Sequence[int]]) -> np.ndarray:
    """How many wrong answers are at least as near as the nearest right one, for each query."""
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), _ROWS):
        similarity = queries[start : start + _ROWS] @ answers.T
        for row, near in enumerate(similarity):
            own = list(right[start + row])
            best = near[own].max()
            nearer = ~(near < best)  # what is no number wins, so that a model that gives none is always wrong
            nearer[own] = not best > -np.inf
            ranks[start + row] = nearer.sum()
    return ranks


def choose_alpha(
    measure: Callable[[float], Sequence[Retrieval]], *, may_lose: float | None = None, steps: int = 10
) -> tuple[float, Mapping[float, Sequence[Retrieval]]]:
    """How far to go from the start to the end of a fine-tuning (WiSE-FT).

    Args:
        measure: A share of the way in [0, 1] → what the model finds there on each validation set.
        may_lose: The most points of image-to-text R@1 that each set but the first may lose against the start.
        steps: How many equal steps are tried.

    Returns:
        The share with the best mean over the sets, of equal ones the nearest to the start; and what each gave.
    """
    found = {number / steps: measure(number / steps) for number in range(steps + 1)}

    def keeps(alpha: float) -> bool:
        pairs = zip(found[0.0][1:], found[alpha][1:], strict=True)
        return may_lose is None or all(
            now.image_to_text_r1 >= before.image_to_text_r1 - may_lose for before, now in pairs
        )

    return max(filter(keeps, found), key=lambda alpha: (mean_r1(found[alpha]), -alpha)), found
