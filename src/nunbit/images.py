"""Pictures in: the only place that opens them.

Place in the river: the first step. Sources become RGB pictures (`open_image`), and `nunbit.preprocessing` makes of
those what a vision encoder reads. Shapes: H W pixels.

Most of the time that a large photograph takes goes into pixels that are averaged away at once. A JPEG can be decoded to
a half, a quarter or an eighth of its size from the same bytes, which `open_image` does for who says how much he needs.

Pictures are not trusted. Only the formats in ``_FORMATS`` are decoded, each by its own Pillow class: ``Image.open``
compares the size with a limit that is global to the process and tells of it by a warning, which other threads may
silence or turn into an error. The limit here is an argument, checked on the header alone.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from nunbit.errors import ImageError
from nunbit.picture_files import find_images, one_line, why_unreachable

__all__ = ["MAX_PIXELS", "ImageInfo", "NeededSize", "find_images", "open_image"]

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.ImageFile import ImageFile

    from nunbit.types import ImageSource

MAX_PIXELS = 100_000_000
"""Pictures with more pixels than this are refused unless the caller allows more."""

_SPARE = 3  # how many times the needed size a picture keeps, both ways: resizing averages over so many pixels
_METADATA_BYTES = 1 << 26  # what a file may hold beside its pixels: thumbnails, profiles, further frames
_BYTES_PER_PIXEL = 8  # four channels of 16 bits, uncompressed
_SCANS = 500  # of the largest JPEG that is allowed; a camera writes a dozen, and each costs a pass over all pixels
_COMMENTS = 1000  # in a PPM that is written as text; each costs a copy of what follows it
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # orientations in which width and height change places

NeededSize: TypeAlias = Callable[[int, int], tuple[int, int]]
"""Width and height of a picture → width and height that it will be resized to."""


class _JpegFile(JpegImageFile):
    """A JPEG, or the first picture of an MPO, whatever its EXIF block and its list of further pictures look like."""

    def _read_dpi_from_exif(self) -> None:
        """Do nothing: nobody asks for the resolution, and looking for it in damaged EXIF can fail."""


# Signature, reader, and whether the signature alone proves the format: a text may well begin with "BM" or "P1".
_FORMATS: tuple[tuple[re.Pattern[bytes], type[ImageFile], bool], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _JpegFile, True),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile, True),
    (re.compile(rb"GIF8[79]a"), GifImageFile, True),
    (re.compile(rb"RIFF[\x00-\xff]{4}WEBP"), WebPImageFile, True),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile, True),
    (re.compile(rb"[\x00-\xff]{4}ftypavi[fs]"), AvifImageFile, True),
    (re.compile(rb"[\x00-\xff]{4}ftypm[is]f1"), AvifImageFile, False),
    (re.compile(rb"BM"), BmpImageFile, False),
    (re.compile(rb"P[1-6f]\s"), PpmImageFile, False),
)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is known about a picture beside its pixels.

    Attributes:
        width: In pixels, after EXIF rotation.
        height: In pixels, after EXIF rotation.
        taken: When the photograph was taken, as EXIF tells, in ISO 8601 without a time zone
            (``"2024-05-01T12:30:00"``); None when it does not tell.
        format: Pillow's name of the format (an MPO is a ``"JPEG"``); empty for pixels.
        scale: 1, or 2, 4 or 8 where a JPEG was decoded to that part of its size: then the picture that comes with this
            has ``ceil(width / scale)`` by ``ceil(height / scale)`` pixels.
    """

    width: int
    height: int
    taken: str | None
    format: str
    scale: int = 1


