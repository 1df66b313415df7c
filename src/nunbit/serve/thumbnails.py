"""Small pictures, made once and kept on disk within a bound."""

from __future__ import annotations

import io
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from nunbit.images import open_image

T = TypeVar("T")
_log = logging.getLogger("nunbit")
_QUALITY = 82
_IN_MEMORY = 64 << 20
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
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._since_look = 0
        self._database = self._open_or_replace()

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
        found = self._attempt(lambda: self._find(key))
        if found is not None:
            return found
        content = make_thumbnail(read(), size, max_pixels)
        self._attempt(lambda: self._keep(key, content))
        return content

    def total_bytes(self) -> int:
        """What the thumbnails come to."""
        with self._lock:
            return self._total()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def _find(self, key: str) -> bytes | None:
        row = self._database.execute("SELECT content FROM thumbnails WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self._database.execute("UPDATE thumbnails SET used = ? WHERE key = ?", (time.time_ns(), key))
        return bytes(row[0])

    def _keep(self, key: str, content: bytes) -> None:
        row = (key, time.time_ns(), content)
        self._database.execute("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", row)
        self._since_look += 1
        if self._since_look >= _MADE_AT_A_TIME:
            self._since_look = 0
            self._shrink()

    def _attempt(self, work: Callable[[], T]) -> T | None:
        """Do something with the cache; where that fails, thumbnails are made as if there were none."""
        with self._lock:
            try:
                return work()
            except sqlite3.OperationalError as error:  # a full disk, another server that is busy
                _log.warning("the cache of thumbnails cannot be used now: %s", error)
            except sqlite3.DatabaseError as error:
                _log.warning("the cache of thumbnails is damaged and made anew: %s", error)
                self._database.close()
                self._database = self._open_or_replace()
            return None

    def _open_or_replace(self) -> sqlite3.Connection:
        """Open the file, or make it anew where it is damaged; where that cannot be, keep less, in memory."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return _open(str(self._path))
            except sqlite3.DatabaseError:
                for end in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + end).unlink(missing_ok=True)
                return _open(str(self._path))
        except (OSError, sqlite3.Error) as error:
            _log.warning("thumbnails are kept in memory: %s: %s", self._path, error)
            self._max_bytes = min(self._max_bytes, _IN_MEMORY)
            return _open(":memory:")

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


def _open(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # all of it can be made again
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("CREATE TABLE IF NOT EXISTS thumbnails (key TEXT PRIMARY KEY, used INTEGER, content BLOB)")
        database.execute("CREATE INDEX IF NOT EXISTS by_use ON thumbnails (used)")
    except BaseException:
        database.close()
        raise
    return database


def make_thumbnail(content: bytes, size: int, max_pixels: int) -> bytes:
    """The bytes of a picture → a JPEG whose longest side is at most ``size``."""
    image, _ = open_image(content, max_pixels=max_pixels, needed=lambda width, height: (size, size))
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, progressive=True)
    return buffer.getvalue()
