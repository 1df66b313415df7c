"""RGB pictures → the numbers that a vision encoder was trained on: the only preprocessing.

Place in the river: behind `nunbit.images`. Each model family has its own size, filter, crop and normalization; a wrong
one costs accuracy without any error, so all of them are part of a model's fingerprint.

Shapes: H W pixels, S ``image_size``, p ``patch_size``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from nunbit.errors import ImageError, UsageError

if TYPE_CHECKING:
    from nunbit.images import ImageInfo
    from nunbit.types import FloatArray

_MAX_PROPORTION = 8
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
_KNOWN = "'bicubic', 'bilinear' or 'lanczos'"
Interpolation: TypeAlias = Literal["bicubic", "bilinear", "lanczos"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an RGB picture to the numbers that a vision encoder was trained on.

    Attributes:
        image_size: S, the side of the square that comes out, in pixels.
        crop_fraction: In (0, 1], for ``"crop"``: S over the shorter side before the crop.
        mean: Of red, green and blue, on the scale [0, 1]; subtracted.
        std: Of red, green and blue, on the scale [0, 1]; divided by.
        resize: ``"crop"`` makes the shorter side ``round(S / crop_fraction)`` and takes the center; ``"squash"`` makes
            both sides S, whatever the proportions were.
        interpolation: Pillow's filter, which averages when it makes a picture smaller.

    Raises:
        UsageError: A value outside of its range.
    """

    image_size: int
    crop_fraction: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Literal["crop", "squash"]
    interpolation: Interpolation

    def __post_init__(self) -> None:
        if self.image_size < 1 or not 0 < self.crop_fraction <= 1:
            raise UsageError(f"{self}: expected image_size of at least 1 and crop_fraction in (0, 1]")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise UsageError(f"{self}: expected three numbers each for mean and std, std above 0")
        if self.resize not in ("crop", "squash") or self.interpolation not in _FILTERS:
            raise UsageError(f"{self}: expected resize 'crop' or 'squash', interpolation {_KNOWN}")

    def __call__(self, image: Image.Image, info: ImageInfo | None = None) -> FloatArray:
        """Resize and normalize.

        Args:
            image: A picture in mode RGB of any size, as `open_image` gives it.
            info: What `open_image` said about it. Needed where that decoded it to a part of its size: then what comes
                out shows the same as of the whole picture, to a fraction of a pixel.

        Returns:
            (3, S, S) float32, ``(pixel / 255 - mean) / std``.

        Raises:
            ImageError: The picture is not in mode RGB.
        """
        return _normalize(self.square(image, info), self.mean, self.std)

    @property
    def kernel(self) -> Image.Resampling:
        """Pillow's filter."""
        return _FILTERS[self.interpolation]

    def square(self, image: Image.Image, info: ImageInfo | None = None) -> Image.Image:
        """Resize only: the picture (S, S) that is looked at, before its numbers are normalized."""
        _check_rgb(image)
        side, kernel = self.image_size, self.kernel
        if self.resize == "squash":
            return image.resize((side, side), kernel, _extent(info))
        return self._crop(image, info, kernel)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a whole picture of that size is resized to, before anything is cut off."""
        if self.resize == "squash":
            return self.image_size, self.image_size
        if max(width, height) > _MAX_PROPORTION * min(width, height):
            return width, height  # it is cut before it is resized, and must be decoded whole for that
        shorter = max(self.image_size, round(self.image_size / self.crop_fraction))
        return shorter * width // min(width, height), shorter * height // min(width, height)

    def to_dict(self) -> dict[str, Any]:
        """Give all settings as plain values, for files and fingerprints."""
        return asdict(self)

    def _crop(self, image: Image.Image, info: ImageInfo | None, kernel: Image.Resampling) -> Image.Image:
        """Make the shorter side ``round(S / crop_fraction)`` and take the center, as torchvision rounds.

        To resize the center alone, with Pillow's ``box``, is quicker but not the same: a box is rounded to float32.

        A very long picture is shortened first: the whole of a 1 x 20,000 picture would become 256 x 5,120,000.
        """
        longest = _MAX_PROPORTION * min(image.size)
        if max(image.size) > longest:
            left, top = (max(0, length - longest) // 2 for length in image.size)
            width, height = (min(length, longest) for length in image.size)
            # Not crop(), which asks Pillow's limit of the whole process.
            extent = (left, top, left + width, top + height)
            image, info = image.transform((width, height), Image.Transform.EXTENT, extent), None
        size = self.resized(*_true_size(image, info))
        resized = image.resize(size, kernel, _extent(info))
        left, top = (round((length - self.image_size) / 2) for length in size)
        return resized.crop((left, top, left + self.image_size, top + self.image_size))


@dataclass(frozen=True, slots=True)
class FlexiblePreprocessing:
    """Keep a picture's proportions, as SigLIP 2's NaFlex does (arXiv 2502.14786): as large as the patches allow.

    Attributes:
        patch_size: p, in pixels; both sides become multiples of it, so proportions change a little.
        max_num_patches: The most patches that a picture may become.
        mean: As in `Preprocessing`.
        std: As in `Preprocessing`.
        interpolation: Pillow's filter.

    Raises:
        UsageError: A value outside of its range.
    """

    patch_size: int
    max_num_patches: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.max_num_patches < 1:
            raise UsageError(f"{self}: expected patch_size and max_num_patches of at least 1")
        if self.interpolation not in _FILTERS or not all(value > 0 for value in self.std):
            raise UsageError(f"{self}: expected interpolation {_KNOWN}, std above 0")

    def __call__(self, image: Image.Image, info: ImageInfo | None = None) -> FloatArray:
        """Resize and normalize.

        Args:
            image: A picture in mode RGB of any size, as `open_image` gives it.
            info: As in `Preprocessing`.

        Returns:
            (3, h * p, w * p) float32 with ``h * w <= max_num_patches``.

        Raises:
            ImageError: The picture is not in mode RGB.
        """
        _check_rgb(image)
        size = self.resized(*_true_size(image, info))
        return _normalize(image.resize(size, _FILTERS[self.interpolation], _extent(info)), self.mean, self.std)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture of that size is resized to."""
        down, across = self.grid(height, width)
        return across * self.patch_size, down * self.patch_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches down and across for a picture of that size in pixels.

        The largest scale at which ``ceil(height * scale / p) * ceil(width * scale / p)`` still fits, found by
        halving an interval, with the constants of the reference so that borderline pictures agree.
        """

        def patches(scale: float) -> tuple[int, int]:
            down, across = (max(1, math.ceil(side * scale / self.patch_size)) for side in (height, width))
            return down, across

        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            middle = (low + high) / 2
            fits = math.prod(patches(middle)) <= self.max_num_patches
            low, high = (middle, high) if fits else (low, middle)
        return patches(low)

    def to_dict(self) -> dict[str, Any]:
        """Give all settings as plain values, for files and fingerprints."""
        return asdict(self)


def _check_rgb(image: Image.Image) -> None:
    if image.mode != "RGB":
        raise ImageError(
            "unsupported pixels", f"a picture in mode {image.mode}, expected RGB", hint="pass it through open_image"
        )


def _true_size(image: Image.Image, info: ImageInfo | None) -> tuple[int, int]:
    """Width and height of the whole picture, of which ``image`` may be a smaller form."""
    return image.size if info is None else (info.width, info.height)


def _extent(info: ImageInfo | None) -> tuple[float, float, float, float] | None:
    """What the whole picture fills of a smaller form of it, whose last pixels may stand for a part of one only."""
    return None if info is None else (0, 0, info.width / info.scale, info.height / info.scale)


def _normalize(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> FloatArray:
    """(3, H, W) float32, ``(pixel / 255 - mean) / std``."""
    pixels = np.asarray(image)  # (H, W, 3), bytes: quicker to turn than what they become
    values: FloatArray = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
    values /= np.float32(255)
    values -= np.asarray(mean, np.float32)[:, None, None]
    values /= np.asarray(std, np.float32)[:, None, None]
    return values


AnyPreprocessing: TypeAlias = Preprocessing | FlexiblePreprocessing
