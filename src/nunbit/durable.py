"""Folders that several processes share: one writer at a time, and files that are whole or not there."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nunbit.errors import StoreBusy


@contextmanager
def only_writer(lock: Path, shown: str, *, wait: bool = False) -> Iterator[None]:
    """Be the one writer. The system lets go of the lock when the process ends, however it ends.

    Args:
        lock: A file, made when it is not there; its content means nothing.
        shown: What is written to, for the message.
        wait: Wait while somebody else is writing, however long that takes.

    Raises:
        StoreBusy: Somebody else is writing, in this process or another, and ``wait`` was not asked for.
    """
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise StoreBusy(
                f"{shown} is being written to by another process",
                hint="wait until it is done; searching is possible meanwhile",
            ) from error
        yield


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put a file in its place, whole and on the disk, or leave what was there."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def sync_file_system(folder: Path) -> None:
    """Have all that was written to a folder's file system reach the disk: for files of a library that does not care."""
    number = os.open(folder, os.O_RDONLY)
    try:
        syncfs = getattr(ctypes.CDLL(None), "syncfs", None)  # Linux
        if syncfs is None or syncfs(number) != 0:
            os.sync()
    finally:
        os.close(number)


def sync_folder(folder: Path) -> None:
    """Have the system write a folder's list of names to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
