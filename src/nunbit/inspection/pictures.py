"""What an inspection found, drawn over the picture.

Shapes: H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from nunbit.inspection.inspector import Inspection

_HEAT = (255, 60, 0)
_FRAME = (215, 0, 95)
_OPAQUE = 0.75  # the hottest place still shows what is below


def draw_inspection(picture: Image.Image, inspection: Inspection) -> Image.Image:
    """Lay the heat over the picture, and frames around its regions.

    Where the heat map is below half of the threshold nothing is laid, at twice the threshold most of the color: a good
    part looks good, whatever its own highest score is.

    Args:
        picture: RGB, of the size of the heat map.
        inspection: What was found on it.

    Returns:
        A new RGB picture of that size.
    """
    threshold = max(inspection.threshold, 1e-12)
    heat = np.clip((inspection.heat_map / threshold - 0.5) / 1.5, 0, 1)  # (H, W)
    mask = Image.fromarray(np.uint8(255 * _OPAQUE * heat))
    drawn = picture.copy()
    drawn.paste(_HEAT, (0, 0, *picture.size), mask)
    pen = ImageDraw.Draw(drawn)
    width = max(2, max(picture.size) // 320)
    for region in inspection.regions:
        left, top, right, bottom = region.box
        pen.rectangle((left, top, right - 1, bottom - 1), outline=_FRAME, width=width)
    return drawn
