"""Pictures that were uploaded: files within the index's folder, so that a copy of the folder is a whole backup.

Their paths in the table are relative to the folder, and so stay right when it is moved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nunbit.durable import replace_file
from nunbit.index.folder import store_errors

UPLOADS = "uploads"
_EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif"}


class Uploads:
    """The uploaded files of one index.

    Args:
        index: The index's folder.
    """

    def __init__(self, index: Path) -> None:
        self._index = index
        self.folder = index / UPLOADS
        self._inside = f"{self.folder}{os.sep}"

    def write(self, id_: str, digest: str, content: bytes, format_: str) -> str:
        """Store a file; it is on the disk when this returns.

        Args:
            id_: Of the item.
            digest: Of the content, so that a new version never overwrites the one that is in use.
            content: Of the file.
            format_: Pillow's name of its format.

        Returns:
            Its path relative to the index's folder.

        Raises:
            StoreFull: The disk is full.
            StoreError: The folder cannot be written.
        """
        extension = _EXTENSIONS.get(format_, format_.lower())
        relative = f"{UPLOADS}/{id_[:2]}/{id_}-{digest}.{extension}"
        path = self._index / relative
        with store_errors(self._index):
            if not (path.exists() and path.stat().st_size == len(content)):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, lambda file: file.write(content))
        return relative

    def owns(self, path: str) -> bool:
        """Whether an absolute path is of an upload."""
        return path.startswith(self._inside)

    @staticmethod
    def names(path: str) -> bool:
        """Whether a path in the table is of an upload: those are relative, all others absolute."""
        return path.startswith(f"{UPLOADS}/")

    def delete(self, path: str) -> None:
        """Delete the file of an upload, if the path, as it is in the table, is of one."""
        if self.names(path):
            with suppress(FileNotFoundError):
                (self._index / path).unlink()

    def remove_orphans(self, known: Iterable[str]) -> int:
        """Delete files that no row names: a process was killed between writing them and the commit.

        Args:
            known: Paths of all rows, as they are in the table.

        Returns:
            How many there were.
        """
        if not self.folder.is_dir():
            return 0
        named = {str(self._index / path) for path in known}
        orphans = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.folder)
            for name in names
            if os.path.join(folder, name) not in named
        ]
        for path in orphans:
            with suppress(FileNotFoundError):
                os.unlink(path)
        return len(orphans)
