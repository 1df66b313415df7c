"""The ledger: a line of JSON for every picture that was set aside, with its reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from nunbit.index.folder import store_errors, write_atomically
from nunbit.types import Rejected

LEDGER = "ledger.jsonl"


class Ledger:
    """The ledger of an index while somebody writes to it.

    New lines are appended at once, so that they are there even when the run is killed; a run that ends by itself
    writes the file anew with what is true then. A path has one line; if a killed run left two, the last one holds.

    Args:
        folder: Of the index.

    Raises:
        StoreError: It cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LEDGER
        self._file: TextIO | None = None
        self._entries: dict[str, Rejected] = {}
        self._noted: set[str] = set()
        with store_errors(folder):
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
            for line in lines:
                if (entry := _parsed(line)) is not None:
                    self._entries[entry.path] = entry
            if len(lines) != len(self._entries):  # two lines for a path, or one that was cut off
                self._save()

    def note(self, entry: Rejected) -> None:
        """Add or change the line of a picture, now."""
        self._noted.add(entry.path)
        if self._entries.get(entry.path) == entry:
            return
        self._entries[entry.path] = entry
        with store_errors(self._folder):
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
            self._file.write(_line(entry))
            self._file.flush()

    def forget(self, path: str) -> None:
        """Take a picture out that has become good; it leaves the file at the next ``close``."""
        self._entries.pop(path, None)

    def close(self, covered: Callable[[str], bool] = lambda _: False) -> None:
        """Write the file anew.

        Args:
            covered: Tells whether the run has looked at everything at and below a path: then only what this run
                has noted there is true. Other lines stay as long as there is something at their path.
        """
        kept: dict[str, Rejected] = {}
        for path, entry in self._entries.items():
            if path in self._noted or (not covered(path) and os.path.lexists(path)):
                kept[path] = entry
        self._entries = kept
        with store_errors(self._folder):
            if self._file is not None:
                self._file.close()
                self._file = None
            self._save()

    def _save(self) -> None:
        if self._entries or self._path.exists():
            write_atomically(self._path, "".join(_line(entry) for entry in self._entries.values()))


def _line(entry: Rejected) -> str:
    return json.dumps({"path": entry.path, "reason": entry.reason, "detail": entry.detail}, ensure_ascii=False) + "\n"


def _parsed(line: bytes) -> Rejected | None:
    try:
        content = json.loads(line)
        return Rejected(str(content["path"]), str(content["reason"]), str(content["detail"]))
    except (ValueError, KeyError, TypeError):
        return None
