"""Changes of the index: many requests' pictures, one commit.

An item is acknowledged when its file and its row are on the disk. The file is written first, under a name that no row
has yet; then one commit takes the rows of all that are waiting. A kill between the two leaves a file without a row,
which the next start removes, and never a row without its file.

What a change makes of an item is decided when its turn has come, and not when its request arrives: meanwhile another
one may have replaced or deleted the item, and its file with it.

Shapes: D width.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nunbit.errors import NunbitError
from nunbit.index.rows import Row, as_attributes
from nunbit.serve.problems import Problem

if TYPE_CHECKING:
    from nunbit.images import ImageInfo
    from nunbit.index import Index, Item
    from nunbit.serve.collection import Collection
    from nunbit.types import FloatArray

_log = logging.getLogger("nunbit")
_COMMIT_ROWS = 256


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture to be stored, already embedded.

    Attributes:
        content: Of the file.
        info: What its header said.
        embedding: (D,) float32, unit.
        name: Given by the client; empty when it gave none.
        attributes: Given by the client.
        file_name: For an item that has no name yet.
    """

    content: bytes
    info: ImageInfo
    embedding: FloatArray
    name: str
    attributes: Mapping[str, Any]
    file_name: str = ""


@dataclass(eq=False, slots=True)
class _Change:
    id: str
    make: Callable[[], Row | None]  # called in its turn, in a thread; None: the item goes
    done: asyncio.Future[Item | None]


class Writer:
    """The one place of a server that changes its index. Made, used and closed within one event loop.

    Args:
        index: Opened for writing.
        collection: Follows the index.
    """

    def __init__(self, index: Index, collection: Collection) -> None:
        self._index = index
        self._collection = collection
        self._waiting: deque[_Change] = deque()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._commit_all())
        self._busy = False

    async def add(self, picture: NewPicture, id_: str | None = None) -> Item:
        """Store a picture. An item that it replaces keeps its name and attributes, but for those that are given.

        Args:
            picture: What.
            id_: Of the item that it replaces or becomes; by default a digest of its bytes, so that who sends a picture
                again, after an answer that got lost, makes no second item.

        Raises:
            Problem: 409, the item is a file of an indexed folder.
        """
        digest = hashlib.blake2b(picture.content, digest_size=16).hexdigest()
        id_ = id_ or digest
        item = await self._change(id_, lambda: self._stored(id_, digest, picture))
        assert item is not None
        return item

    async def change(self, id_: str, name: str | None, attributes: Mapping[str, Any] | None) -> Item:
        """Give an item another name or other attributes.

        Raises:
            Problem: 404, there is none.
        """

        def make() -> Row:
            row = self._row(id_)
            if name is not None:
                row = replace(row, name=name)
            return row if attributes is None else replace(row, attributes=as_attributes(attributes))

        item = await self._change(id_, make)
        assert item is not None
        return item

    async def remove(self, id_: str) -> None:
        """Take an item out; the file of an upload is deleted, any other stays.

        Raises:
            Problem: 404, there is none.
        """

        def make() -> None:
            self._row(id_)

        await self._change(id_, make)

    async def close(self) -> None:
        """Commit what is waiting."""
        while self._waiting or self._busy:
            await asyncio.sleep(0.005)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _stored(self, id_: str, digest: str, picture: NewPicture) -> Row:
        """Write a picture's file; its row."""
        info, known = picture.info, self._collection.get(id_)
        if known is not None and not self._index.uploads.owns(known.path):
            hint = "change the file in its folder, or delete the item and add a picture"
            raise Problem(409, "not_uploaded", "the item is a file of an indexed folder", hint, "id")
        name = picture.name or (known.name if known else picture.file_name) or f"{id_[:8]}.{info.format.lower()}"
        return Row(
            id=id_,
            path=self._index.uploads.write(id_, digest, picture.content, info.format),
            name=name,
            size=len(picture.content),
            mtime_ns=time.time_ns(),
            width=info.width,
            height=info.height,
            format=info.format,
            taken=info.taken,
            content_hash=digest,
            attributes=as_attributes({**(known.attributes if known else {}), **picture.attributes}),
            embedding=picture.embedding,
        )

    def _row(self, id_: str) -> Row:
        """The row of an item as it is now."""
        item, vector = self._collection.get(id_), self._collection.vector(id_)
        if item is None or vector is None:
            raise no_item(id_)
        return self._index.row_of(item, vector)

    async def _change(self, id_: str, make: Callable[[], Row | None]) -> Item | None:
        change = _Change(id_, make, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        self._arrived.set()
        return await change.done

    async def _commit_all(self) -> None:
        while True:
            await self._arrived.wait()
            self._busy = True
            batch = self._next_batch()
            try:
                failed = await asyncio.to_thread(self._commit, batch)
            except Exception as error:
                _log.warning("a commit of %d changes failed: %r", len(batch), error)
                failed = dict.fromkeys(batch, error)
            for change in batch:
                if change.done.done():  # its request was canceled meanwhile
                    continue
                if change in failed:
                    change.done.set_exception(failed[change])
                else:
                    change.done.set_result(self._collection.get(change.id))
            self._busy = False
            if not self._waiting:
                self._arrived.clear()

    def _next_batch(self) -> list[_Change]:
        """Changes in the order they came, as far as none concerns an item a second time."""
        batch: list[_Change] = []
        ids: set[str] = set()
        while self._waiting and len(batch) < _COMMIT_ROWS and self._waiting[0].id not in ids:
            change = self._waiting.popleft()
            if not change.done.cancelled():
                batch.append(change)
                ids.add(change.id)
        return batch

    def _commit(self, batch: list[_Change]) -> dict[_Change, Exception]:
        """Make and commit changes; those that cannot be made do not keep the others from it."""
        with self._index.writing():  # before a file is written: another process's start would take it for a left one
            rows, gone, failed = _made(batch)
            try:
                self._index.put(rows)
            except NunbitError:
                self._index.drop_files(rows)
                raise
            if gone:
                self._index.remove(gone)
        return failed


def _made(batch: list[_Change]) -> tuple[list[Row], list[str], dict[_Change, Exception]]:
    """What changes come to: rows, ids that go, and those that cannot be made."""
    rows: list[Row] = []
    gone: list[str] = []
    failed: dict[_Change, Exception] = {}
    for change in batch:
        try:
            row = change.make()
        except (Problem, NunbitError) as error:
            failed[change] = error
        else:
            if row is None:
                gone.append(change.id)
            else:
                rows.append(row)
    return rows, gone, failed


def no_item(id_: str) -> Problem:
    """404."""
    return Problem(404, "no_such_item", f"there is no item {id_}", "GET /v1/items lists them", "id")
