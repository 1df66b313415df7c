"""Pictures of a page, small and inside of it.

Place in the river: a part of reports.
"""

from __future__ import annotations

import base64
import html
import io
import os

from PIL import Image

from nunbit.errors import ImageError
from nunbit.images import open_image
from nunbit.picture_files import one_line

_SIDE = 176
_ALL = 2_400_000  # characters; a page of 3 MB opens at once everywhere


class Thumbnails:
    """Thumbnails as long as there is room for them."""

    def __init__(self) -> None:
        self._left = _ALL
        self._made: dict[str | bytes, str] = {}

    def tag(self, image: str | bytes, name: str) -> str:
        """The picture as an ``img``; empty when it cannot be shown."""
        source = self._made.get(image) or self._make(image)
        if not source or len(source) > self._left:
            return ""
        self._left -= len(source)
        return f'<img alt="{html.escape(one_line(os.path.basename(name)))}" src="{source}">'

    def _make(self, image: str | bytes) -> str:
        if not image or self._left <= 0:
            return ""
        try:
            picture, _ = open_image(image, needed=lambda width, height: (min(width, _SIDE), min(height, _SIDE)))
        except ImageError:  # broken ones are shown by their reason
            return ""
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=72)
        self._made[image] = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        return self._made[image]