def open_image(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, needed: NeededSize | None = None
) -> tuple[Image.Image, ImageInfo]:
    """Decode one picture to RGB.

    EXIF rotation is applied, transparency is laid on white, 16 bits are scaled to 8, CMYK and palettes become RGB, and
    of an animation the first frame is taken (of a PIL picture the current one). Color profiles are not applied.

    Args:
        source: A path, the bytes of a file, a PIL picture, or an array of (H, W), (H, W, 3) or (H, W, 4), either uint8
            in [0, 255] or floating in [0, 1].
        max_pixels: Width times height above which a picture is refused, from its header, before decoding.
        needed: Width and height of the whole picture after EXIF rotation → the size that it will be resized to. Given
            this, a JPEG file is decoded to 1/2, 1/4 or 1/8 as long as three times that size is left in both directions.
            `Preprocessing.resized` is such a function; hand the information on to the preprocessing with the picture.

    Returns:
        The picture, in mode RGB and without metadata, and what is known about it.

    Raises:
        ImageError: Whatever is wrong with the picture. ``reason`` is one of ``"empty file"``, ``"truncated"``,
            ``"not an image"``, ``"damaged"``, ``"too many pixels"``, ``"too many bytes"``, ``"out of memory"``,
            ``"unsupported pixels"``, ``"unsupported source"``, ``"missing"``, ``"broken link"``, ``"not readable"``,
            ``"a folder"``, ``"not a file"``.
    """
    path = os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else ""
    name = one_line(path) if isinstance(source, (str, os.PathLike)) else f"the given {type(source).__name__}"
    with _only_image_errors(name, path):
        if isinstance(source, Image.Image):
            return _decode(source, name, max_pixels)
        if isinstance(source, np.ndarray):
            _check_size(source.shape[1::-1], name, max_pixels)
            return _decode(_from_array(source, name), name, max_pixels)
        if isinstance(source, (str, os.PathLike)):
            data = _read_file(path, name, _METADATA_BYTES + _BYTES_PER_PIXEL * max_pixels)
        elif isinstance(source, bytes):
            data = source
        else:
            raise ImageError("unsupported source", f"{name}: expected a path, bytes, a PIL picture or a numpy array")
        if not data:
            raise ImageError("empty file", f"{name}: there are no bytes in it")
        with _identify(data, name) as image:
            _check_work(image, data, name, max_pixels)
            return _decode(image, name, max_pixels, needed)


