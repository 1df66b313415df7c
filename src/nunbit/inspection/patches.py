"""A picture in tiles → one grid of patch features over all of it, at a scale at which small things can be seen.

An encoder looks at 200 to 400 pixels. A part squeezed to that has lost its scratches, so it is cut into overlapping
tiles of the encoder's size. Of every tile the inner cells are kept, which have seen what is around them; put together
they are a grid without seams, whatever the encoder is.

Shapes: H W pixels, p pixels a cell, h w cells of the grid, t cells of a tile's side, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nunbit.errors import UsageError
from nunbit.preprocessing import Preprocessing

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

MARGIN = 1 / 8
"""Share of a tile's side, at each end, that is looked at and not believed: what is beyond it is missing there. The
starter's features at a bare edge are off by more than a defect is; behind 4 of 32 cells, by a fiftieth of that."""


@dataclass(frozen=True, slots=True)
class Look:
    """How pictures are looked at.

    Attributes:
        scale: Factor on both sides of a picture before it is cut into tiles, above 0: 1 is as it was photographed, 0.5
            takes a quarter of the time and loses what is small.
        layers: As `nunbit.encode.Encoder.patch_features` takes them; None: those that the encoder recommends.

    Raises:
        UsageError: The scale is not above 0.
    """

    scale: float = 1.0
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise UsageError(f"scale is {self.scale}, it must be above 0")


def patch_grid(encoder: Encoder, picture: Image.Image, look: Look = Look()) -> FloatArray:
    """Features of all cells of a picture.

    Args:
        encoder: One with patch features.
        picture: RGB, of any size. It is mirrored at its edges, which would look odd to an encoder otherwise.
        look: Scale and layers.

    Returns:
        (h, w, D) float32; cell (i, j) shows p / scale pixels of the picture each way, from (i, j) times as many on.

    Raises:
        UsageError: The encoder has no patch features.
    """
    side = encoder.patch_size
    preprocessing = encoder.preprocessing
    assert isinstance(preprocessing, Preprocessing)  # what takes any proportions has no patch size
    cells = preprocessing.image_size // side  # t
    tile_pixels = replace(preprocessing, image_size=cells * side, crop_fraction=1.0, resize="squash")  # size is right
    margin = max(1, round(cells * MARGIN))
    pixels = _scaled(picture, look.scale)  # (H', W', 3)
    shown = [math.ceil(length / side) for length in pixels.shape[:2]]
    whole = [max(count + 2 * margin, cells) for count in shown]
    before = margin * side
    padding = [(before, all_ * side - before - own) for all_, own in zip(whole, pixels.shape, strict=False)]
    pixels = np.pad(pixels, (*padding, (0, 0)), mode="symmetric")
    tiles = [(down, across) for down in _spans(whole[0], cells, margin) for across in _spans(whole[1], cells, margin)]
    grid: FloatArray | None = None
    for start in range(0, len(tiles), size := encoder.engine.batch_size):
        some = tiles[start : start + size]
        cut = [tile_pixels(Image.fromarray(pixels[down.pixels(side), across.pixels(side)])) for down, across in some]
        found = encoder.patch_features(np.stack(cut), layers=look.layers)  # (B, t, t, D)
        if grid is None:
            grid = np.empty((*whole, found.shape[-1]), np.float32)
        for (down, across), features in zip(some, found, strict=True):
            grid[down.owned, across.owned] = features[down.inner, across.inner]
    assert grid is not None  # there is at least one tile
    return grid[margin : margin + shown[0], margin : margin + shown[1]]


@dataclass(frozen=True, slots=True)
class _Span:
    """A tile along one side of the picture, in cells: from where to where it looks, and which cells it is asked for."""

    start: int
    stop: int
    first: int
    last: int

    def pixels(self, side: int) -> slice:
        return slice(self.start * side, self.stop * side)

    @property
    def owned(self) -> slice:
        return slice(self.first, self.last)

    @property
    def inner(self) -> slice:
        return slice(self.first - self.start, self.last - self.start)


def _spans(length: int, cells: int, margin: int) -> Iterator[_Span]:
    """Cover ``length`` cells by tiles of ``cells``; neighbors overlap by two margins, and share that half and half."""
    step = max(1, cells - 2 * margin)
    count = math.ceil((length - cells) / step) + 1
    starts = [round(n * (length - cells) / max(count - 1, 1)) for n in range(count)]
    bounds = [0, *((left + cells + right) // 2 for left, right in pairwise(starts)), length]
    for start, (first, last) in zip(starts, pairwise(bounds), strict=True):
        yield _Span(start, start + cells, first, last)


def _scaled(picture: Image.Image, scale: float) -> np.ndarray:
    if scale != 1:
        width, height = (max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)
