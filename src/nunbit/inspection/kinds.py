"""What kind of defect a region shows: its picture, cut out, goes through a head that was learned from a few of each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nunbit.images import open_image

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.head import Head
    from nunbit.inspection.inspector import Inspection
    from nunbit.types import ImageSource

MARGIN = 8


def name_kinds(
    encoder: Encoder, head: Head, picture: ImageSource, inspection: Inspection, *, margin: int = MARGIN
) -> Inspection:
    """Name the kind of each region.

    Args:
        encoder: The head's.
        head: Learned with `nunbit.adapt` from pictures of defects, cut out with a little of what is around them.
        picture: The one that was inspected.
        inspection: What was found on it.
        margin: Pixels around a region that are shown to the head, as far as the picture goes.

    Returns:
        The same with ``kinds`` of every region: all classes of the head, with probabilities.
    """
    if not inspection.regions:
        return inspection
    image, _ = open_image(picture)
    crops = [
        image.crop(
            (
                max(region.left - margin, 0),
                max(region.top - margin, 0),
                min(region.right + margin, image.width),
                min(region.bottom + margin, image.height),
            )
        )
        for region in inspection.regions
    ]
    rows = encoder.encode_image(crops)
    named = [replace(region, kinds=head.predict(row)) for region, row in zip(inspection.regions, rows, strict=True)]
    return replace(inspection, regions=tuple(named))
