"""What an engine is calibrated and checked on: pictures of the user's, or else pictures and words made by formula.

The project's own pictures share with photographs what quantization depends on: contrast falls off with spatial
frequency as 1/f (Field 1987, "Relations between the statistics of natural images"), channels go together, and there are
edges, flat fields and text-like detail.

Shapes: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from nunbit.errors import ImageError, UsageError
from nunbit.images import find_images, open_image
from nunbit.types import Rejected

if TYPE_CHECKING:
    from nunbit.preprocessing import Preprocessing
    from nunbit.types import FloatArray

PICTURES = 48
MOST_PICTURES = 256
BATCH = 4
_SIZE = (320, 240)
_THINGS = ("cat", "red running shoe", "신호등", "street sign at night", "bread", "a man on a horse", "커피 한 잔",
           "circuit board", "blue", "green apple on a white plate", "T-shirt", "바닷가의 나무 다리")  # fmt: skip
_FRAMES = ("{}", "a photo of a {}", "a drawing of the {}", "two {}s beside one another", "{} 사진")
TEXTS = tuple(frame.format(thing) for thing in _THINGS for frame in _FRAMES)
"""Labels and short sentences in English and Korean."""


def pixel_batches(preprocessing: Preprocessing, paths: Sequence[Path] | None) -> tuple[list[FloatArray], FloatArray]:
    """Calibration batches, and check inputs.

    Args:
        preprocessing: Of the encoder.
        paths: Pictures and folders of the user's; None for the project's own pictures.

    Returns:
        Batches (4, 3, S, S) float32, and the check inputs, (N, 3, S, S) float32.

    Raises:
        UsageError: Fewer than 8 of the given pictures can be read.
    """
    pictures = own_pictures() if paths is None else _user_pictures(paths)
    pixels = np.stack([preprocessing(picture) for picture in pictures])
    # Every third one checks: a folder's pictures are often sorted by kind.
    checks = np.arange(len(pixels)) % 3 == 2
    calibration = pixels[~checks]
    return [calibration[start : start + BATCH] for start in range(0, len(calibration), BATCH)], pixels[checks]


def own_pictures(count: int = PICTURES, seed: int = 0) -> list[Image.Image]:
    """Pictures by formula: the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    return [_picture(rng) for _ in range(count)]


def _picture(rng: np.random.Generator) -> Image.Image:
    width, height = _SIZE
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    frequency = np.maximum(np.hypot(down, across), 1 / width)
    waves = rng.standard_normal((3, *frequency.shape)) + 1j * rng.standard_normal((3, *frequency.shape))
    noise = np.fft.irfft2(waves / frequency ** rng.uniform(0.9, 1.6), s=(height, width))
    noise = noise / noise.std(axis=(1, 2), keepdims=True)
    gray = rng.uniform(0.3, 0.95)  # channels of photographs go together
    noise = gray * noise[:1] + (1 - gray) * noise
    levels = rng.uniform(60, 190, (3, 1, 1)) + rng.uniform(15, 70) * noise
    picture = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 9)):
        corners = sorted(rng.uniform(-20, width + 20, 2)), sorted(rng.uniform(-20, height + 20, 2))
        box = [corners[0][0], corners[1][0], corners[0][1] + 2, corners[1][1] + 2]
        color = tuple(int(level) for level in rng.integers(0, 256, 3))
        shape = (draw.rectangle, draw.ellipse, draw.line)[rng.integers(3)]
        shape(box, fill=color)
    if rng.random() < 0.3:
        draw.text((rng.uniform(0, 200), rng.uniform(0, 200)), "nunbit 0123", fill="white", font_size=28)
    return picture


def _user_pictures(paths: Sequence[Path]) -> list[Image.Image]:
    found = [path for path in find_images(paths) if not isinstance(path, Rejected)]
    chosen = (
        [found[number] for number in np.unique(np.linspace(0, len(found) - 1, MOST_PICTURES).astype(int))]
        if found
        else []
    )
    pictures = []
    for path in chosen:
        try:
            pictures.append(open_image(path)[0])
        except ImageError:
            continue  # calibration wants typical pictures; a broken one is none
    if len(pictures) < 8:
        shown = ", ".join(map(str, paths))
        raise UsageError(f"{len(pictures)} pictures in {shown} can be read, calibration takes at least 8")
    return pictures
