"""The ways in which both teacher and student look at a picture, and the student's pixels of each.

What a view shows depends on the seed, the number of the picture and that of the view alone: the teacher is asked once.

Shapes: N pictures of a batch, S side in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from nunbit.distill.config import PictureConfig
from nunbit.images import open_image
from nunbit.preprocessing import AnyPreprocessing, Preprocessing

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """A part of a picture, as shares of its sides, mirrored or not."""

    left: float
    top: float
    right: float
    bottom: float
    mirrored: bool

    def of(self, picture: Image.Image) -> Image.Image:
        """What one sees; at least a pixel."""
        width, height = picture.size
        left, top = (min(int(share * side), side - 1) for share, side in ((self.left, width), (self.top, height)))
        right, bottom = max(left + 1, round(self.right * width)), max(top + 1, round(self.bottom * height))
        seen = picture.crop((left, top, right, bottom))
        return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else seen


WHOLE = View(0, 0, 1, 1, False)


def draw_view(config: PictureConfig, *, seed: int, picture: int, view: int) -> View:
    """View 0 is the whole picture; of two more views one is mirrored, on average."""
    if view == 0:
        return WHOLE
    rng = np.random.default_rng([seed, picture, view])
    side = math.exp(rng.uniform(math.log(config.smallest_view), 0))
    stretch = math.exp(rng.uniform(-0.5, 0.5) * math.log(config.stretch))
    width, height = min(1.0, side * stretch), min(1.0, side / stretch)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return View(left, top, left + width, top + height, bool(rng.random() < 0.5))


def decode(path: Path, preprocessing: AnyPreprocessing, config: PictureConfig) -> Image.Image:
    """Open a picture, large enough for its smallest view.

    Raises:
        ImageError: It cannot be used.
    """

    def needed(width: int, height: int) -> tuple[int, int]:
        across, down = preprocessing.resized(width, height)
        return math.ceil(across / config.smallest_view), math.ceil(down / config.smallest_view)

    return open_image(path, needed=needed)[0]


class StudentPictures:
    """Squares of views as the student takes them, kept as long as there is room.

    Args:
        files: All pictures, by number.
        preprocessing: The student's.
        config: Which views there are.
        seed: Of the run.
    """

    def __init__(self, files: list[Path], preprocessing: Preprocessing, config: PictureConfig, *, seed: int) -> None:
        self._files, self._preprocessing, self._config, self._seed = files, preprocessing, config, seed
        self._room = config.cache_mb << 20
        self._kept: dict[tuple[int, int], Pixels] = {}

    def get(self, picture: int, view: int) -> Pixels:
        """The square (S, S, 3) of a view.

        Raises:
            ImageError: The picture cannot be used any more.
        """
        kept = self._kept.get((picture, view))
        if kept is not None:
            return kept
        whole = decode(self._files[picture], self._preprocessing, self._config)
        seen = draw_view(self._config, seed=self._seed, picture=picture, view=view).of(whole)
        pixels: Pixels = np.asarray(self._preprocessing.square(seen))
        if self._room >= pixels.nbytes:  # threads may overdraw by a picture each
            self._room -= pixels.nbytes
            self._kept[picture, view] = pixels
        return pixels