@contextmanager
def _only_image_errors(name: str, path: str) -> Iterator[None]:
    """Turn whatever Pillow and the system raise for a bad picture into an ImageError; let interrupts pass."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("out of memory", f"{name}: not enough memory to decode it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # The readers of GIF, TIFF and WebP ask Pillow's own limit too.
        raise ImageError("too many pixels", f"{name}: {one_line(str(error))}") from error
    except Exception as error:  # damaged files raise nearly everything: OSError, SyntaxError, struct.error, ...
        detail = one_line(str(error)) or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            reason = why_unreachable(path, error)
        elif "truncated" in detail.lower() or isinstance(error, EOFError):
            reason = "truncated"
        else:
            reason = "damaged"
        raise ImageError(reason, f"{name}: {detail}") from error


def _read_file(path: str, name: str, max_bytes: int) -> bytes:
    """Read a whole file: decoders then never meet a file that shrinks or vanishes under a memory map."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder", f"{name}: a folder, expected a picture", hint="list it with find_images")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise ImageError("not a file", f"{name}: a pipe, socket or device, expected a picture")
        if status.st_size > max_bytes:
            raise ImageError("too many bytes", f"{name}: {status.st_size:,} bytes, the limit is {max_bytes:,}")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = why_unreachable(path, error)
        raise ImageError(reason, f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _identify(data: bytes, name: str) -> ImageFile:
    """Read the header with the reader that the signature calls for; decodes no pixels."""
    for signature, reader, proven in _FORMATS:
        if not signature.match(data):
            continue
        stream = io.BytesIO(data)
        try:
            return reader(stream)
        except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise
        except Exception as error:
            if not proven:
                break
            if _ends_early(stream, data, reader):
                raise ImageError("truncated", f"{name}: {len(data):,} bytes, the header is cut off") from error
            raise
    raise ImageError("not an image", f"{name}: its content is none of JPEG, PNG, GIF, WebP, TIFF, AVIF, BMP, PPM")


def _ends_early(stream: io.BytesIO, data: bytes, reader: type[ImageFile]) -> bool:
    """Tell whether a header was not understood because the file is over."""
    if reader is WebPImageFile:  # states its length
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return reader is not AvifImageFile and stream.tell() >= len(data)  # AVIF is read to its end in any case


def _decode(
    image: Image.Image, name: str, max_pixels: int, needed: NeededSize | None = None
) -> tuple[Image.Image, ImageInfo]:
    _check_size(image.size, name, max_pixels)
    width, height = image.size
    scale = 1 if needed is None or not isinstance(image, _JpegFile) else _reduce(image, needed)
    image.load()
    orientation, taken = _read_exif(image)
    picture = _to_rgb(image, name)
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    if orientation in _LYING:
        width, height = height, width
    picture.info.clear()  # or the rotation would be applied again when the picture comes back here
    return picture, ImageInfo(width, height, taken, image.format or "", scale)


def _reduce(image: _JpegFile, needed: NeededSize) -> int:
    """Make a JPEG that is not decoded yet decode to a part of its size, and say to which: 1, 2, 4 or 8.

    Where the scale does not divide a side, the last pixels stand for less than a whole one. Turned, they would be the
    first ones, and nobody would expect them there: such a picture keeps to scales that divide both sides.
    """
    orientation, _ = _read_exif(image)
    width, height = image.size
    across, down = needed(height, width)[::-1] if orientation in _LYING else needed(width, height)
    for scale in (8, 4, 2):
        enough = width >= scale * _SPARE * across and height >= scale * _SPARE * down
        whole = width % scale == 0 and height % scale == 0
        if enough and (whole or orientation not in _TURNS):
            return scale if image.draft(None, (width // scale, height // scale)) else 1
    return 1


def _check_size(size: tuple[int, ...], name: str, max_pixels: int) -> None:
    if math.prod(size) > max_pixels:
        shown = " x ".join(str(side) for side in size)
        raise ImageError(
            "too many pixels",
            f"{name}: {shown} is {math.prod(size):,} pixels, the limit is {max_pixels:,}",
            hint="scale it down, or raise max_pixels if you trust it",
        )
    if math.prod(size) == 0:
        raise ImageError("unsupported pixels", f"{name}: it has no pixels")


def _check_work(image: ImageFile, data: bytes, name: str, max_pixels: int) -> None:
    """Refuse the two formats in which a few bytes cost as much as many pixels, when there are too many such bytes."""
    _check_size(image.size, name, max_pixels)
    scans = data.count(b"\xff\xda") if isinstance(image, _JpegFile) else 0  # pictures in metadata count too: spare room
    if scans * math.prod(image.size) > _SCANS * max_pixels:
        raise ImageError("damaged", f"{name}: {scans:,} scans of {image.width} x {image.height} pixels, expected a few")
    if re.match(rb"P[1-3]", data) and data.count(b"#") > _COMMENTS:
        raise ImageError("damaged", f"{name}: {data.count(b'#'):,} comments, expected at most {_COMMENTS:,}")


def _read_exif(image: Image.Image) -> tuple[int, str | None]:
    """Read the orientation (1 to 8, 1 is upright) and the time; damaged EXIF tells nothing but loses no picture."""
    orientation, taken = 1, None
    with suppress(Exception):  # Pillow raises nearly everything here; an empty or impossible date is a ValueError
        exif = image.getexif()
        value = exif.get(ExifTags.Base.Orientation)
        orientation = value if isinstance(value, int) else 1
        original = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        text = str(original or exif.get(ExifTags.Base.DateTime)).strip("\0 ")
        taken = datetime.strptime(text, "%Y:%m:%d %H:%M:%S").isoformat()
    return orientation, taken


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert a decoded picture of any mode to a new one in RGB."""
    if image.mode == "F":
        return _from_array(np.asarray(image), name).convert("RGB")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow clips at 255 by itself. Both modes hold 16 bits; v / 257 takes 65535 to 255.
        levels = [(value + 128) // 257 for value in range(65536)]
        transparent = image.info.get("transparency")
        if isinstance(transparent, int) and 0 <= transparent < len(levels):
            levels[transparent] = 255
        return image.convert("I").point(levels, "L").convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    canvas = Image.new("RGB", rgba.size, "white")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _from_array(array: npt.NDArray[Any], name: str) -> Image.Image:
    """Make a picture (L, RGB or RGBA) of an array: (H, W) or (H, W, 3 or 4), uint8 or floating in [0, 1]."""
    plain = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if plain and np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also false for NaN
            raise ImageError(
                "unsupported pixels", f"{name}: floating pixels from {array.min()} to {array.max()}, expected [0, 1]"
            )
        array = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if not plain or array.dtype != np.uint8:
        raise ImageError(
            "unsupported pixels",
            f"{name}: shape {array.shape}, {array.dtype}; expected (H, W), (H, W, 3) or (H, W, 4), uint8 or floating",
        )
    return Image.fromarray(np.ascontiguousarray(array))
