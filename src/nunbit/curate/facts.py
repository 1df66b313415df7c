"""What curation knows of a picture once it has been decoded: about 500 bytes, from which everything is decided."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nunbit.curate.perceptual import color_layout, perceptual_hash
from nunbit.errors import ImageError
from nunbit.images import open_image

VERSION = 1
"""Counts up when a fact is measured in another way: what was kept of earlier runs is then measured again."""

_LOOKED_AT = 256  # longest side at which sharpness and colors are judged: what models look at
_TINY = 64
_SAME_COLOR = 8  # how far a channel may be from the median and still be that color


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """One picture.

    Attributes:
        width: In pixels, upright.
        height: In pixels, upright.
        sha256: Of the file, in hex.
        pixels: BLAKE2b-128 of size and RGB pixels, in hex: the same for two files that decode to the same.
        looks: `perceptual_hash`.
        layout: `color_layout`.
        sharpness: Variance of the Laplacian of the gray picture, scaled down to 256 pixels when it is larger.
        one_color: Share in [0, 1] of pixels whose channels are all within 8 of the median color.
    """

    width: int
    height: int
    sha256: str
    pixels: str
    looks: int
    layout: bytes
    sharpness: float
    one_color: float

    @property
    def short_side(self) -> int:
        """In pixels."""
        return min(self.width, self.height)

    @property
    def aspect(self) -> float:
        """Long side by short side, at least 1."""
        return max(self.width, self.height) / self.short_side


def measure(source: str | bytes) -> PictureFacts:
    """Decode a picture and measure it.

    Raises:
        ImageError: As `nunbit.images.open_image`.
    """
    image, info = open_image(source)
    small = image.copy()
    small.thumbnail((_LOOKED_AT, _LOOKED_AT))
    return PictureFacts(
        width=info.width,
        height=info.height,
        sha256=_file_hash(source),
        pixels=hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).hexdigest(),
        looks=perceptual_hash(small),
        layout=color_layout(small),
        sharpness=round(sharpness(small), 3),
        one_color=round(one_color(small), 4),
    )


def sharpness(image: Image.Image) -> float:
    """The variance of the Laplacian (four neighbors) over gray levels in [0, 255]; 0 below three pixels a side."""
    gray = np.asarray(image.convert("L"), np.float32)
    if min(gray.shape) < 3:
        return 0.0
    inner = gray[1:-1, 1:-1]
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((around - 4 * inner).var())


def one_color(image: Image.Image) -> float:
    """The share of pixels that have nearly the median color, of those of a picture of 64 x 64."""
    tiny = image.convert("RGB").resize((_TINY, _TINY), Image.Resampling.NEAREST)
    pixels = np.asarray(tiny, np.int16).reshape(-1, 3)
    off = np.abs(pixels - np.median(pixels, axis=0).astype(np.int16)).max(axis=1)
    return float((off <= _SAME_COLOR).mean())


def _file_hash(source: str | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # it was there a moment ago
        raise ImageError("missing", f"{source}: {error.strerror or error}") from error
