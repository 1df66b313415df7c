"""The score from which on a part is called defective: set on good parts alone, at a stated rate of false alarms.

A part is defective when its worst place is above a line that hardly any place of a whole good part crosses. Where it is
defective is asked of defective parts alone, and of each place by itself: for that a second line lies lower.

N good parts, each scored by a bank that never saw it, and one more good part: its score is as likely to take any of
the N + 1 places in their order. So it lies above the k-th smallest of the N with a probability of at most
``1 - k / (N + 1)`` (conformal prediction, arXiv 2107.07511), and nothing has to be assumed of how scores spread. Nearly
so: banks of a fold fewer parts make the line a little high, and several photographs of one part make it low.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.errors import UsageError

if TYPE_CHECKING:
    from nunbit.types import FloatArray


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where the line is, and what it promises.

    Attributes:
        value: Parts with a higher score are defective.
        false_alarms: Share of good parts that may be called defective, as it was asked for, in (0, 1).
        good_parts: N, so many it was set by.
        places: Places of a defective part with a larger distance are part of the defect; at most ``value``.
    """

    value: float
    false_alarms: float
    good_parts: int
    places: float

    @property
    def promised(self) -> float:
        """The share of good parts that is called defective at most, on average over choices of good parts."""
        return 1 - _place(self.good_parts, self.false_alarms) / (self.good_parts + 1)

    @property
    def needed(self) -> int:
        """So many good parts it takes to promise ``false_alarms``."""
        return math.ceil(round(1 / self.false_alarms, 9)) - 1

    @property
    def is_kept(self) -> bool:
        """Whether there are enough good parts to promise what was asked for."""
        return self.good_parts >= self.needed

    def words(self) -> str:
        """What is promised, for people."""
        if self.is_kept:
            return f"at most {self.promised:.1%} of good parts are called defective"
        return (
            f"{self.good_parts} good parts are too few to promise {self.false_alarms:.1%} false alarms, which takes "
            f"{self.needed}: expect up to {self.promised:.1%}"
        )


def set_threshold(distances: Sequence[FloatArray], false_alarms: float, places_above: float) -> Threshold:
    """Draw both lines.

    Args:
        distances: Of the places of N good parts, none of them by a bank that knows it; a part's score is the largest.
        false_alarms: Share of good parts that may be called defective. With fewer than ``1 / false_alarms - 1`` parts
            the line is at the highest score, and `Threshold.is_kept` is false.
        places_above: Share of the places of good parts that lie above the lower line, in (0, 1).

    Raises:
        UsageError: No scores, or a rate outside of (0, 1).
    """
    if not 0 < false_alarms < 1 or not distances:
        found = f"false_alarms is {false_alarms} with {len(distances)} parts"
        raise UsageError(f"{found}; expected (0, 1), and one at least")
    scores = sorted(float(some.max()) for some in distances)
    value = scores[_place(len(scores), false_alarms) - 1]
    places = float(np.quantile(np.concatenate([some.ravel() for some in distances]), 1 - places_above))
    return Threshold(value, false_alarms, len(scores), min(places, value))


def _place(count: int, false_alarms: float) -> int:
    """k, from 1: rounded before it is raised, or 0.95 * 20 would be more than 19."""
    return min(count, math.ceil(round((count + 1) * (1 - false_alarms), 9)))
