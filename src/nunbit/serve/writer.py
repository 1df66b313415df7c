"""Changes of the index: many requests' pictures, one commit.

An item is acknowledged when its file and its row are on the disk. The file is written first, under a name that no row
has yet; then one commit takes the rows of all that are waiting. A kill between the two leaves a file without a row,
which the next start removes, and never a row without its file.

Shapes: D width.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
        name: For people.
        attributes: Given by the client.
    """

    content: bytes
    info: ImageInfo
    embedding: FloatArray
    name: str
    attributes: Mapping[str, Any]


@dataclass(eq=False, slots=True)
class _Change:
    id: str
    row: Row | None  # None: the item goes
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
        """Store a picture.

        Args:
            picture: What.
            id_: Of the item that it replaces or becomes; by default a digest of its bytes, so that who sends a picture
                again, after an answer that got lost, makes no second item.
        """
        digest = hashlib.blake2b(picture.content, digest_size=16).hexdigest()
        id_ = id_ or digest
        path = await asyncio.to_thread(self._index.uploads.write, id_, digest, picture.content, picture.info.format)
        row = Row(
            id=id_,
            path=path,
            name=picture.name or f"{id_[:8]}.{picture.info.format.lower()}",
            size=len(picture.content),
            mtime_ns=time.time_ns(),
            width=picture.info.width,
            height=picture.info.height,
            format=picture.info.format,
            taken=picture.info.taken,
            content_hash=digest,
            attributes=as_attributes(picture.attributes),
            embedding=picture.embedding,
        )
        item = await self._change(id_, row)
        assert item is not None
        return item

    async def change(self, id_: str, name: str | None, attributes: Mapping[str, Any] | None) -> Item:
        """Give an item another name or other attributes.

        Raises:
            Problem: 404, there is none.
        """
        item, vector = self._collection.get(id_), self._collection.vector(id_)
        if item is None or vector is None:
            raise no_item(id_)
        row = self._index.row_of(item, vector)
        if name is not None:
            row = replace(row, name=name)
        if attributes is not None:
            row = replace(row, attributes=as_attributes(attributes))
        changed = await self._change(id_, row)
        assert changed is not None
        return changed

    async def remove(self, id_: str) -> None:
        """Take an item out; the file of an upload is deleted, any other stays.

        Raises:
            Problem: 404, there is none.
        """
        if self._collection.get(id_) is None:
            raise no_item(id_)
        await self._change(id_, None)

    async def close(self) -> None:
        """Commit what is waiting."""
        while self._waiting or self._busy:
            await asyncio.sleep(0.005)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _change(self, id_: str, row: Row | None) -> Item | None:
        change = _Change(id_, row, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        self._arrived.set()
        return await change.done

    async def _commit_all(self) -> None:
        while True:
            await self._arrived.wait()
            self._busy = True
            batch = self._next_batch()
            try:
                await asyncio.to_thread(self._commit, batch)
            except Exception as error:
                _log.warning("a commit of %d changes failed: %r", len(batch), error)
                for change in _waited_for(batch):
                    change.done.set_exception(error)
            else:
                for change in _waited_for(batch):
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

    def _commit(self, batch: list[_Change]) -> None:
        self._index.put([change.row for change in batch if change.row is not None])
        if gone := [change.id for change in batch if change.row is None]:
            self._index.remove(gone)


def _waited_for(batch: list[_Change]) -> list[_Change]:
    """Changes whose requests have not been canceled meanwhile."""
    return [change for change in batch if not change.done.done()]


def no_item(id_: str) -> Problem:
    """404."""
    return Problem(404, "no_such_item", f"there is no item {id_}", "GET /v1/items lists them", "id")
