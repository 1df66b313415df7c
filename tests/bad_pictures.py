"""Odd and bad pictures, each written by one function that also says what is to come of it.

``write_all(folder)`` writes every kind and gives the list; the single writers serve tests of one kind.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@dataclass(frozen=True)
class Odd:
    """One written picture.

    Attributes:
        path: Where it is.
        reason: The ``ImageError.reason`` to expect; None when the picture is good.
        size: (width, height) of a good picture.
        pixel: The color (red, green, blue) to expect at the upper left, within ``tolerance``.
    """

    path: Path
    reason: str | None = None
    size: tuple[int, int] = (0, 0)
    pixel: tuple[int, int, int] = (0, 0, 0)
    tolerance: int = 3


def photo(width: int = 64, height: int = 48) -> Image.Image:
    """Give an RGB picture with gradients and some noise, the same at every call."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([columns * 255 // width, rows * 255 // height, (rows + columns) % 256], axis=-1)
    noise = np.random.default_rng(0).integers(-20, 20, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + png_chunk(b"IEND", b"")


def _put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def empty(folder: Path) -> Odd:
    return Odd(_put(folder, "empty.jpg", b""), "empty file")


def truncated_jpeg(folder: Path) -> Odd:
    data = encoded(photo(), "JPEG")
    return Odd(_put(folder, "truncated.jpg", data[: len(data) * 2 // 3]), "truncated")


def truncated_jpeg_header(folder: Path) -> Odd:
    return Odd(_put(folder, "truncated_header.jpg", encoded(photo(), "JPEG")[:20]), "truncated")


def truncated_png(folder: Path) -> Odd:
    data = encoded(photo(), "PNG")
    return Odd(_put(folder, "truncated.png", data[: len(data) // 2]), "truncated")


def truncated_webp(folder: Path) -> Odd:
    data = encoded(photo(), "WEBP")
    return Odd(_put(folder, "truncated.webp", data[: len(data) // 2]), "truncated")


def damaged_png(folder: Path) -> Odd:
    data = bytearray(encoded(photo(), "PNG"))
    data[60:80] = bytes(20)
    return Odd(_put(folder, "damaged.png", bytes(data)), "damaged")


def text(folder: Path) -> Odd:
    return Odd(_put(folder, "text.jpg", b"Dear diary, this is not a picture.\n" * 20), "not an image")


def text_like_bmp(folder: Path) -> Odd:
    return Odd(_put(folder, "text.bmp", b"BM is how this text begins.\n"), "not an image")


def postscript(folder: Path) -> Odd:
    body = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    return Odd(_put(folder, "postscript.jpg", body), "not an image")


def one_by_one(folder: Path) -> Odd:
    return Odd(_put(folder, "1x1.png", encoded(Image.new("RGB", (1, 1), RED), "PNG")), None, (1, 1), RED)


def one_by_20000(folder: Path) -> Odd:
    data = encoded(Image.new("RGB", (1, 20_000), GREEN), "PNG")
    return Odd(_put(folder, "1x20000.png", data), None, (1, 20_000), GREEN)


def bomb(folder: Path) -> Odd:
    """Write a PNG of a few bytes that says it has 10,000 million pixels."""
    return Odd(_put(folder, "bomb.png", png(100_000, 100_000, 8, 2, b"\0" * 1000)), "too many pixels")


def cmyk(folder: Path) -> Odd:
    """Write a CMYK JPEG as Adobe's programs do, inverted: cyan ink alone is (0, 255, 255)."""
    data = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95)
    return Odd(_put(folder, "cmyk.jpg", data), None, (16, 16), (0, 255, 255))


def gray16(folder: Path) -> Odd:
    """Write 16-bit middle gray, which Pillow's own conversion clips to white."""
    data = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0x8080, 0xFFFF))
    return Odd(_put(folder, "gray16.png", data), None, (2, 1), (128, 128, 128), 0)


def gray16_transparent(folder: Path) -> Odd:
    data = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0x1234, 0xFFFF), png_chunk(b"tRNS", b"\x12\x34"))
    return Odd(_put(folder, "gray16_transparent.png", data), None, (2, 1), WHITE, 0)


def rgb16(folder: Path) -> Odd:
    data = png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0xFFFF, 0x8080, 0))
    return Odd(_put(folder, "rgb16.png", data), None, (1, 1), (255, 128, 0), 1)


def palette(folder: Path) -> Odd:
    image = Image.new("RGB", (8, 8), BLUE).quantize(4)
    return Odd(_put(folder, "palette.png", encoded(image, "PNG")), None, (8, 8), BLUE)


def palette_transparent(folder: Path) -> Odd:
    """Write a black palette picture of which the one color is transparent."""
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    data = encoded(image, "PNG", transparency=bytes([0, 255]))
    return Odd(_put(folder, "palette_transparent.png", data), None, (8, 8), WHITE, 0)


def alpha(folder: Path) -> Odd:
    data = encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")
    return Odd(_put(folder, "alpha.png", data), None, (8, 8), WHITE, 0)


def alpha_half(folder: Path) -> Odd:
    data = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128)), "PNG")
    return Odd(_put(folder, "alpha_half.png", data), None, (8, 8), (255, 127, 127), 1)


