"""Where the files of a source lie: on this machine, or behind a URL that fsspec understands.

Place in the river: first step of a stream. A path is local unless it says ``protocol://``; only then fsspec takes part,
and with it perhaps the network. Credentials and endpoints are fsspec's own affair (its configuration and environment).
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from nunbit.errors import UsageError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_FILES = 1_000_000  # more names than this in braces is a slip of the pen


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder, as its folder lists it.

    Attributes:
        path: Absolute, or a URL.
        size: Bytes.
        changed: When it was changed, in whatever form the place tells it; only good for comparing.
        is_folder: Whether it is one.
    """

    path: str
    size: int
    changed: str
    is_folder: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def absolute(path: str) -> str:
    """The path as it is kept: absolute without ``file://``, or a URL."""
    path = path.removeprefix("file://")
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def join(folder: str, name: str) -> str:
    """A path below a folder; one that is absolute or a URL by itself stays as it is."""
    name = name.removeprefix("file://")
    return name if is_remote(name) else posixpath.join(folder, name)


def find_entries(path: str) -> list[Entry]:
    """The one file or folder that a path names, or the files that match it as a pattern.

    Args:
        path: Local or a URL. ``{000..012}`` and ``{a,b}`` list names, each of which must be there; ``*``, ``?`` and
            ``[...]`` match names (in a URL ``*`` alone). A local file that is called so is meant before any pattern is.

    Returns:
        At least one; those of each pattern in the order of their names.

    Raises:
        UsageError: Nothing is there.
    """
    path = absolute(path)
    if not is_remote(path) and os.path.exists(path):
        return [_local_entry(path)]
    found = []
    for one in expand_braces(path):
        magic = re.search(r"\*" if is_remote(one) else r"[*?[]", one)
        matches = _match(one) if magic else [find_entry(one)]
        if not matches:
            raise UsageError(f"no file matches {one}", hint="check the pattern")
        found += matches
    return found


def find_entry(path: str) -> Entry:
    """What is at a path.

    Raises:
        UsageError: Nothing is.
    """
    with file_errors(path):
        if not is_remote(path):
            return _local_entry(path)
        system, root = _remote(path)
        return _remote_entry(system, system.info(root))


def expand_braces(pattern: str) -> list[str]:
    """``a{0..2}.tar`` → ``a0.tar``, ``a1.tar``, ``a2.tar``; ``{x,y}`` likewise. Zeros in front are kept.

    Raises:
        UsageError: That would be more than a million names.
    """
    done, open_ends = list[str](), [pattern]
    while open_ends:
        one = open_ends.pop()
        brace = _BRACES.search(one)
        if brace is None:
            done.append(one)
            continue
        limits = _RANGE.fullmatch(brace[1])
        if limits is None:
            choices = brace[1].split(",")
        else:
            first, last = int(limits[1]), int(limits[2])
            if last - first >= _FILES:
                raise UsageError(f"{pattern} names {last - first + 1:,} files, at most {_FILES:,} are expected")
            width = len(limits[1]) if limits[1].startswith("0") else 0
            choices = [f"{number:0{width}d}" for number in range(first, last + 1)]
        if len(done) + len(open_ends) + len(choices) > _FILES:
            raise UsageError(f"{pattern} names more than {_FILES:,} files")
        open_ends += [one[: brace.start()] + choice + one[brace.end() :] for choice in reversed(choices)]
    return done


def list_folder(path: str) -> list[Entry]:
    """What is in a folder, in the order of names, without hidden entries and broken links."""
    with file_errors(path):
        if not is_remote(path):
            with os.scandir(path) as listing:
                names = sorted(entry.name for entry in listing if not entry.name.startswith("."))
            paths = (os.path.join(path, name) for name in names)
            return [_local_entry(one) for one in paths if os.path.exists(one)]
        system, root = _remote(path)
        entries = [_remote_entry(system, facts) for facts in system.ls(root, detail=True)]
        below = [entry for entry in entries if entry.name and entry.path.rstrip("/") != path.rstrip("/")]
        return sorted((entry for entry in below if not entry.name.startswith(".")), key=lambda entry: entry.name)


def open_file(path: str) -> BinaryIO:
    """Open a file for reading; it can seek.

    Raises:
        UsageError: It cannot be opened.
    """
    with file_errors(path):
        if not is_remote(path):
            return open(path, "rb")
        system, root = _remote(path)
        return cast(BinaryIO, system.open(root, "rb"))


def read_slice(path: str, offset: int, size: int) -> bytes:
    """Some bytes of a file; fewer when it ends before."""
    with open_file(path) as file:
        file.seek(offset)
        return file.read(size)


def read_small(path: str, limit: int) -> bytes | None:
    """A whole file, or None when it has more than ``limit`` bytes."""
    data = read_slice(path, 0, limit + 1)
    return data if len(data) <= limit else None


@contextmanager
def reading(path: str) -> Iterator[BinaryIO]:
    """Read the content of a file, decompressed if its name ends in ``.gz`` or ``.tgz``."""
    with open_file(path) as file:
        if not path.lower().endswith((".gz", ".tgz")):
            yield file
            return
        import gzip

        with gzip.GzipFile(fileobj=file) as content:
            yield cast(BinaryIO, content)


@contextmanager
def file_errors(path: str) -> Iterator[None]:
    """Turn what systems say of a file that cannot be had into a UsageError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}", hint="check the path") from error
    except (OSError, ValueError, ImportError) as error:  # an unknown protocol; one whose package is not installed
        if isinstance(error, OSError) and not is_remote(path):
            raise UsageError(f"{path} cannot be read: {error.strerror or error}", hint="check its rights") from error
        raise UsageError(f"{path} cannot be read: {error}") from error


def _match(pattern: str) -> list[Entry]:
    with file_errors(pattern):
        if not is_remote(pattern):
            return [_local_entry(path) for path in sorted(glob.glob(pattern, recursive=True))]
        system, root = _remote(pattern)
        found = system.glob(root, detail=True)
        return [_remote_entry(system, found[name]) for name in sorted(found)]


def _local_entry(path: str) -> Entry:
    status = os.stat(path)
    return Entry(path, status.st_size, str(status.st_mtime_ns), os.path.isdir(path))


def _remote(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, root = url_to_fs(url)
    return system, root


def _remote_entry(system: Any, facts: dict[str, Any]) -> Entry:
    changed = next((facts[key] for key in ("ETag", "LastModified", "updated", "mtime", "created") if key in facts), "")
    url = system.unstrip_protocol(facts["name"]).rstrip("/")
    return Entry(url, int(facts.get("size") or 0), str(changed), facts["type"] == "directory")
