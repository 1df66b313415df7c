"""Rows of the table, as they go in and as they come out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from nunbit.types import FloatArray

T = TypeVar("T")

FILTER_COLUMNS = ("id", "path", "size", "mtime_ns", "width", "height", "format", "taken", "content_hash")
"""Columns that a filter may name, in their order in the table; ``vector`` comes after them."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is stored of one good picture.

    Attributes:
        id: See `picture_id`.
        path: Absolute.
        size: Of the file, in bytes.
        mtime_ns: When the file was last modified, in nanoseconds since 1970.
        width: In pixels, after EXIF rotation.
        height: In pixels, after EXIF rotation.
        format: Pillow's name of the format.
        taken: ISO 8601 without a time zone, or None.
        content_hash: BLAKE2b-128 of the file's bytes in hex; empty when the file changed while it was read.
        embedding: (D,) float32, unit length.
    """

    id: str
    path: str
    size: int
    mtime_ns: int
    width: int
    height: int
    format: str
    taken: str | None
    content_hash: str
    embedding: FloatArray


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of an index.

    Attributes:
        id: Stable as long as the path is.
        path: Absolute.
        metadata: ``size`` (bytes), ``mtime_ns``, ``width``, ``height`` (pixels), ``format``, ``taken`` (ISO 8601 or
            None) and ``content_hash``.
    """

    id: str
    path: str
    metadata: Mapping[str, Any]


def picture_id(path: str) -> str:
    """Name a picture by where it is: the first 32 hex digits of the sha256 of its absolute path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of ``size``, the last of which may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def item_of(record: dict[str, Any]) -> Item:
    """Make an item of a record of the table's filter columns; ``taken`` becomes text again."""
    metadata = {name: record[name] for name in FILTER_COLUMNS if name not in ("id", "path")}
    metadata["taken"] = metadata["taken"].isoformat() if metadata["taken"] else None
    return Item(record["id"], record["path"], metadata)
