"""Pictures of saved pages: looked at, and kept under the sha256 of their bytes where they have no file of their own."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from nunbit.data.source import IMAGE_BYTES
from nunbit.data.warcs import Answer, UnusableContent
from nunbit.errors import ImageError
from nunbit.images import open_image

INLINE_BYTES = 1024
"""A picture within a page that has less is an ornament, or stands in until the real one is loaded."""

_ENDINGS = {"JPEG": "jpg", "TIFF": "tif"}  # others end in their names


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture that can be opened: its path, absolute or below the folder of the harvest, and its pixels."""

    path: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a picture cannot be used: a short, stable reason, and what was found."""

    reason: str
    detail: str


class PictureStore:
    """Keeps pictures in a folder, and remembers what was seen.

    Args:
        folder: Exists; paths of what is kept are given below its parent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Stored | Unusable] = {}

    def look(self, path: str) -> Stored | Unusable:
        """Try a file where it lies, or one that was kept."""
        if path not in self._known:
            self._known[path] = self._opened(path, path)[0]
        return self._known[path]

    def keep(self, data: bytes, name: str) -> Stored | Unusable:
        """Put a picture into the folder, if it can be opened.

        Args:
            data: An image file.
            name: For messages.
        """
        found, kind = self._opened(data, name)
        if isinstance(found, Unusable):
            return found
        ending = _ENDINGS.get(kind, kind.lower())
        target = self._folder / f"{hashlib.sha256(data).hexdigest()}.{ending}"
        if not target.is_file() or target.stat().st_size != len(data):
            draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            draft.write_bytes(data)
            draft.replace(target)
        kept = Stored(f"{self._folder.name}/{target.name}", found.width, found.height)
        self._known[kept.path] = kept
        return kept

    def keep_answer(self, answer: Answer) -> Stored | Unusable:
        """Put what a server answered into the folder, if it is a picture.

        Raises:
            DamagedArchive: The archive ends in it.
        """
        try:
            return self.keep(answer.content(IMAGE_BYTES), answer.url)
        except UnusableContent as error:
            return Unusable(error.reason, error.detail)

    def _opened(self, source: str | bytes, name: str) -> tuple[Stored | Unusable, str]:
        """What a picture is, and its format. A JPEG is decoded to an eighth of its size, which finds most damage."""
        try:
            _, info = open_image(source, needed=lambda width, height: (1, 1))
        except ImageError as error:
            return Unusable(error.reason, error.message), ""
        return Stored(name, info.width, info.height), info.format
