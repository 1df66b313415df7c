"""Large JPEGs decoded to a part of their size: the same picture to the model, and the same facts about it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

import bad_pictures as bad
from nunbit.errors import ImageError
from nunbit.images import ImageInfo, open_image
from nunbit.preprocessing import AnyPreprocessing, FlexiblePreprocessing, Preprocessing

ZERO, LEVEL = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # pixels come out as grey levels, from 0 to 255
CROP = Preprocessing(224, 1.0, ZERO, LEVEL, "crop", "bicubic")
SQUASH = Preprocessing(224, 1.0, ZERO, LEVEL, "squash", "bilinear")
FLEXIBLE = FlexiblePreprocessing(16, 256, ZERO, LEVEL, "bilinear")
SMALL = Preprocessing(20, 0.9, ZERO, LEVEL, "crop", "bicubic")
KINDS = {"crop": CROP, "squash": SQUASH, "flexible": FLEXIBLE}
MOST = 3  # grey levels


def both_ways(data: bytes, preprocessing: AnyPreprocessing) -> tuple[np.ndarray[Any, Any], ImageInfo]:
    """Grey levels by which the quick way differs from the exact one, and what the quick way says of the picture."""
    image, full = open_image(data)
    exact = preprocessing(image, full)
    np.testing.assert_array_equal(exact, preprocessing(image))
    small, info = open_image(data, needed=preprocessing.resized)
    assert (info.width, info.height, info.taken, info.format) == (full.width, full.height, full.taken, full.format)
    assert small.size == (-(-info.width // info.scale), -(-info.height // info.scale))
    got = preprocessing(small, info)
    assert got.shape == exact.shape
    return np.abs(got - exact), info


@pytest.fixture(scope="module")
def large(shared: Path) -> list[bytes]:
    """Photographs of 12 megapixels: enlarged ones, with the fine structure of others and a sensor's noise."""
    paths = sorted((shared / "data/coco/images").iterdir())
    rng = np.random.default_rng(0)
    files = []
    for number, size in ((0, (4000, 3000)), (58, (4001, 2999)), (174, (3000, 4000))):
        with Image.open(paths[number]) as photo, Image.open(paths[number + 1]) as other:
            pixels = np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.int16)
            grey = other.convert("L")
            coarse = grey.resize((64, 64)).resize(grey.size, Image.Resampling.BICUBIC)
        fine = np.asarray(grey, np.int16) - np.asarray(coarse, np.int16)
        fine = np.tile(fine, (size[1] // fine.shape[0] + 1, size[0] // fine.shape[1] + 1))[: size[1], : size[0]]
        noisy = pixels + (fine // 3 + rng.normal(0, 4, fine.shape).astype(np.int16))[..., None]
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        files += [bad.encoded(image, "JPEG", quality=90, subsampling=chroma) for chroma in ("4:4:4", "4:2:0")]
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_large_photographs_look_the_same(large: list[bytes], kind: str) -> None:
    for data in large:
        difference, info = both_ways(data, KINDS[kind])
        assert info.scale in ((2, 4) if kind == "flexible" else (4,))
        assert difference.max() <= MOST + 1e-3


def test_photographs_of_the_web_are_decoded_whole(shared: Path) -> None:
    for path in sorted((shared / "data/coco/images").iterdir())[::40]:
        for preprocessing in KINDS.values():
            difference, info = both_ways(path.read_bytes(), preprocessing)
            assert (difference.max(), info.scale) == (0, 1)


def smooth(width: int, height: int) -> Image.Image:
    """Colors that change slowly, each corner another one: what is misplaced by a part of a pixel shows."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = (np.sin(9 * x + 1), np.cos(7 * y), np.sin(5 * x + 6 * y))
    return Image.fromarray((127.5 + 110 * np.stack(waves, -1)).astype(np.uint8))


def turned(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return bad.encoded(image, "JPEG", quality=97, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (644, 484), (403, 353), (607, 482)])
@pytest.mark.parametrize("kind", ["crop", "squash", "flexible"])
def test_every_orientation_and_remainder(orientation: int, size: tuple[int, int], kind: str) -> None:
    flexible = FlexiblePreprocessing(4, 30, ZERO, LEVEL, "bicubic")
    preprocessing = {"crop": SMALL, "squash": Preprocessing(20, 1.0, ZERO, LEVEL, "squash", "bicubic")}.get(
        kind, flexible
    )
    difference, info = both_ways(turned(smooth(*size), orientation), preprocessing)
    assert (info.width, info.height) == (size if orientation < 5 else size[::-1])
    if orientation == 1 or not any(side % 4 for side in size):
        assert info.scale >= 4
    assert difference.max() <= MOST


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_function_is_asked_about_the_upright_picture(orientation: int) -> None:
    asked: list[tuple[int, int]] = []

    def needed(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return (50, 10) if orientation == 1 else (10, 50)

    image, info = open_image(turned(smooth(640, 160), orientation), needed=needed)
    assert asked == [(640, 160) if orientation == 1 else (160, 640)]
    assert (info.scale, sorted(image.size)) == (4, [40, 160])


@pytest.mark.parametrize(("size", "scale"), [((480, 240), 8), ((479, 240), 4), ((240, 120), 4), ((119, 60), 1)])
def test_three_times_the_needed_size_is_left(size: tuple[int, int], scale: int) -> None:
    _, info = open_image(bad.encoded(smooth(*size), "JPEG"), needed=lambda width, height: (20, 10))
    assert info.scale == scale


@pytest.mark.parametrize("size", [(2000, 240), (240, 2000)])
def test_a_very_long_picture_is_decoded_whole(size: tuple[int, int]) -> None:
    difference, info = both_ways(
        bad.encoded(smooth(*size), "JPEG"), Preprocessing(8, 1.0, ZERO, LEVEL, "crop", "bicubic")
    )
    assert (difference.max(), info.scale) == (0, 1)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_all_kinds_of_jpeg(mode: str, progressive: bool) -> None:
    data = bad.encoded(smooth(640, 480).convert(mode), "JPEG", quality=95, progressive=progressive)
    difference, info = both_ways(data, SMALL)
    assert info.scale == 4
    assert difference.max() <= MOST


def test_only_files_of_jpeg_are_reduced() -> None:
    photo = smooth(640, 480)
    data = bad.encoded(photo, "JPEG")
    for source in (bad.encoded(photo, "PNG"), photo, np.asarray(photo)):
        image, info = open_image(source, needed=SMALL.resized)
        assert (image.size, info.scale) == ((640, 480), 1)
    with Image.open(io.BytesIO(data)) as own:
        assert open_image(own, needed=SMALL.resized)[0].size == (640, 480)
        assert own.size == (640, 480), "a caller's picture was changed"


def test_limits_and_damage_are_those_of_the_whole_picture() -> None:
    data = bad.encoded(smooth(640, 480), "JPEG")
    with pytest.raises(ImageError) as caught:
        open_image(data, max_pixels=300_000, needed=SMALL.resized)
    assert caught.value.reason == "too many pixels"
    for length in (3, 400, len(data) // 2, len(data) - 200):
        reasons = []
        for needed in (None, SMALL.resized):
            with pytest.raises(ImageError) as caught:
                open_image(data[:length], needed=needed)
            reasons.append(caught.value.reason)
        assert reasons[0] == reasons[1]
