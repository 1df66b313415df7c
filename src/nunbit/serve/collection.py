"""The pictures of an index in memory: searched, filtered, sorted and mapped without touching the disk.

Readers take a `View`, which never changes; the one writer publishes a new view after each commit. Rows are only ever
appended and marked dead, in arrays with room to spare, so that a commit copies a bit a picture and no embedding.

Shapes: N rows, D width.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nunbit.index import Item

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

NUMBERS = ("width", "height", "size", "mtime_ns")
_ROOM = 1024
_DEAD_SHARE = 0.25


@dataclass(frozen=True)
class View:
    """The collection at one moment.

    Attributes:
        vectors: (N, D) float32, unit rows.
        numbers: (4, N) int64: ``NUMBERS``.
        items: At least N of them; those beyond belong to later views.
        alive: (N,) bool: which rows there still are.
    """

    vectors: FloatArray
    numbers: npt.NDArray[np.int64]
    items: list[Item]
    alive: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.alive.sum())

    @cached_property
    def newest(self) -> npt.NDArray[np.int64]:
        """Rows, the last modified first; equal ones by id."""
        rows = np.flatnonzero(self.alive)
        ids = np.array([self.items[row].id for row in rows.tolist()])
        return rows[np.lexsort((ids, -self.numbers[NUMBERS.index("mtime_ns"), rows]))] if len(rows) else rows

    def nearest(
        self,
        query: FloatArray,
        limit: int,
        offset: int = 0,
        mask: npt.NDArray[np.bool_] | None = None,
        *,
        least: float = -1.0,
    ) -> tuple[list[tuple[Item, float]], int]:
        """The most similar pictures: exact, by cosine and then by id.

        Args:
            query: (D,) float32; of any length but zero.
            limit: How many.
            offset: How many to pass over before.
            mask: (N,) bool: which rows may be found; all by default.
            least: Similarity below which nothing is found.

        Returns:
            Pairs of picture and cosine, and how many there are in all.
        """
        similarity = np.clip(self.vectors @ (query / np.linalg.norm(query)), -1, 1)
        rows = np.flatnonzero((self.alive if mask is None else self.alive & mask) & (similarity >= least))
        similarity, total = similarity[rows], len(rows)
        wanted = min(offset + limit, total)
        if wanted <= offset:
            return [], total
        cut = np.partition(similarity, total - wanted)[total - wanted]
        kept = np.flatnonzero(similarity >= cut)  # equals of the last one, too: ids decide among them
        pairs = zip(rows[kept].tolist(), similarity[kept].tolist(), strict=True)
        found = [(self.items[row], value) for row, value in pairs]
        found.sort(key=lambda pair: (-pair[1], pair[0].id))
        return found[offset:wanted], total


class Collection:
    """The current view, and its one writer.

    Args:
        embedding_size: D.
    """

    def __init__(self, embedding_size: int) -> None:
        self._size = embedding_size
        self._lock = threading.Lock()
        self.view: View
        self.replace_all([])

    def get(self, id_: str) -> Item | None:
        """The picture of this id, None when there is none."""
        with self._lock:
            place = self._places.get(id_)
            return None if place is None else self._items[place]

    def vector(self, id_: str) -> FloatArray | None:
        """The embedding of a picture, (D,) float32; None when there is none."""
        with self._lock:
            place = self._places.get(id_)
            return None if place is None else self._vectors[place].copy()

    def replace_all(self, batches: Iterable[tuple[Sequence[Item], FloatArray]]) -> None:
        """Hold exactly these pictures, read from the disk."""
        items: list[Item] = []
        parts: list[FloatArray] = [np.empty((0, self._size), np.float32)]
        for some, vectors in batches:
            items.extend(some)
            parts.append(vectors)
        with self._lock:
            self._hold(np.concatenate(parts), _numbers(items), items)

    def apply(self, items: Sequence[Item], vectors: FloatArray, removed: Iterable[str]) -> None:
        """Take in one commit.

        Args:
            items: New pictures, and new states of known ones; no two of one id.
            vectors: (N, D) float32, their unit rows.
            removed: Ids that are gone.
        """
        with self._lock:
            start = len(self.view.alive)
            end = start + len(items)
            alive = np.concatenate([self.view.alive, np.ones(len(items), bool)])
            for id_ in [*removed, *(item.id for item in items)]:
                if (place := self._places.pop(id_, None)) is not None:
                    alive[place] = False
            if end > len(self._vectors):
                self._grow(end + max(_ROOM, end // 4))
            self._vectors[start:end] = vectors
            self._numbers[:, start:end] = _numbers(items)
            self._items.extend(items)
            self._publish(alive)
            self._places.update({item.id: place for place, item in enumerate(items, start)})
            if end - int(alive.sum()) > _ROOM + _DEAD_SHARE * end:
                rows = np.flatnonzero(alive)
                kept = [self._items[row] for row in rows.tolist()]
                self._hold(self._vectors[rows], self._numbers[:, rows], kept)

    def _hold(self, vectors: FloatArray, numbers: npt.NDArray[np.int64], items: list[Item]) -> None:
        self._vectors, self._numbers, self._items = vectors, numbers, items
        self._places = {item.id: place for place, item in enumerate(items)}
        self._publish(np.ones(len(items), bool))

    def _grow(self, room: int) -> None:
        vectors, numbers = np.empty((room, self._size), np.float32), np.empty((len(NUMBERS), room), np.int64)
        count = len(self._vectors)
        vectors[:count], numbers[:, :count] = self._vectors, self._numbers
        self._vectors, self._numbers = vectors, numbers

    def _publish(self, alive: npt.NDArray[np.bool_]) -> None:
        count = len(alive)
        self.view = View(self._vectors[:count], self._numbers[:, :count], self._items, alive)


def _numbers(items: Sequence[Item]) -> npt.NDArray[np.int64]:
    rows = [[item.metadata[name] for item in items] for name in NUMBERS]
    return np.array(rows, np.int64).reshape(len(NUMBERS), len(items))
