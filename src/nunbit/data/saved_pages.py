"""Files of saved pages, and where the pictures of a page lie: beside it, in the page itself, or on the web."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from nunbit.data.places import Entry, absolute, find_entries, is_remote, list_folder
from nunbit.errors import UsageError

PAGES = (".html", ".htm", ".xhtml")
ARCHIVES = (".warc", ".warc.gz")

_PLAIN = "!#$%&'()*+,/:;=?@[]~"  # what an address may hold unescaped, and escapes themselves


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A page or an archive.

    Attributes:
        path: Absolute.
        size: Bytes.
        root: The folder that was given, or that of a file that was given: its pictures lie below.
    """

    path: str
    size: int
    root: str

    @property
    def is_archive(self) -> bool:
        """Whether it is a WARC."""
        return self.path.lower().endswith(ARCHIVES)


def find_saved(paths: Iterable[str]) -> Iterator[SavedFile]:
    """Pages and archives: files as given, and those in folders and below, in the order of names; each once.

    Raises:
        UsageError: There is nothing at a path, or it is a URL.
    """
    seen = set[str]()
    for path in map(absolute, paths):
        if is_remote(path):
            raise UsageError(f"{path} is a URL, expected saved pages", hint="save it first; nothing is fetched")
        for entry in find_entries(path):
            root = entry.path if entry.is_folder else os.path.dirname(entry.path)
            for found in _below(entry) if entry.is_folder else [entry]:
                real = os.path.realpath(found.path)
                if real not in seen:
                    seen.add(real)
                    yield SavedFile(found.path, found.size, root)


def _below(top: Entry) -> Iterator[Entry]:
    todo, seen = [top.path], set[str]()
    while todo:
        folder = todo.pop()
        if (real := os.path.realpath(folder)) in seen:  # a link may lead back up
            continue
        seen.add(real)
        entries = list_folder(folder)
        yield from (one for one in entries if not one.is_folder and one.name.lower().endswith(PAGES + ARCHIVES))
        todo += [entry.path for entry in reversed(entries) if entry.is_folder]


def local_path(address: str, page: SavedFile) -> str | None:
    """The file that an address of a saved page means, if it was saved too; it lies below the page's root.

    Args:
        address: As the page writes it.
        page: Where the page is.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    if "\0" in unquote(address):
        return None
    if parts.scheme not in ("", "file") or (parts.netloc not in ("", "localhost")):
        return None
    folder = os.path.dirname(page.path)
    # As it is, because browsers write names that look like escapes; then without a query, which mirrors may drop.
    names = dict.fromkeys((address, unquote(parts.path), unquote(f"{parts.path}?{parts.query}")))
    for name in names if parts.scheme == "" else [unquote(parts.path)]:
        places = [name] if os.path.isabs(name) else [os.path.join(folder, name)]
        if os.path.isabs(name) and parts.scheme == "":
            places.append(os.path.join(page.root, name.lstrip("/")))
        for place in map(os.path.normpath, places):
            inside = os.path.realpath(place).startswith(os.path.realpath(page.root) + os.sep)
            if inside and os.path.isfile(place):
                return place
    return None


def full_address(address: str, base: str) -> str:
    """An address on the web in the one form that archives are searched by; empty where it cannot be told.

    Args:
        address: As a page writes it; empty for none.
        base: The address of the page, or empty.

    Returns:
        Without its fragment, the host in lower case, and other than ASCII escaped.
    """
    if not address:
        return ""
    try:
        parts = urlsplit(urljoin(base, address))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return ""
        path, query = quote(parts.path or "/", safe=_PLAIN), quote(parts.query, safe=_PLAIN)
        return urlunsplit((parts.scheme, parts.netloc.lower(), path, query, ""))
    except ValueError:
        return ""


def inline_bytes(address: str, limit: int) -> bytes | None:
    """The content of a ``data:`` address, or None when it is broken or longer than ``limit``."""
    head, comma, content = address.partition(",")
    if not comma or len(content) > 4 * limit:
        return None
    data = unquote_to_bytes(content)
    if head.rstrip().lower().endswith(";base64"):
        try:
            data = base64.b64decode(data + b"=" * (-len(data) % 4))
        except ValueError:
            return None
    return data if len(data) <= limit else None
