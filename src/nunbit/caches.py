"""Where nunbit keeps what it can compute again: prepared engines, embeddings of labels."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "NUNBIT_CACHE"


def cache_folder(name: str) -> Path:
    """The folder of one cache, for this user alone; everything in it may be deleted at any time.

    It is below ``$NUNBIT_CACHE``, or else below ``$XDG_CACHE_HOME/nunbit``, or else below ``~/.cache/nunbit``.

    Args:
        name: Of the cache: ``"engines"``, ``"labels"``.

    Returns:
        The folder, made when it was not there.
    """
    root = os.environ.get(VARIABLE) or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "nunbit")
    folder = Path(root).expanduser() / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
