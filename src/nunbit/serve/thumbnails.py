"""Small pictures, made once and kept on disk within a bound."""

from __future__ import annotations

import io
import sqlite3
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from nunbit.images import open_image

_QUALITY = 82
_MADE_AT_A_TIME = 64  # between two looks at how much there is


class ThumbnailSize(IntEnum):
    """Longest sides in pixels that may be asked for. Not a ``Literal``: in a query every number is text."""

    TILE = 160
    CARD = 320
    PANEL = 640
    SCREEN = 1280


class Thumbnails:
    """A cache in one file of SQLite. What was not looked at for longest goes first when it is full.

    Args:
        path: Of the file; it may be deleted at any time while no server runs.
        max_bytes: What the thumbnails may come to.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._since_look = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")  # all of it can be made again
        self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS thumbnails (key TEXT PRIMARY KEY, used INTEGER, content BLOB)"
        )
        self._database.execute("CREATE INDEX IF NOT EXISTS by_use ON thumbnails (used)")

    def get(self, key: str, read: Callable[[], bytes], size: int, max_pixels: int) -> bytes:
        """A thumbnail as JPEG.

        Args:
            key: Of the picture and what it was made from.
            read: Gives the picture's file; called when the thumbnail is not there.
            size: Longest side.
            max_pixels: Larger pictures are refused.

        Raises:
            ImageError: The picture cannot be decoded.
        """
        key = f"{key}-{size}"
        now = time.time_ns()
        with self._lock:
            row = self._database.execute("SELECT content FROM thumbnails WHERE key = ?", (key,)).fetchone()
            if row is not None:
                self._database.execute("UPDATE thumbnails SET used = ? WHERE key = ?", (now, key))
                return bytes(row[0])
        content = make_thumbnail(read(), size, max_pixels)
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", (key, now, content))
            self._since_look += 1
            if self._since_look >= _MADE_AT_A_TIME:
                self._since_look = 0
                self._shrink()
        return content

    def total_bytes(self) -> int:
        """What the thumbnails come to."""
        with self._lock:
            return self._total()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def _total(self) -> int:
        return int(self._database.execute("SELECT coalesce(sum(length(content)), 0) FROM thumbnails").fetchone()[0])

    def _shrink(self) -> None:
        over = self._total() - self._max_bytes
        if over <= 0:
            return
        goes, enough = [], over + self._max_bytes // 10  # so that it is not full again at once
        for key, length in self._database.execute("SELECT key, length(content) FROM thumbnails ORDER BY used"):
            goes.append((key,))
            enough -= length
            if enough <= 0:
                break
        self._database.executemany("DELETE FROM thumbnails WHERE key = ?", goes)
        self._database.execute("PRAGMA incremental_vacuum")


def make_thumbnail(content: bytes, size: int, max_pixels: int) -> bytes:
    """The bytes of a picture → a JPEG whose longest side is at most ``size``."""
    image, _ = open_image(content, max_pixels=max_pixels, needed=lambda width, height: (size, size))
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, progressive=True)
    return buffer.getvalue()
