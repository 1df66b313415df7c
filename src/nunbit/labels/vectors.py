"""How rows are kept: 16-bit fixed point for the answer, a few rotated bytes for the first look.

Place in the river: embeddings → `vectors` → the store → search. A kept row is ``x ≈ scale * fixed``, with
``scale = max |x| / 32767``: an error in a cosine of a few millionths, so that it stands for the float32 row.
For the first look a row is turned so that few of its numbers hold most of what tells rows apart (principal components),
and those few are kept as one byte each.

Shapes: R rows, D width, P leading width, L lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

LARGEST = 32767
LEAD_LARGEST = 127
LEAD_STEP = 16
"""The leading width is a multiple of it."""

LEFT_OUT = 0.2
"""Share of the rows' variance that the leading numbers may leave out. At a fifth, 200 candidates of half a million rows
held 99.7 % of the ten nearest; rows without structure make the leading width grow, not the error."""

ROUNDS = 8
"""Of k-means. More make lists that are a little evener, and a search no better."""

ROWS_AT_ONCE = 8192


def to_fixed(rows: FloatArray) -> tuple[npt.NDArray[np.int16], FloatArray]:
    """(R, D) float32, no row of zeros → (R, D) int16 and scales (R,) float32."""
    scale = (np.abs(rows).max(axis=1) / LARGEST).astype(np.float32)
    return np.rint(rows / scale[:, None]).clip(-LARGEST, LARGEST).astype(np.int16), scale


def from_fixed(fixed: npt.NDArray[np.int16], scale: FloatArray) -> FloatArray:
    """(R, D) int16 and (R,) float32 → (R, D) float32."""
    rows = fixed.astype(np.float32)
    rows *= scale[:, None]
    return rows


def to_lead(rows: FloatArray, rotation: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """(R, D) float32 turned by (D, P) → (R, P) int8 and scales (R,) float32."""
    turned = rows @ rotation  # (R, P)
    scale = np.maximum(np.abs(turned).max(axis=1) / LEAD_LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(turned / scale[:, None]).astype(np.int8), scale


def principal_rotation(sample: FloatArray) -> FloatArray:
    """The fewest principal components of (S, D) rows that leave out at most `LEFT_OUT`: (D, P) float32, orthonormal."""
    centered = sample - sample.mean(axis=0)
    values, vectors = np.linalg.eigh((centered.T @ centered).astype(np.float64))
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]  # largest first
    enough = int(np.searchsorted(np.cumsum(values), (1 - LEFT_OUT) * values.sum())) + 1
    width = min(-(-enough // LEAD_STEP) * LEAD_STEP, len(values))
    return np.ascontiguousarray(vectors[:, :width], np.float32)


def find_centers(sample: FloatArray, lists: int, *, seed: int = 0) -> FloatArray:
    """k-means (Lloyd) on (S, D) rows, S >= L: centers (L, D) float32. The same seed gives the same centers."""
    rng = np.random.default_rng(seed)
    centers = sample[np.sort(rng.choice(len(sample), lists, replace=False))]
    for _ in range(ROUNDS):
        nearest = np.concatenate(
            [assign(sample[at : at + ROWS_AT_ONCE], centers) for at in range(0, len(sample), ROWS_AT_ONCE)]
        )
        sizes = np.bincount(nearest, minlength=lists)
        filled = np.flatnonzero(sizes)
        starts = np.cumsum(sizes) - sizes
        sums = np.add.reduceat(sample[np.argsort(nearest, kind="stable")], starts[filled], axis=0)
        centers = sample[rng.choice(len(sample), lists)]  # an empty list begins again somewhere else
        centers[filled] = sums / sizes[filled, None]
    return centers


def assign(rows: FloatArray, centers: FloatArray) -> npt.NDArray[np.int32]:
    """Nearest center (L, D) of each of (R, D) rows, in Euclidean distance: (R,) int32."""
    closeness = rows @ centers.T - 0.5 * np.einsum("ld,ld->l", centers, centers)  # (R, L)
    nearest: npt.NDArray[np.int32] = closeness.argmax(axis=1).astype(np.int32)
    return nearest
