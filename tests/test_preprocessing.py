"""`Preprocessing`: the center crop equals the plain way, long pictures stay small, any size gives the shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import bad_pictures as bad
import clip_models  # noqa: F401  (makes torchvision importable for the reference)
from nunbit.errors import ImageError, UsageError
from nunbit.images import open_image
from nunbit.preprocessing import FlexiblePreprocessing, Preprocessing
from nunbit.pretrained.image_processor import CLIP_MEAN, CLIP_STD

MEAN, STD = (0.48, 0.45, 0.41), (0.27, 0.26, 0.28)


def preprocessing(size: int = 32, fraction: float = 0.875, **options: Any) -> Preprocessing:
    return Preprocessing(size, fraction, MEAN, STD, **{"resize": "crop", "interpolation": "bicubic"} | options)


def plainly(image: Image.Image, size: int, fraction: float, kernel: Image.Resampling) -> np.ndarray[Any, Any]:
    """Resize everything, then cut the center out."""
    shorter = round(size / fraction)
    width, height = (shorter * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.resize((width, height), kernel).crop((left, top, left + size, top + size)), np.float32)


@pytest.mark.parametrize("shape", [(640, 480), (333, 500), (224, 224), (20, 31), (300, 2000), (5, 4)])
@pytest.mark.parametrize("fraction", [0.875, 1.0, 0.9])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_equals_the_plain_way(shape: tuple[int, int], fraction: float, interpolation: Any) -> None:
    image = bad.photo(*shape)
    got = preprocessing(96, fraction, interpolation=interpolation)(image)
    pixels = (got.transpose(1, 2, 0) * np.array(STD) + MEAN) * 255
    expected = plainly(image, 96, fraction, Image.Resampling[interpolation.upper()])
    assert np.abs(pixels - expected).max() <= 1.01


def test_squash_and_values() -> None:
    image = Image.new("RGB", (50, 10), (255, 128, 0))
    got = preprocessing(8, resize="squash")(image)
    assert got.dtype == np.float32 and got.shape == (3, 8, 8) and got.flags.c_contiguous
    expected = [(value / 255 - mean) / std for value, mean, std in zip((255, 128, 0), MEAN, STD, strict=True)]
    np.testing.assert_allclose(got[:, 3, 3], expected, rtol=1e-5)
    halves = Image.new("RGB", (40, 8), bad.WHITE)
    halves.paste((0, 0, 0), (0, 0, 8, 8))  # outside of the center square
    assert preprocessing(8, resize="squash")(halves).min() < -1 < preprocessing(8, 1.0)(halves).min()


def test_normalization_to_the_last_bit() -> None:
    image = bad.photo(32, 32)
    got = Preprocessing(32, 1.0, CLIP_MEAN, CLIP_STD, "squash", "bicubic")(image)
    expected = (np.asarray(image, np.float32) / np.float32(255) - np.float32(CLIP_MEAN)) / np.float32(CLIP_STD)
    np.testing.assert_array_equal(got, expected.transpose(2, 0, 1))
    assert got.flags.c_contiguous


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1)])
def test_long_pictures_stay_small(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    results: list[int] = []
    resize = Image.Image.resize

    def spy(self: Image.Image, target: Any, *rest: Any, **options: Any) -> Image.Image:
        results.append(target[0] * target[1])
        assert max(results) <= 8 * 256 * 256
        return resize(self, target, *rest, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    pixels = preprocessing(224)(Image.new("RGB", size, bad.GREEN))
    assert results and pixels.shape == (3, 224, 224)
    np.testing.assert_allclose(pixels[1], (1 - MEAN[1]) / STD[1], rtol=1e-5)


@pytest.mark.parametrize("upright", [True, False])
def test_very_long_pictures_show_their_center_precisely(upright: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4_000_000, 1, 3)).astype(np.uint8)
    long, center = (
        Image.fromarray(p if upright else p.transpose(1, 0, 2)) for p in (pixels, pixels[1_999_996:2_000_004])
    )
    np.testing.assert_array_equal(preprocessing(224)(long), preprocessing(224)(center))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 600),
    st.integers(1, 600),
    st.sampled_from([1, 7, 32, 64]),
    st.floats(0.05, 1),
    st.sampled_from(["crop", "squash"]),
)
def test_any_size_gives_the_shape(width: int, height: int, size: int, fraction: float, resize: str) -> None:
    pixels = preprocessing(size, fraction, resize=resize)(Image.new("RGB", (width, height), (255, 255, 0)))
    assert pixels.shape == (3, size, size) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0], (1 - MEAN[0]) / STD[0], rtol=1e-5)


def test_pixels_equal_published_ones_exactly(shared: Path) -> None:
    folder = shared / "golden/clip_retrieval"
    clip = Preprocessing(224, 1.0, CLIP_MEAN, CLIP_STD, "crop", "bicubic")
    compared = 0
    for path in sorted(folder.glob("tensors/*.npz")):
        with np.load(path) as archive:
            for expected, name in zip(archive["image_tensor"], archive["names"], strict=True):
                image, _ = open_image(folder / "images" / f"{name}.jpg")
                assert np.abs(clip(image) - expected).max() == 0.0
                compared += 1
    assert compared == 7


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (16, 16), (2000, 30), (1, 900), (224, 224)])
@pytest.mark.parametrize("most", [16, 256])
def test_flexible_sizes_equal_the_reference(size: tuple[int, int], most: int) -> None:
    reference = pytest.importorskip("transformers.models.siglip2.image_processing_siglip2")
    preprocessing = FlexiblePreprocessing(16, most, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
    width, height = size
    expected = reference.get_image_size_for_max_num_patches(height, width, 16, most)
    pixels = preprocessing(Image.new("RGB", size, bad.GREEN))
    assert pixels.shape == (3, *expected)
    assert expected[0] * expected[1] <= 16 * 16 * most


def test_settings() -> None:
    settings_ = preprocessing().to_dict()
    assert Preprocessing(**settings_) == preprocessing()
    assert json.loads(json.dumps(settings_))["resize"] == "crop"
    assert refused_mode().reason == "unsupported pixels"
    for wrong in ({"size": 0}, {"fraction": 0.0}, {"fraction": 1.1}, {"resize": "pad"}, {"interpolation": "box"}):
        with pytest.raises(UsageError):
            preprocessing(**wrong)
    with pytest.raises(UsageError):
        Preprocessing(8, 1.0, MEAN, (1.0, 0.0, 1.0), "crop", "bicubic")


def refused_mode() -> ImageError:
    with pytest.raises(ImageError) as caught:
        preprocessing()(Image.new("L", (4, 4)))
    return caught.value
