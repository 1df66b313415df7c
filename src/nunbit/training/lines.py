"""Files of JSON objects, one a line, that only grow: metrics, ledger, diagnosis.

A killed run leaves at most a last line without its end: readers pass over it, and the next writer cuts it off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any


def open_lines(path: Path) -> IO[bytes]:
    """Open a file to append lines of `line_of` to; it is made when it is not there."""
    file = path.open("a+b")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":  # a line that was cut off would spoil the next one
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
    return file


def line_of(content: Mapping[str, Any]) -> bytes:
    """An object as a line, with its end."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def read_lines(
    path: Path, valid: Callable[[dict[str, Any]], bool] = lambda _: True
) -> tuple[list[dict[str, Any]], list[int]]:
    """Read a file of JSON objects, one a line; a last line that was cut off does not count.

    Args:
        path: It need not be there.
        valid: Tells whether an object is one of this file's.

    Returns:
        The objects, and the numbers, from 1, of lines that hold none.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    objects, damaged = [], []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line.decode())
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict) and valid(content):
            objects.append(content)
        else:
            damaged.append(number)
    return objects, damaged
