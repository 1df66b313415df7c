"""What was measured is kept beside the results, so that a run that was interrupted, or has other rules, goes on.

Files of JSON lines, only ever appended to. A line that a killed run left half written is not read.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from nunbit.curate.facts import VERSION, PictureFacts

if TYPE_CHECKING:
    import numpy.typing as npt


class _Lines:
    """A file of JSON lines; `append` may be called by several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def read(self) -> list[dict[str, Any]]:
        """The whole lines that are there."""
        found = []
        for line in self._path.read_bytes().splitlines() if self._path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                found.append(row)
        return found

    def append(self, row: dict[str, Any]) -> None:
        """Add a line; it is in the file when this returns, if not yet on the disk."""
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab")
                if self._file.tell():
                    line = b"\n" + line  # the last one may have been cut off
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


class KeptFacts:
    """Facts of picture files, by path, size and modification time.

    Args:
        folder: Where the file is or will be; None keeps them for this run alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._lines = _Lines(folder / f"facts-{VERSION}.jsonl") if folder else None
        self._known: dict[tuple[str, int, int], PictureFacts] = {}
        for row in self._lines.read() if self._lines else ():
            try:
                facts = PictureFacts(**{**row["facts"], "layout": base64.b64decode(row["facts"]["layout"])})
                self._known[row["path"], row["size"], row["mtime_ns"]] = facts
            except (KeyError, TypeError, ValueError):
                continue

    def find(self, path: str) -> PictureFacts | None:
        """What is known of a file as it is now."""
        key = _key(path)
        return self._known.get(key) if key else None

    def keep(self, path: str, facts: PictureFacts) -> None:
        """Remember a file as it is now."""
        key = _key(path)
        if key is None:
            return
        self._known[key] = facts
        if self._lines:
            plain = {**asdict(facts), "layout": base64.b64encode(facts.layout).decode()}
            self._lines.append({"path": key[0], "size": key[1], "mtime_ns": key[2], "facts": plain})

    def close(self) -> None:
        """Let go of the file."""
        if self._lines:
            self._lines.close()


class KeptEmbeddings:
    """Embeddings of pictures in float16, by the sha256 of their file.

    Args:
        folder: Where the file is or will be; None keeps them for this run alone.
        fingerprint: Of the encoder.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._lines = _Lines(folder / f"embeddings-{fingerprint[:16]}.jsonl") if folder else None
        self._known: dict[str, npt.NDArray[np.float16]] = {}
        for row in self._lines.read() if self._lines else ():
            try:
                self._known[row["sha256"]] = np.frombuffer(base64.b64decode(row["embedding"]), "<f2")
            except (KeyError, TypeError, ValueError):
                continue

    def find(self, sha256: str) -> npt.NDArray[np.float16] | None:
        """(D,) float16, or None."""
        return self._known.get(sha256)

    def keep(self, sha256: str, embedding: npt.NDArray[np.float16]) -> None:
        """Remember one, (D,) float16."""
        self._known[sha256] = embedding
        if self._lines:
            coded = base64.b64encode(embedding.astype("<f2").tobytes()).decode()
            self._lines.append({"sha256": sha256, "embedding": coded})

    def close(self) -> None:
        """Let go of the file."""
        if self._lines:
            self._lines.close()


def _key(path: str) -> tuple[str, int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return path, status.st_size, status.st_mtime_ns
