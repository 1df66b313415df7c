"""Where a part is defective: cells above the threshold that touch, as boxes in pixels.

Shapes: H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nunbit.types import Prediction

if TYPE_CHECKING:
    from nunbit.types import FloatArray


@dataclass(frozen=True, slots=True)
class Region:
    """A defective place.

    Attributes:
        left: First column, in pixels of the picture.
        top: First row.
        right: Column behind the last.
        bottom: Row behind the last.
        score: The highest distance in it.
        kinds: What kind of defect it is, most probable first; empty where nobody was asked.
    """

    left: int
    top: int
    right: int
    bottom: int
    score: float
    kinds: tuple[Prediction, ...] = ()

    @property
    def box(self) -> tuple[int, int, int, int]:
        """left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom


def find_regions(distances: FloatArray, threshold: float, cell: float, size: tuple[int, int]) -> tuple[Region, ...]:
    """Boxes around cells above a threshold that touch, by a side or a corner.

    Args:
        distances: (h, w).
        threshold: What is above it is defective.
        cell: Pixels of the picture that a cell shows each way.
        size: Width and height of the picture.

    Returns:
        The worst first; none where nothing is above the threshold.
    """
    width, height = size
    regions = []
    for group in _touching(distances > threshold):
        rows, columns = zip(*group, strict=True)
        box = (
            min(round(min(columns) * cell), width - 1),
            min(round(min(rows) * cell), height - 1),
            min(round((max(columns) + 1) * cell), width),
            min(round((max(rows) + 1) * cell), height),
        )
        regions.append(Region(*box, float(distances[rows, columns].max())))
    return tuple(sorted(regions, key=lambda region: -region.score))


def heat_map(distances: FloatArray, cell: float, size: tuple[int, int]) -> FloatArray:
    """Distances of cells → of pixels, bilinearly between the middles of cells: (h, w) → (H, W) float32.

    Args:
        distances: (h, w) float32.
        cell: Pixels of the picture that a cell shows each way.
        size: Width and height of the picture.
    """
    rows, columns = distances.shape
    extent = (0.0, 0.0, min(size[0] / cell, columns), min(size[1] / cell, rows))  # the last cells may show less
    found: FloatArray = np.asarray(Image.fromarray(distances).resize(size, Image.Resampling.BILINEAR, extent))
    return found


def _touching(above: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """Groups of cells (row, column) that hang together."""
    left = {(int(row), int(column)) for row, column in np.argwhere(above)}
    while left:
        group, edge = list[tuple[int, int]](), [left.pop()]
        while edge:
            row, column = edge.pop()
            group.append((row, column))
            around = {(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= around
            edge += around
        yield group
