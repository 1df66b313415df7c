"""Pictures → what the eye looks at: the whole, and tiles of large ones.

Shapes: K looks, S side of the eye's pictures in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.vlm.conversation import Layout

if TYPE_CHECKING:
    from PIL import Image

    from nunbit.preprocessing import Preprocessing
    from nunbit.types import FloatArray
    from nunbit.vlm.config import TilesConfig


@dataclass(frozen=True, slots=True)
class Looker:
    """Makes of a picture what the eye looks at.

    Attributes:
        preprocessing: The eye's.
        tokens: Q, that a look becomes.
        tiles: How large pictures are cut; None: they are not.
    """

    preprocessing: Preprocessing
    tokens: int
    tiles: TilesConfig | None = None

    def layout(self, width: int, height: int) -> Layout:
        """How a picture of that size, in pixels, is looked at."""
        if self.tiles is None:
            return Layout(0, 0, self.tokens)
        columns, rows = (side // self.preprocessing.image_size for side in self._enlarged(width, height))
        return Layout(rows, columns, self.tokens) if rows * columns > 1 else Layout(0, 0, self.tokens)

    def pixels(self, image: Image.Image) -> FloatArray:
        """What the eye is shown.

        Args:
            image: In mode RGB, of any size.

        Returns:
            (K, 3, S, S) float32: the tiles row by row, then the whole.
        """
        layout, side = self.layout(*image.size), self.preprocessing.image_size
        looks = []
        if layout.rows:
            large = image.resize((layout.columns * side, layout.rows * side), self.preprocessing.kernel)
            corners = [(column * side, row * side) for row in range(layout.rows) for column in range(layout.columns)]
            looks = [large.crop((left, top, left + side, top + side)) for left, top in corners]
        return np.stack([self.preprocessing(look) for look in (*looks, image)])

    def _enlarged(self, width: int, height: int) -> tuple[int, int]:
        """The longer side as long as `TilesConfig` says, both multiples of S; rounded twice, as SmolVLM does it."""
        assert self.tiles is not None
        side, longer, wide = self.preprocessing.image_size, self.tiles.max_side, width >= height
        shorter = int(longer / (width / height) if wide else longer * (width / height))
        shorter = max(1, shorter + shorter % 2)
        across = math.ceil(longer / side) * side
        down = int(across / (longer / shorter) if wide else across * (shorter / longer))
        down = math.ceil(max(1, down) / side) * side
        return (across, down) if wide else (down, across)
