"""What a softmax over a million labels divides by, without a million similarities.

A softmax over the few labels that a search finds would overstate each of them: the many that fit a little weigh more
together than one that fits well. The sum over all labels is split instead (as in arXiv 1707.03372)::

    Z = sum over the head of exp(s x)  +  (labels beyond the head) * mean over a sample of them of exp(s x)

The head holds the labels that a search found, exactly. The sample is drawn once, without replacement and with a fixed
seed, among all labels; those of it that are in the head are left out, so the second term is unbiased whatever the
head is. A label counts once, with its nearest text. How far off it is: `benchmarks/labels.py`.

Shapes: S sampled labels, M rows of them, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nunbit.labels.base import Base

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

SAMPLED = 8192


class Competitors:
    """A sample of a base's labels that stands for all of them.

    Args:
        base: Of which it is drawn.
        removed: (labels,) bool: labels that are gone.
    """

    def __init__(self, base: Base, removed: npt.NDArray[np.bool_]) -> None:
        count = min(SAMPLED, len(base))
        self._labels = np.sort(np.random.default_rng(0).choice(len(base), count, replace=False))
        parts = [base.rows_of(label) for label in self._labels.tolist()]
        sizes = np.array([len(part) for part in parts])
        self._starts = np.cumsum(sizes) - sizes
        self._rows = base.vectors(np.concatenate(parts))  # (M, D)
        self._removed = removed

    def log_sum(self, query: FloatArray, logit_scale: float, head: npt.NDArray[np.int64]) -> float:
        """Logarithm of the sum of ``exp(logit_scale * similarity)`` over the labels that are not in the head.

        Args:
            query: (D,) unit row.
            logit_scale: Factor on similarities.
            head: Labels of the base that are counted elsewhere.
        """
        others = len(self._removed) - int(self._removed.sum()) - len(head)
        counted = ~self._removed[self._labels] & ~np.isin(self._labels, head)
        if others <= 0 or not counted.any():
            return -np.inf
        similarity = np.maximum.reduceat(self._rows @ query, self._starts)[counted].astype(np.float64)
        total = np.logaddexp.reduce(logit_scale * similarity)
        return float(total + np.log(others) - np.log(len(similarity)))
