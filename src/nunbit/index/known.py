"""What an index knows of files: which of them changed since, and which are gone for good.

Shapes: N rows.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.index.rows import picture_id

if TYPE_CHECKING:
    from nunbit.index.store import Store

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when it was looked at.

    Attributes:
        path: Absolute.
        id: See `picture_id`.
        size: In bytes; -1 when the file could not be looked at.
        mtime_ns: When it was last modified; -1 when it could not be looked at.
        place: Where the index's picture of this path is among the known ones; -1 when it is new.
    """

    path: str
    id: str
    size: int
    mtime_ns: int
    place: int


class KnownPictures:
    """The pictures of an index at the start of a run, in arrays: about 80 bytes for each.

    Args:
        store: To read them from.
    """

    def __init__(self, store: Store) -> None:
        columns = ("id", "size", "mtime_ns", "content_hash")
        kinds: dict[str, Any] = {"id": "S32", "size": np.int64, "mtime_ns": np.int64, "content_hash": "S32"}
        parts: dict[str, list[Any]] = {name: [np.empty(0, kinds[name])] for name in columns}
        for records in store.records(columns):
            for name in columns:
                parts[name].append(np.array([record[name] for record in records], kinds[name]))
        ids, sizes, times, hashes = (np.concatenate(parts[name]) for name in columns)
        order = np.argsort(ids)
        self._ids, self._sizes, self._times, self._hashes = ids[order], sizes[order], times[order], hashes[order]
        self._seen = np.zeros(len(ids), bool)

    def look_at(self, path: Path) -> FileState:
        """Find out how a file is now and whether the index knows it."""
        text = str(path)
        id_ = picture_id(text)
        try:
            status = path.stat()
        except (OSError, ValueError):  # opening it will tell the reason
            return FileState(text, id_, -1, -1, self._place(id_))
        return FileState(text, id_, status.st_size, status.st_mtime_ns, self._place(id_))

    def unchanged(self, state: FileState) -> bool:
        """Tell, without reading it, whether a file is the one that is in the index."""
        place = state.place
        return place >= 0 and self._sizes[place] == state.size and self._times[place] == state.mtime_ns

    def same_content(self, state: FileState) -> bool:
        """Tell, by reading it when its size is the same, whether a file has the bytes that are in the index."""
        if state.place < 0 or self._sizes[state.place] != state.size:
            return False
        content_hash = hash_file(state)
        return content_hash != "" and self._hashes[state.place] == content_hash.encode()

    def mark(self, state: FileState) -> None:
        """Note that a known picture was dealt with: it is not gone."""
        if state.place >= 0:
            self._seen[state.place] = True

    def all_seen(self) -> bool:
        """Tell whether every known picture was marked."""
        return bool(self._seen.all())

    def unseen(self, id_: str) -> bool:
        """Tell whether a picture is known and was not marked."""
        place = self._place(id_)
        return place >= 0 and not self._seen[place]

    def _place(self, id_: str) -> int:
        key = id_.encode()
        place = int(np.searchsorted(self._ids, np.bytes_(key)))
        return place if place < len(self._ids) and self._ids[place] == key else -1


class Roots:
    """What a run was asked to look through, as it is when the run ends: what may be forgotten, and what not.

    A disk that is not mounted looks like a folder that is missing or empty. So nothing below such a folder is ever
    forgotten, and a file that was given by name is forgotten only when the folder that it was in has something in it.

    Args:
        paths: Files and folders, as given.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.empty: dict[str, int] = {}
        """Folders with nothing in them → how many pictures of the index should be there."""
        given = {os.path.abspath(path) for path in paths if path}
        self._below_any = tuple(map(_below, given))
        full = {path for path in given if _has_entries(path)}
        self._below_full = tuple(map(_below, full))
        self._below_doubtful = tuple(map(_below, given - full))
        self._named = {path for path in given - full if _has_entries(os.path.dirname(path))}
        self.empty.update(dict.fromkeys(filter(os.path.isdir, given - full), 0))

    def covers(self, path: str) -> bool:
        """Tell whether a path is one of the given ones or below."""
        return _below(path).startswith(self._below_any)

    def forgettable(self, path: str) -> bool:
        """Tell whether a picture that was not found is to be forgotten: it is gone, and not only out of reach."""
        for folder in self.empty:
            self.empty[folder] += path.startswith(_below(folder))
        reached = path.startswith(self._below_full) and not path.startswith(self._below_doubtful)
        return (reached or path in self._named) and _is_gone(path)


def hash_file(state: FileState) -> str:
    """Hash the bytes of a file: BLAKE2b-128 in hex; empty when it is not any more as it was looked at."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(state.path, "rb", opener=_open_at_once) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return ""
            while block := file.read(_BLOCK):
                digest.update(block)
            after = os.fstat(file.fileno())
    except (OSError, ValueError):
        return ""
    as_seen = (state.size, state.mtime_ns)
    same = as_seen == (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return digest.hexdigest() if same else ""


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for somebody who writes to it


def _is_gone(path: str) -> bool:
    """Tell whether there is no file at a path for sure, rather than a disk or a permission missing on the way."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return not any(parent.is_symlink() and not parent.exists() for parent in Path(path).parents)
    except OSError:
        return False


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except PermissionError:  # then whatever is in it cannot be told to be gone either
        return True
    except (OSError, ValueError):
        return False


def _below(folder: str) -> str:
    return folder.rstrip("/") + "/"
