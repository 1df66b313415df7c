"""Whether a picture belongs to none of a head's classes.

Each way gives a familiarity: the higher, the likelier the picture is of some class. What stays below a threshold is
unknown; the threshold is set on examples that were held out, so that a stated share of them would be called unknown
wrongly (the false-alarm rate).

Shapes: N pictures, K examples, M negative labels, C classes, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

    Familiarity = npt.NDArray[np.float64]

Way: TypeAlias = Literal["neighbors", "energy", "negatives"]

NEIGHBORS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Unknown:
    """How a head tells what it does not know.

    Attributes:
        way: ``neighbors``: mean cosine to the three nearest examples (arXiv 2204.06507); ``energy``: log-sum-exp of the
            logits (arXiv 2010.03759); ``negatives``: the share of classes against words that are none of them
            (arXiv 2403.20078).
        threshold: What is less familiar is unknown.
        false_alarms: Share of known pictures that are called unknown, as the threshold was set.
        rows: (K, D) examples, or (M, D) rows of negative labels; empty for ``energy``.
        positives: (C, D) rows of the classes' words, for ``negatives``; else empty.
        logit_scale: The encoder's factor, for ``negatives``.
    """

    way: Way
    threshold: float
    false_alarms: float
    rows: FloatArray
    positives: FloatArray
    logit_scale: float = 1.0

    def familiarity(self, rows: FloatArray, logits: npt.NDArray[np.float64]) -> Familiarity:
        """(N, D) unit rows and their (N, C) logits → (N,) float64."""
        if self.way == "energy":
            return energy(logits)
        if self.way == "neighbors":
            return nearness(rows, self.rows)
        return share_of_classes(rows, self.positives, self.rows, self.logit_scale)


def energy(logits: npt.NDArray[np.float64]) -> Familiarity:
    """``log(sum(exp(logits)))``, (N, C) → (N,)."""
    top = logits.max(1)
    found: Familiarity = top + np.log(np.exp(logits - top[:, None]).sum(1))
    return found


def nearness(rows: FloatArray, examples: FloatArray, *, without: npt.NDArray[np.bool_] | None = None) -> Familiarity:
    """Mean cosine to the `NEIGHBORS` nearest examples.

    Args:
        rows: (N, D) unit rows.
        examples: (K, D) unit rows.
        without: (N, K), true where an example must not count: a picture is its own nearest neighbor.

    Returns:
        (N,); NaN where fewer than `NEIGHBORS` examples count though there are more of them.
    """
    cosines = (rows @ examples.T).astype(np.float64)  # (N, K)
    if without is not None:
        cosines[without] = np.nan
        cosines = -np.sort(-cosines, axis=1)  # those that do not count are last
        return cosines[:, :NEIGHBORS].mean(1) if cosines.shape[1] >= NEIGHBORS else np.full(len(rows), np.nan)
    count = min(NEIGHBORS, cosines.shape[1])
    found: Familiarity = np.partition(cosines, -count, axis=1)[:, -count:].mean(1)
    return found


def share_of_classes(rows: FloatArray, positives: FloatArray, negatives: FloatArray, logit_scale: float) -> Familiarity:
    """Softmax over classes and negative labels together, summed over the classes: (N, D) → (N,), in logits.

    The logarithm of the odds is given: a share near 1 would lose its digits.
    """
    known = energy(logit_scale * (rows.astype(np.float64) @ positives.T))
    other = energy(logit_scale * (rows.astype(np.float64) @ negatives.T))
    found: Familiarity = known - other
    return found