def gray_alpha(folder: Path) -> Odd:
    return Odd(_put(folder, "la.png", encoded(Image.new("LA", (8, 8), (0, 0)), "PNG")), None, (8, 8), WHITE, 0)


def one_bit(folder: Path) -> Odd:
    return Odd(_put(folder, "1bit.png", encoded(Image.new("1", (9, 8), 1), "PNG")), None, (9, 8), WHITE, 0)


def _animation(format: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    options: dict[str, object] = {"lossless": True} if format == "WEBP" else {}
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)


def animated_gif(folder: Path) -> Odd:
    return Odd(_put(folder, "animated.gif", _animation("GIF")), None, (8, 8), RED)


def animated_webp(folder: Path) -> Odd:
    return Odd(_put(folder, "animated.webp", _animation("WEBP")), None, (8, 8), RED)


def mpo(folder: Path) -> Odd:
    data = encoded(Image.new("RGB", (8, 8), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)])
    return Odd(_put(folder, "pair.mpo", data), None, (8, 8), RED)


def rotated(folder: Path, orientation: int = 6, format: str = "JPEG") -> Odd:
    """Write a picture that is stored turned: upright it is 48 x 32, white with its upper left quarter red."""
    upright = Image.new("RGB", (48, 32), WHITE)
    upright.paste(RED, (0, 0, 24, 16))
    # What undoes the turn that each orientation asks for.
    undo = [None, *(Image.Transpose(number) for number in (0, 3, 1, 5, 2, 6, 4))][orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    options: dict[str, object] = {} if format in ("PNG", "TIFF") else {"quality": 95}
    data = encoded(stored, format, exif=exif, **options)
    return Odd(_put(folder, f"rotated{orientation}.{format.lower()}", data), None, (48, 32), RED, 12)


def corrupt_exif(folder: Path) -> Odd:
    """Write a good JPEG with EXIF that points nowhere and ends in the middle."""
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x30\x87\x69\0\x04\0\0\0\x01\xff\xff\xff\xff\x01"
    data = encoded(Image.new("RGB", (8, 8), RED), "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return Odd(_put(folder, "corrupt_exif.jpg", data[:2] + segment + data[2:]), None, (8, 8), RED)


def korean_name(folder: Path) -> Odd:
    return Odd(_put(folder, "한글 사진.png", encoded(Image.new("RGB", (2, 2), RED), "PNG")), None, (2, 2), RED)


def newline_name(folder: Path) -> Odd:
    return Odd(_put(folder, "two\nlines.png", encoded(Image.new("RGB", (2, 2), RED), "PNG")), None, (2, 2), RED)


def broken_link(folder: Path) -> Odd:
    path = folder / "broken_link.jpg"
    path.symlink_to(folder / "nowhere.jpg")
    return Odd(path, "broken link")


WRITERS: tuple[Callable[[Path], Odd], ...] = (
    empty,
    truncated_jpeg,
    truncated_jpeg_header,
    truncated_png,
    truncated_webp,
    damaged_png,
    text,
    text_like_bmp,
    postscript,
    one_by_one,
    one_by_20000,
    bomb,
    cmyk,
    gray16,
    gray16_transparent,
    rgb16,
    palette,
    palette_transparent,
    alpha,
    alpha_half,
    gray_alpha,
    one_bit,
    animated_gif,
    animated_webp,
    mpo,
    rotated,
    corrupt_exif,
    korean_name,
    newline_name,
    broken_link,
)


def write_all(folder: Path) -> list[Odd]:
    """Write every kind into a folder that exists."""
    return [writer(folder) for writer in WRITERS]
