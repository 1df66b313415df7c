"""`open_image`: every kind of picture gets in rightly, or is refused with its reason."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

import bad_pictures as bad
from nunbit.errors import ImageError
from nunbit.images import MAX_PIXELS, ImageInfo, find_images, open_image
from nunbit.preprocessing import Preprocessing


def refused(source: Any, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(source, **options)
    assert "\n" not in str(caught.value)
    return caught.value


# ---- open_image: the kinds -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")  # Pillow tells of damaged EXIF
@pytest.mark.parametrize("given_as", ["path", "bytes"])
@pytest.mark.parametrize("writer", bad.WRITERS, ids=lambda writer: writer.__name__)
def test_every_kind(tmp_path: Path, writer: Callable[[Path], bad.Odd], given_as: str) -> None:
    odd = writer(tmp_path)
    if given_as == "bytes" and odd.path.is_symlink():
        pytest.skip("a link has no bytes")
    source = odd.path if given_as == "path" else odd.path.read_bytes()
    if odd.reason is not None:
        assert refused(source).reason == odd.reason
        return
    image, info = open_image(source)
    assert (image.mode, image.size, (info.width, info.height)) == ("RGB", odd.size, odd.size)
    assert np.abs(np.asarray(image)[0, 0].astype(int) - odd.pixel).max() <= odd.tolerance
    again, _ = open_image(image)
    assert again.tobytes() == image.tobytes(), "opening what was opened changes nothing, not even the rotation"
    pixels = Preprocessing(32, 0.875, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3), "crop", "bicubic")(image)
    assert np.isfinite(pixels).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int, format: str) -> None:
    odd = bad.rotated(tmp_path, orientation, format)
    for source in (odd.path, Image.open(odd.path)):
        image, info = open_image(source)
        assert (info.width, info.height, info.format) == (48, 32, format)
        pixels = np.asarray(image).astype(int)
        assert np.abs(pixels[2:12, 2:20] - bad.RED).max() < 40
        assert np.abs(pixels[20:, 28:] - bad.WHITE).max() < 40
        assert np.abs(pixels[2:12, 28:] - bad.WHITE).max() < 40


def test_16_bit_ramp_stays_a_ramp() -> None:
    levels = np.arange(0, 65536, 256, dtype=np.uint16)[None]
    for image in (Image.fromarray(levels), Image.fromarray(levels.astype(np.int32))):
        got = np.asarray(open_image(image)[0])[0, :, 0].astype(float)
        np.testing.assert_allclose(got, levels[0] / 257, atol=0.5)
    assert np.asarray(open_image(bad.encoded(Image.fromarray(levels), "PNG"))[0])[0, -1, 0] == 254


def test_cmyk_is_stored_inverted_and_all_four_inks_count(tmp_path: Path) -> None:
    assert b"Adobe" in bad.cmyk(tmp_path).path.read_bytes()[:200]
    black = bad.encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG")
    assert np.asarray(open_image(black)[0]).max() <= 3


@pytest.mark.parametrize("mode", ["L", "RGBX", "YCbCr", "HSV", "LAB", "PA", "La", "RGBa", "F", "I;16B"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert open_image(Image.new(mode, (5, 4)))[0].mode == "RGB"


@pytest.mark.parametrize("format", ["BMP", "PPM", "AVIF", "TIFF"])
def test_other_formats(format: str) -> None:
    if format == "AVIF":
        pytest.importorskip("PIL._avif", reason="this Pillow was built without AVIF")
    image, info = open_image(bad.encoded(Image.new("RGB", (7, 5), bad.RED), format))
    assert info == ImageInfo(7, 5, None, format)
    assert np.abs(np.asarray(image).astype(int) - bad.RED).max() <= 6


def test_time_taken(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2024:05:02 01:02:03"
    path = tmp_path / "a.jpg"
    bad.photo().save(path, exif=exif)
    assert open_image(path)[1].taken == "2024-05-02T01:02:03"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 12:30:00\0"
    bad.photo().save(path, exif=exif)
    assert open_image(path)[1].taken == "2024-05-01T12:30:00"
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    exif[0x0112] = 6
    bad.photo().save(path, exif=exif)
    assert open_image(path)[1] == ImageInfo(48, 64, None, "JPEG")


# ---- open_image: pixels ----------------------------------------------------------------------------------------------


def test_arrays() -> None:
    pixels = np.asarray(bad.photo())
    assert open_image(pixels)[1] == ImageInfo(64, 48, None, "")
    np.testing.assert_array_equal(open_image(pixels)[0], pixels)
    np.testing.assert_array_equal(open_image(pixels[::-1, ::2])[0], pixels[::-1, ::2])
    np.testing.assert_array_equal(open_image(pixels / 255)[0], pixels)
    np.testing.assert_array_equal(open_image((pixels / 255).astype(np.float16))[0], pixels)
    np.testing.assert_array_equal(np.asarray(open_image(pixels[:, :, 0])[0])[:, :, 2], pixels[:, :, 0])
    assert open_image(np.zeros((2, 2, 4), np.uint8))[0].getpixel((0, 0)) == bad.WHITE


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4), bool),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.float32),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.full((4, 4), 1.01),
        np.full((4, 4), -0.01),
        np.full((4, 4), np.nan),
        np.array([["a", "b"]]),
        Image.new("RGB", (0, 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pixels_that_mean_nothing(array: Any) -> None:
    assert refused(array).reason == "unsupported pixels"


@pytest.mark.parametrize(
    "source", [None, 3, [1, 2], bytearray(b"abc"), io.BytesIO(b"abc")], ids=lambda value: type(value).__name__
)
def test_sources_that_are_none(source: Any) -> None:
    assert refused(source).reason == "unsupported source"


def test_the_given_picture_is_left_as_it_was() -> None:
    image = bad.photo()
    image.info["note"] = "mine"
    opened, _ = open_image(image)
    opened.paste(bad.RED, (0, 0, 64, 48))
    assert image.info == {"note": "mine"} and image.tobytes() == bad.photo().tobytes()


# ---- open_image: limits ----------------------------------------------------------------------------------------------


def test_bomb_is_refused_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", loads.append)
    error = refused(bad.bomb(tmp_path).path)
    assert error.reason == "too many pixels" and "100000 x 100000" in error.message
    assert f"{MAX_PIXELS:,}" in error.message and loads == []


def test_limit_is_exact_and_holds_for_pixels() -> None:
    pixels = np.zeros((10, 10, 3), np.uint8)
    for source in (pixels, Image.fromarray(pixels), bad.encoded(Image.fromarray(pixels), "PNG")):
        assert open_image(source, max_pixels=100)[1].width == 10
        assert refused(source, max_pixels=99).reason == "too many pixels"


@pytest.mark.parametrize("action", ["error", "default", "ignore"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_pillows_limit_of_the_process_is_left_alone(monkeypatch: pytest.MonkeyPatch, format: str, action: Any) -> None:
    """It changes no outcome, whatever the warning filters; but some readers ask it, and then the error is ours."""
    data = bad.encoded(Image.new("RGB", (12, 10), bad.RED), format)
    for pillow_limit in (100, 10):  # for 120 pixels, Pillow would warn at the first and raise at the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
        asks = {"WEBP": pillow_limit == 10, "TIFF": pillow_limit == 10 or action == "error"}.get(format, False)
        with warnings.catch_warnings(record=True) as told, ThreadPoolExecutor(4) as pool:
            warnings.simplefilter(action)
            if asks:
                assert {error.reason for error in pool.map(refused, [data] * 8)} == {"too many pixels"}
            else:
                assert {info.width for _, info in pool.map(open_image, [data] * 8)} == {12}
            assert refused(data, max_pixels=119).reason == "too many pixels"
        assert (told == [] or format == "TIFF") and pillow_limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("raised", [Image.DecompressionBombError, Image.DecompressionBombWarning])
def test_a_bomb_seen_by_pillow_is_the_same_error(monkeypatch: pytest.MonkeyPatch, raised: type[Exception]) -> None:
    def load(self: object) -> None:
        raise raised("Image size (12 pixels) exceeds limit")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert refused(bad.encoded(bad.photo(), "PNG")).reason == "too many pixels"


def test_too_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(70_000_000)
    assert refused(path, max_pixels=100).reason == "too many bytes"


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (MemoryError(), "out of memory"),
        (OSError("broken data stream"), "damaged"),
        (OSError("image file is truncated (3 bytes not processed)"), "truncated"),
        (OSError(5, "Input/output error"), "not readable"),
        (SyntaxError("no"), "damaged"),
        (ValueError(), "damaged"),
        (EOFError(), "truncated"),
        (RecursionError(), "damaged"),
        (UserWarning("as an error"), "damaged"),
    ],
    ids=repr,
)
def test_whatever_pillow_raises(monkeypatch: pytest.MonkeyPatch, raised: Exception, reason: str) -> None:
    def load(self: object) -> None:
        raise raised

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert refused(bad.encoded(bad.photo(), "PNG")).reason == reason


def test_interrupts_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(KeyboardInterrupt):
        open_image(bad.encoded(bad.photo(), "PNG"))


@pytest.mark.filterwarnings("error")
def test_corrupt_exif_loses_no_picture_where_warnings_are_errors(tmp_path: Path) -> None:
    assert open_image(bad.corrupt_exif(tmp_path).path)[1] == ImageInfo(8, 8, None, "JPEG")


PAIR = {"save_all": True, "append_images": [bad.photo()]}
SAMPLES = [bad.encoded(bad.photo(), name) for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")]
SAMPLES += [bad.encoded(bad.photo(), "TIFF", compression="tiff_lzw"), bad.encoded(bad.photo(), "MPO", **PAIR)]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff\xd8\xff")
@example(b"BM")
@example(b"P5 3 3 255\n")
@example(b"\0\0\0\x20ftypmif1")
def test_any_bytes_raise_nothing_but_image_errors(data: bytes) -> None:
    try:
        open_image(data)
    except ImageError as error:
        assert error.reason


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8), st.data())
def test_damaged_bytes_raise_nothing_but_image_errors(
    data: bytes, changes: list[tuple[int, int]], draw: st.DataObject
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        image, _ = open_image(bytes(damaged[: draw.draw(st.integers(0, len(damaged)))]), max_pixels=1_000_000)
    except ImageError as error:
        assert error.reason
    else:
        assert image.mode == "RGB"


# ---- open_image: files -----------------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert refused(tmp_path / "nothing.jpg").reason == "missing"
    assert refused(str(tmp_path / "nothing.jpg" / "below.jpg")).reason == "missing"
    assert refused(tmp_path / ("n" * 5000)).reason == "missing"
    assert refused("").reason == "missing"
    assert "two\\nlines.jpg" in refused(tmp_path / "two\nlines.jpg").message
    assert refused("nul\0.jpg").reason == "missing"
    assert refused(tmp_path / "loop.jpg").reason == "broken link"
    assert refused(tmp_path).reason == "a folder"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(refused(tmp_path / "pipe.jpg").reason), daemon=True)
    thread.start()
    thread.join(5)
    assert reasons == ["not a file"]


@pytest.mark.parametrize(
    ("raised", "reason"),
    [(PermissionError(13, "Permission denied"), "not readable"), (FileNotFoundError(2, "No such file"), "missing")],
)
def test_opening_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: OSError, reason: str) -> None:
    """A file without permission (simulated, for root may read everything), or one that vanishes before it is opened."""
    path = bad.one_by_one(tmp_path).path

    def failing_open(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("builtins.open", failing_open)
    assert refused(path).reason == reason


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_without_permission(tmp_path: Path) -> None:
    path = bad.one_by_one(tmp_path).path
    path.chmod(0)
    assert refused(path).reason == "not readable"


def test_vanished_midway(tmp_path: Path) -> None:
    for writer in (bad.one_by_one, bad.gray16):
        writer(tmp_path)
    reasons = []
    for found in find_images([tmp_path]):
        assert isinstance(found, Path)
        found.unlink()
        reasons.append(refused(found).reason)
    assert reasons == ["missing", "missing"]


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files here")
def test_files_are_closed(tmp_path: Path) -> None:
    paths = [
        odd.path for odd in (bad.truncated_png(tmp_path), bad.animated_gif(tmp_path), bad.rotated(tmp_path, 6, "TIFF"))
    ]
    before = len(os.listdir("/proc/self/fd"))
    kept = []
    for path in paths:
        try:
            kept.append(open_image(path))
        except ImageError as error:
            kept.append(error)  # type: ignore[arg-type]
    assert len(os.listdir("/proc/self/fd")) == before and len(kept) == 3
