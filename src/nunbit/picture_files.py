"""Where pictures lie: files and folders become one list of picture files, before any of them is opened.

Place in the river: before `nunbit.images`, which offers `find_images` to callers and shares the wording of what the
system refuses. Standard library only.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

from nunbit.errors import UsageError
from nunbit.types import Rejected

_INDEX = {"index.json", "pictures.lance"}  # what makes a folder an index
ENDING = r"\.(?:jpe?g|jpe|jfif|mpo|a?png|gif|webp|tiff?|avif|bmp|p[pgbn]m)"
"""How names of pictures end that `nunbit.images` opens, as a part of a regular expression; in any case of letters."""
_LISTED = re.compile(rf"[^.].*{ENDING}", re.DOTALL | re.IGNORECASE)


def find_images(paths: Iterable[str | os.PathLike[str]], *, within: Path | None = None) -> Iterator[Path | Rejected]:
    """List pictures: files as given, and the pictures in folders and below, told by their extensions.

    In folders, hidden entries are skipped and the order is that of names: a folder's files, then its subfolders, and
    last those that are links to folders. No folder is listed twice, however many links or given paths lead to it.

    Args:
        paths: Files and folders. A file given by name is always tried, whatever it is called.
        within: A folder, resolved. What lies outside of it, or is a link that leads out, is neither listed nor given.

    Yields:
        Absolute paths, each once, with links to files left as they are; or what was set aside, with the reason
        ``"no such file or folder"``, ``"broken link"``, ``"not readable"`` or ``"name is not UTF-8"``.

    Raises:
        UsageError: ``paths`` is one path, not several.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise UsageError(f"find_images got one path, {os.fsdecode(paths)!r}, expected several", hint="put it in a list")
    return _Search(within).run(paths)


class _Search:
    """One search, which remembers what it has listed, given and refused so that nothing comes twice."""

    def __init__(self, within: Path | None) -> None:
        self._within = within
        self.seen: set[Hashable] = set()  # folders (device, inode); named files (device, inode, name); refused paths

    def run(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path | Rejected]:
        for given in map(os.fsdecode, paths):
            path = os.path.abspath(given) if given else ""
            try:
                folder = stat.S_ISDIR(os.stat(path).st_mode)
                parent, name = _identity(os.path.dirname(path)), os.path.basename(path)
            except (OSError, ValueError) as error:
                yield from self._refuse(path, error)
                continue
            if not self._may_read(path):
                continue
            if folder:
                yield from self._walk(path)
            elif (*parent, name) not in self.seen and not (parent in self.seen and _LISTED.fullmatch(name)):
                self.seen.add((*parent, name))
                yield _checked(path)

    def _walk(self, top: str) -> Iterator[Path | Rejected]:
        folders, links = [top], list[str]()
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            try:
                key = _identity(folder)
                if key in self.seen:
                    continue
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                yield from self._refuse(folder, error)
                continue
            self.seen.add(key)
            if {entry.name for entry in entries} >= _INDEX:
                continue  # uploads in it are pictures of that index already
            below: list[str] = []
            for entry in entries:
                if entry.is_symlink() and not self._may_read(entry.path):
                    continue
                if _is_folder(entry):
                    if not entry.name.startswith("."):
                        (links if entry.is_symlink() else below).append(entry.path)
                elif _LISTED.fullmatch(entry.name) and (*key, entry.name) not in self.seen:
                    yield _checked(entry.path)
            folders += reversed(below)

    def _may_read(self, path: str) -> bool:
        return self._within is None or Path(os.path.realpath(path)).is_relative_to(self._within)

    def _refuse(self, path: str, error: OSError | ValueError) -> Iterator[Rejected]:
        if path not in self.seen:
            self.seen.add(path)
            reason = why_unreachable(path, error).replace("missing", "no such file or folder")
            yield Rejected(_printable(path), reason, str(getattr(error, "strerror", None) or error))


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _checked(path: str) -> Path | Rejected:
    if _printable(path) != path:
        return Rejected(_printable(path), "name is not UTF-8", "rename it: it could not be stored or shown faithfully")
    if os.path.islink(path) and not os.path.exists(path):
        return Rejected(path, "broken link", f"it points to {one_line(os.readlink(path))}")
    return Path(path)


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def why_unreachable(path: str, error: OSError | ValueError) -> str:
    """Name the reason why the system did not give a file or a folder."""
    number = error.errno if isinstance(error, OSError) else errno.ENOENT  # ValueError: no file can have such a name
    if number == errno.ELOOP or (number == errno.ENOENT and isinstance(error, OSError) and os.path.islink(path)):
        return "broken link"
    return "missing" if number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG) else "not readable"


def one_line(text: str) -> str:
    """Make a name or message printable on one line: line breaks, controls and lone surrogates become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
