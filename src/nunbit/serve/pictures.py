"""Pictures of requests and of the index → bytes → what the encoder reads. Nothing here trusts a name or a type."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nunbit.errors import ImageError
from nunbit.images import open_image
from nunbit.preprocessing import AnyPreprocessing
from nunbit.serve.batching import Pixels
from nunbit.serve.problems import Problem

if TYPE_CHECKING:
    from PIL import Image

    from nunbit.images import ImageInfo, NeededSize

_DATA_URL = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?P<more>(;[\w.+=-]+)*),", re.ASCII)
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE | re.ASCII)
_LEAST_SIDE = 4
_DATA_URL_HEAD = 1000  # characters before the data; each costs the expression memory


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture: left, top, width and height as shares of its sides, in [0, 1]."""

    left: float
    top: float
    width: float
    height: float


def picture_bytes(text: str, param: str) -> bytes:
    """A data URL or plain base64 → the bytes of a file.

    Raises:
        Problem: 400, for any other URL, and for what is no base64.
    """
    if match := _DATA_URL.match(text, 0, _DATA_URL_HEAD):
        if not match["more"].endswith(";base64"):
            raise Problem(400, "bad_picture", "the data URL is not in base64", "data:image/jpeg;base64,...", param)
        text = text[match.end() :]
    elif _REMOTE.match(text):
        hint = "send a data URL or upload the file; a server that was started with --fetch takes http and https"
        raise Problem(400, "remote_url", "this server fetches no pictures from such an address", hint, param)
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        hint = "send a data URL, base64, or upload the file"
        raise Problem(400, "bad_picture", "the picture is not valid base64", hint, param) from None
    if not content:
        raise Problem(400, "bad_picture", "the picture has no bytes", "", param)
    return content


def open_part(
    content: bytes, region: Region | None, *, max_pixels: int, needed: NeededSize | None = None
) -> tuple[Image.Image, ImageInfo]:
    """Decode a picture, or a region of it, which is decoded in full.

    Raises:
        ImageError: As `open_image`, or a region of less than four pixels.
    """
    if region is None:
        return open_image(content, max_pixels=max_pixels, needed=needed)
    image, info = open_image(content, max_pixels=max_pixels)
    left, top = round(region.left * image.width), round(region.top * image.height)
    right = min(image.width, round((region.left + region.width) * image.width))
    bottom = min(image.height, round((region.top + region.height) * image.height))
    if right - left < _LEAST_SIDE or bottom - top < _LEAST_SIDE:
        raise ImageError("region too small", f"the region has {right - left} x {bottom - top} pixels, 4 x 4 is least")
    part, _ = open_image(image.crop((left, top, right, bottom)))
    return part, info


def decode(content: bytes, preprocessing: AnyPreprocessing, region: Region | None = None, *, max_pixels: int) -> Pixels:
    """The bytes of a file → pixels as the encoder reads them, and what is known of the whole picture."""
    image, info = open_part(content, region, max_pixels=max_pixels, needed=preprocessing.resized)
    part_info = info if region is None else open_image(image)[1]
    return Pixels(preprocessing(image, part_info), info)


def read_picture_file(path: str, roots: tuple[Path, ...], max_bytes: int) -> bytes:
    """Read a file that the index names, if it lies where the server may read.

    It is judged by where the opened file really is, so a link that is put in its place afterwards opens nothing.

    Args:
        path: Absolute.
        roots: Folders, resolved, one of which it must be in; none allows every file.
        max_bytes: Larger files are refused.

    Raises:
        Problem: 404, with a reason that does not tell where the file would be.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise Problem(404, "file_gone", "the picture's file cannot be read any more") from None
    with os.fdopen(number, "rb") as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            raise Problem(404, "file_gone", "the picture's file is no picture any more")
        if roots:
            real = Path(os.path.realpath(f"/proc/self/fd/{number}" if os.path.isdir("/proc/self/fd") else path))
            if not any(real.is_relative_to(root) for root in roots):
                raise Problem(404, "outside_root", "the picture's file is outside of what this server may read")
        return file.read()
