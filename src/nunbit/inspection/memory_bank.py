"""What good parts look like, patch by patch: a few of their features, chosen so that every other one is near to one.

Paper: PatchCore, arXiv 2106.08265. Arrays and numpy only.

Shapes: N features, P patches asked about, M rows of the bank, D channels, K channels after projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

PROJECTED = 128
_AT_ONCE = 1 << 22  # distances that are held at a time: 16 MB


@dataclass(frozen=True, slots=True, eq=False)
class MemoryBank:
    """Features of good parts.

    Attributes:
        rows: (M, D) float32.
    """

    rows: FloatArray

    def distances(self, features: FloatArray) -> FloatArray:
        """How far patches are from everything that good parts show.

        ``d(x) = min over rows m of ||x - m||``. The nearest row is found by a product of matrices, in pieces, so
        that memory does not grow with P; the distance to it is then computed as it is written.

        Args:
            features: (P, D) float32.

        Returns:
            (P,) float32, 0 for what is in the bank.
        """
        if features.ndim != 2 or features.shape[1] != self.rows.shape[1]:
            raise UsageError(f"features have shape {features.shape}, expected (P, {self.rows.shape[1]})")
        squares = np.square(self.rows).sum(1)  # (M,)
        found = np.empty(len(features), np.float32)
        for start in range(0, len(features), piece := max(1, _AT_ONCE // len(self.rows))):
            some = features[start : start + piece]
            nearest = (squares - 2 * (some @ self.rows.T)).argmin(1)
            found[start : start + piece] = np.linalg.norm(some - self.rows[nearest], axis=1)
        return found


def make_bank(features: FloatArray, count: int, *, seed: int = 0) -> MemoryBank:
    """Choose at most ``count`` of (N, D) features for a bank, as `greedy_coreset` does."""
    return MemoryBank(features[greedy_coreset(features, count, seed=seed)])


def greedy_coreset(features: FloatArray, count: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Choose features so that the largest distance from any feature to a chosen one is small (k-center).

    Greedily: the first by chance, then always the one that is farthest from all chosen, which is at most twice as bad
    as the best choice (Gonzalez 1985). Distances are taken after a random projection to 128 channels, which keeps
    them nearly as they are (Johnson and Lindenstrauss).

    Args:
        features: (N, D) float32.
        count: How many, at least 1. Fewer are chosen where all others are equal to a chosen one.
        seed: Of the first one and of the projection.

    Returns:
        Positions, in the order in which they were chosen.
    """
    if count < 1 or len(features) == 0:
        raise UsageError(f"{count} of {len(features)} features cannot be chosen: at least one is needed of both")
    rng = np.random.default_rng(seed)
    points = features
    if features.shape[1] > PROJECTED:
        points = features @ (rng.standard_normal((features.shape[1], PROJECTED), np.float32) / PROJECTED**0.5)
    squares = np.square(points).sum(1)  # (N,)
    distance = np.full(len(points), np.inf, np.float32)  # squared, to the nearest chosen one
    chosen = [int(rng.integers(len(points)))]
    while len(chosen) < min(count, len(points)):
        last = chosen[-1]
        np.minimum(distance, squares - 2 * (points @ points[last]) + squares[last], out=distance)
        distance[last] = -np.inf  # rounding must not choose it again
        farthest = int(distance.argmax())
        if distance[farthest] <= 0:
            break
        chosen.append(farthest)
    return np.asarray(chosen)
