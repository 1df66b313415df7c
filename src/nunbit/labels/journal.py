"""Labels that were added and removed since the last build: a file of lines that only grows.

A line is written with one call and forced to the disk before the call returns. A process that is killed while it
writes leaves a last line without its end; it is passed over by readers and cut off by the next writer.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.errors import StoreError
from nunbit.labels.files import LabelEntry

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray


@dataclass(frozen=True, slots=True)
class Added:
    """A label with the rows of its texts: (texts, D) int16 and (texts,) float32."""

    entry: LabelEntry
    fixed: npt.NDArray[np.int16]
    scale: FloatArray


@dataclass(frozen=True, slots=True)
class Removed:
    """A label that is gone."""

    name: str


def append(path: Path, changes: Iterable[Added | Removed]) -> None:
    """Add lines to a journal, which is made when it is not there. The caller holds the writer's lock."""
    lines = b"".join(_line(change) for change in changes)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(whole_size(path))
        file.truncate()
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def whole_size(path: Path) -> int:
    """Bytes up to the end of the last whole line; 0 without a journal."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                last = file.read(end - start).rfind(b"\n")
                if last >= 0:
                    return start + last + 1
                end = start
    except FileNotFoundError:
        pass
    return 0


def read(path: Path, width: int, *, start: int = 0) -> Iterator[Added | Removed]:
    """Read whole lines.

    Args:
        path: Of the journal; it need not be there.
        width: D.
        start: First byte to read, at the beginning of a line.

    Raises:
        StoreError: A line cannot be understood.
    """
    size = whole_size(path)
    if size <= start:
        return
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read(size - start).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield _parsed(json.loads(line), width)
        except (ValueError, KeyError, TypeError) as error:
            hint = "build the labels again; what was added by hand must be added again"
            raise StoreError(f"line {number} of {path} is damaged: {error}", hint=hint) from error


def _line(change: Added | Removed) -> bytes:
    content: dict[str, Any]
    if isinstance(change, Removed):
        content = {"remove": change.name}
    else:
        entry = change.entry
        content = {"add": {"name": entry.name, "synonyms": entry.synonyms, "parents": entry.parents}}
        content["fixed"] = base64.b64encode(change.fixed.astype("<i2").tobytes()).decode()
        content["scale"] = base64.b64encode(change.scale.astype("<f4").tobytes()).decode()
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _parsed(content: dict[str, Any], width: int) -> Added | Removed:
    if "remove" in content:
        return Removed(str(content["remove"]))
    label = content["add"]
    entry = LabelEntry(label["name"], tuple(label["synonyms"]), tuple(label["parents"]))
    scale = np.frombuffer(base64.b64decode(content["scale"]), "<f4")
    fixed = np.frombuffer(base64.b64decode(content["fixed"]), "<i2").reshape(len(scale), width)
    return Added(entry, fixed, scale)
