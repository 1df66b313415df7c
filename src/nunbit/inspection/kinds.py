"""What kind of defect a region shows: its picture, cut out, goes through a head that was learned from a few of each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nunbit.images import open_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from nunbit.encode import Encoder
    from nunbit.head import Head
    from nunbit.inspection.inspector import Inspection
    from nunbit.inspection.regions import Region
    from nunbit.types import ImageSource

MARGIN = 24
"""As much as `benchmarks/few_shots.py` leaves around the defects that it learns from."""


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
    rows = encoder.encode_image(cut_regions(image, inspection.regions, margin))
    named = [replace(region, kinds=head.predict(row)) for region, row in zip(inspection.regions, rows, strict=True)]
    return replace(inspection, regions=tuple(named))


def cut_regions(picture: Image.Image, regions: Sequence[Region], margin: int = MARGIN) -> list[Image.Image]:
    """Regions as pictures of their own, with so many pixels around each as far as the picture goes."""
    return [
        picture.crop(
            (
                max(region.left - margin, 0),
                max(region.top - margin, 0),
                min(region.right + margin, picture.width),
                min(region.bottom + margin, picture.height),
            )
        )
        for region in regions
    ]
