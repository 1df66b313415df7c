"""A copy of an index that is whole, taken while somebody writes to the index.

All rows are read from one version of the table, so the copy is the index at one moment. Files of uploads are copied
after that. One that is gone by then belonged to a picture that was deleted or replaced meanwhile: what is true of that
picture now is copied instead. No lock is taken, and nobody waits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nunbit.durable import sync_file_system, sync_folder
from nunbit.errors import StoreError, StoreNotFound, UsageError
from nunbit.index.folder import FORMAT_VERSION, IDENTITY, LOCK, read_identity, shown, store_errors
from nunbit.index.store import TABLE, Store
from nunbit.index.uploads import UPLOADS, Uploads

_PASSES = 100  # each only looks at what was changed during the one before
_DRAFT = ".partial"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What is in a backup: pictures, and how many of them are files of uploads, which are copied."""

    pictures: int
    uploads: int


def back_up(index: Path, into: Path) -> BackupReport:
    """Copy an index to a folder that does not exist yet, or is empty. It is an index itself: serving it restores it.

    Pictures of indexed folders are not copied, only what the index knows of them. When this is interrupted, what it has
    copied lies beside ``into``, under its name with ``.partial``, and the next call removes it.

    Raises:
        StoreNotFound: There is no such index.
        UsageError: ``into`` has something in it.
        StoreError: A folder cannot be read or written, or the index has the format of an earlier release.
    """
    index, into = index.absolute(), into.absolute()
    with store_errors(index):
        identity = read_identity(index)
    if identity is None:
        raise StoreNotFound(f"there is no index at {shown(index)}", hint="give the folder that was given to --into")
    if identity.version != FORMAT_VERSION:
        hint = "nunbit index or nunbit serve upgrades it when it is opened"
        raise StoreError(f"{shown(index)} has the format of an earlier release", hint=hint)
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise UsageError(f"{shown(into)} is there already", hint="give a folder that does not exist yet")
    draft = into.with_name(into.name + _DRAFT)
    with store_errors(into):
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(parents=True)
        live, copy = Store(index, identity.embedding_size), Store(draft, identity.embedding_size)
        copy.copy_all(live)
        uploads = _copy_uploads(live, copy, index, draft)
        report = BackupReport(copy.count(), uploads)
        _copy_others(index, draft)
        shutil.copy2(index / IDENTITY, draft)
        sync_file_system(draft)
        draft.rename(into)  # the name appears when all of it is on the disk
        sync_folder(into.parent)
    return report


def _copy_uploads(live: Store, copy: Store, index: Path, draft: Path) -> int:
    """Copy the files of the uploads that the copied rows name; returns how many there are."""
    paths = _uploads(copy)
    for _ in range(_PASSES):
        gone = []
        for id_, path in paths:
            try:
                _copy_file(index / path, draft / path)
            except FileNotFoundError:
                gone.append(id_)
        if not gone:
            named = [path for _, path in _uploads(copy)]
            Uploads(draft).remove_orphans(named)
            return len(named)
        copy.copy_again(live, gone)
        wanted = set(gone)
        paths = ((id_, path) for id_, path in _uploads(copy) if id_ in wanted)
    raise StoreError(
        f"{shown(index)} changed quicker than its files could be copied", hint="try again, or stop the server meanwhile"
    )


def _uploads(store: Store) -> Iterator[tuple[str, str]]:
    """Id and relative path of every row that is an upload."""
    for records in store.records(["id", "path"]):
        for record in records:
            if Uploads.names(record["path"]):
                yield record["id"], record["path"]


def _copy_others(index: Path, draft: Path) -> None:
    """Copy what else lies in an index: the ledger, keys, label sets."""
    apart = {TABLE, UPLOADS, LOCK, IDENTITY}
    for entry in index.iterdir():
        if entry.name in apart:
            continue
        for path in [entry] if entry.is_file() else entry.rglob("*"):
            if path.is_file() and path.suffix != ".tmp":
                with suppress(FileNotFoundError):  # deleted meanwhile
                    _copy_file(path, draft / path.relative_to(index))


def _copy_file(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, to)
