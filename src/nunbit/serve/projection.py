"""A map of a collection: embeddings → places in the plane, so that what looks alike lies together.

Shapes: N rows, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nunbit.types import FloatArray

_FITTED_ON = 20_000


def principal_map(vectors: FloatArray) -> FloatArray:
    """The two directions in which embeddings differ most; places then spread evenly along both.

    A principal component analysis of up to 20,000 rows, of which the ranks are drawn instead of the values, half and
    half: values alone pile most of a collection up in one spot. Deterministic; the sign of each direction is fixed.

    Args:
        vectors: (N, D) float32.

    Returns:
        (N, 2) float32 in [0, 1].
    """
    count = len(vectors)
    if count < 3:
        return np.linspace(0.25, 0.75, max(count, 1), dtype=np.float32)[:count, None].repeat(2, axis=1)
    step = -(-count // _FITTED_ON)
    sample = vectors[::step].astype(np.float64)
    mean = sample.mean(axis=0)
    _, directions = np.linalg.eigh((sample - mean).T @ (sample - mean))
    axes = directions[:, :-3:-1]  # (D, 2), the largest first
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), range(2)])
    places = (vectors - mean.astype(np.float32)) @ axes.astype(np.float32)  # (N, 2)
    low, high = places.min(axis=0), places.max(axis=0)
    values = (places - low) / np.maximum(high - low, 1e-12)
    ranks = np.argsort(np.argsort(places, axis=0, kind="stable"), axis=0) / (count - 1)
    spread: FloatArray = (0.5 * values + 0.5 * ranks).astype(np.float32)
    return spread
