"""Embeddings that are kept between calls and processes, so that each label and each example is embedded once.

Place in the river: beside whoever would ask an encoder for what it said before. One SQLite file a kind of things holds
the rows of all encoders; it has digests of the things, not the things.

Nothing that happens to the file costs more than time. Where it is locked for long, read-only or on a full disk, rows
are computed as if there were no cache; where it is damaged, it is deleted. A row counts only if its checksum, which
covers its key, is right, so that no damage reaches an answer. This is why nothing waits for the disk (a power cut may
damage the file). There is no write-ahead log: it needs memory shared between processes, which network disks lack, and
a folder that can be written to, while a cache in a read-only container is of use.

Every operation has a connection of its own, about 0.3 ms: threads and forked processes share none.

Shapes: D width.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nunbit.caches import cache_folder
from nunbit.errors import NunbitWarning

if TYPE_CHECKING:
    import sqlite3

    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

FILE = "rows-2.sqlite"
LIMIT_BYTES = 400 * 2**20
"""What the rows of the file may take: about 170,000 of 512 numbers. Then the quarter not used for longest goes."""

PAGE_BYTES = 16_384
"""Seven rows of 512 numbers; in SQLite's own 4,096 bytes there is place for one, and half is lost."""

WAIT_SECONDS = 1.0
"""For others to be done with the file. A commit takes them milliseconds."""

FRESH_SECONDS = 86_400
"""A row that was marked as used within that time is not marked again: reading seldom writes."""

TABLE = """CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, row BLOB NOT NULL, checksum INTEGER NOT NULL,
    used INTEGER NOT NULL)"""
INDEX = "CREATE INDEX IF NOT EXISTS rows_used ON rows (used)"
FIND = "SELECT id, row, checksum, abs(? - used) > ? FROM rows WHERE key = ?"
SIZE = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)

Result = TypeVar("Result")


class RowCache:
    """Rows of one kind, of one encoder as it is now.

    Args:
        name: Of the kind, and of the file's folder: ``"labels"``.
        encoder: Its fingerprint and the name of its engine are parts of every key; its embedding size is the rows'.
        about: Whatever else changes a row: the sentences around a label, in their order.
    """

    def __init__(self, name: str, encoder: Encoder, about: Sequence[str]) -> None:
        described = json.dumps([encoder.fingerprint, encoder.engine.name, list(about)])
        self._name = name
        self._digest = hashlib.blake2b(described.encode(), digest_size=32)  # JSON shows its own end: the key may follow
        self._row_bytes = 4 * encoder.embedding_size
        self._usable = True

    def has_room(self, count: int) -> bool:
        """Whether so many rows take no more than half of the file: more would push out what is asked for every day."""
        return count * self._row_bytes <= LIMIT_BYTES // 2

    def read(self, names: Iterable[str]) -> dict[str, FloatArray]:
        """Find what is known.

        Returns:
            For each of those its row, (D,) float32, not writable.
        """
        keys = {self._key(name): name for name in names}
        found = self._attempt(lambda connection: _find(connection, keys, self._row_bytes)) or {}
        return {keys[key]: np.frombuffer(row, "<f4") for key, row in found.items()}

    def write(self, names: Sequence[str], rows: FloatArray) -> None:
        """Keep rows, and let go of others where they are too many.

        Args:
            names: What the rows belong to, no two alike.
            rows: Their rows, (names, D) float32.
        """
        kept = [(self._key(name), row.tobytes()) for name, row in zip(names, rows.astype("<f4"), strict=True)]
        self._attempt(lambda connection: _keep(connection, kept))

    def _key(self, name: str) -> bytes:
        digest = self._digest.copy()
        digest.update(name.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def _attempt(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Work on the file; None if it cannot be used, and then no more is tried."""
        if not self._usable:
            return None
        try:
            import sqlite3
        except ImportError:  # some builds of Python come without
            return None
        path = Path(FILE)
        try:
            path = cache_folder(self._name) / FILE
            with closing(_open(path)) as connection:
                return work(connection)
        except (OSError, RuntimeError, UnicodeDecodeError, sqlite3.Error) as error:  # Runtime...: no home folder
            self._usable = _is_damage(error) and _remove(path)
            if not self._usable and not _is_busy(error):
                message = f"embeddings are not kept for the next time: {error} ({path})"
                warnings.warn(message, NunbitWarning, stacklevel=1)  # always this line: Python shows it once
            return None


def _open(path: Path) -> sqlite3.Connection:
    import sqlite3

    connection = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
    try:
        connection.text_factory = bytes  # a damaged blob may call itself a text, of any bytes
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA secure_delete = OFF")  # else every row let go of is overwritten
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            for statement in ("BEGIN IMMEDIATE", TABLE, INDEX, "COMMIT"):
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _find(connection: sqlite3.Connection, keys: Iterable[bytes], row_bytes: int) -> dict[bytes, bytes]:
    import sqlite3

    found: dict[bytes, bytes] = {}
    old: list[tuple[int, int]] = []
    now = int(time.time())
    connection.execute("BEGIN")  # one lock for all
    for key in keys:
        for number, row, checksum, is_old in connection.execute(FIND, (now, FRESH_SECONDS, key)):
            if isinstance(row, bytes) and len(row) == row_bytes and checksum == _checksum(key, row):
                found[key] = row
                if is_old:
                    old.append((now, number))
    connection.execute("COMMIT")
    if old:
        with suppress(sqlite3.OperationalError):  # read-only, or others write: another time
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("UPDATE rows SET used = ? WHERE id = ?", old)
            connection.execute("COMMIT")
    return found


def _keep(connection: sqlite3.Connection, kept: Iterable[tuple[bytes, bytes]]) -> None:
    now = int(time.time())
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT OR REPLACE INTO rows (key, row, checksum, used) VALUES (?, ?, ?, ?)",
        ((key, row, _checksum(key, row), now) for key, row in kept),
    )
    while connection.execute(SIZE).fetchone()[0] > LIMIT_BYTES:
        (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        if count == 0:
            break
        connection.execute(
            "DELETE FROM rows WHERE id IN (SELECT id FROM rows ORDER BY used, id LIMIT ?)", (-(-count // 4),)
        )
    connection.execute("COMMIT")


def _checksum(key: bytes, row: bytes) -> int:
    return zlib.crc32(row, zlib.crc32(key))


def _is_damage(error: Exception) -> bool:
    """What SQLite says of a file that is no database of ours: of constant statements none can be wrong otherwise."""
    import sqlite3

    known = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
    return _code(error) in known or isinstance(error, UnicodeDecodeError)  # a message that quotes damaged bytes


def _is_busy(error: Exception) -> bool:
    import sqlite3

    return _code(error) == sqlite3.SQLITE_BUSY


def _code(error: Exception) -> int:
    """SQLite's primary code, 0 where the error is not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _remove(path: Path) -> bool:
    """Delete the file; the journal goes first, or it would be played back into the next one."""
    try:
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
