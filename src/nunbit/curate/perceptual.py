"""What a picture looks like, in a few bytes: a 64-bit perceptual hash and a grid of colors.

Pictures that are the same but for size, compression, brightness or a narrow crop have hashes that differ in few bits.
The hash knows no colors, and flat pictures have hashes made of noise: the grid tells those apart.

Shapes: N pictures, H W pixels.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

_SIDE = 32  # of the gray picture that is transformed
_KEPT = 8  # the lowest frequencies, both ways
LAYOUT_SIDE = 8


def perceptual_hash(image: Image.Image) -> int:
    """Hash the lowest frequencies of a picture: 64 bits, each whether one of them is above their median.

    Args:
        image: RGB or L.

    Returns:
        An integer in [0, 2^64).
    """
    gray = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    waves = _cosines(_SIDE)[:_KEPT]
    low = (waves @ np.asarray(gray, np.float64) @ waves.T).ravel()  # (64,)
    bits = low > np.median(low[1:])  # the first is the mean: it says nothing, and would move the median
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def color_layout(image: Image.Image) -> bytes:
    """The mean color of each cell of an 8 x 8 grid, (8, 8, 3) uint8 in row order: 192 bytes."""
    return image.convert("RGB").resize((LAYOUT_SIDE, LAYOUT_SIDE), Image.Resampling.BOX).tobytes()


def layout_similarity(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Compare grids of colors pair by pair, whatever the brightness and the contrast.

    Args:
        left: (N, 192) uint8.
        right: (N, 192) uint8.

    Returns:
        (N,) float32 in [-1, 1]: the correlation; 1 for two pictures of one color each.
    """
    a, b = (rows - rows.mean(1, keepdims=True) for rows in (left.astype(np.float32), right.astype(np.float32)))
    product: npt.NDArray[np.float32] = (a * b).sum(1)
    scale = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    flat = ~(a.any(1) | b.any(1))
    similarity: npt.NDArray[np.float32] = np.where(flat, np.float32(1), product / np.maximum(scale, np.float32(1e-6)))
    return similarity


@cache
def _cosines(size: int) -> npt.NDArray[Any]:
    """The matrix of the orthonormal DCT-II, (size, size) float64."""
    frequency, place = np.mgrid[:size, :size]
    matrix = np.cos(np.pi * frequency * (2 * place + 1) / (2 * size)) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)
