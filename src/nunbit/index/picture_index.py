"""`Index`: what users call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from nunbit.errors import StoreError, UsageError
from nunbit.index.add import AddReport, AddRun, Progress
from nunbit.index.folder import open_folder, writer_lock
from nunbit.index.ledger import LEDGER, Ledger
from nunbit.index.rows import FILTER_COLUMNS, Item, item_of
from nunbit.index.store import Store
from nunbit.types import Match

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray, ImageSource


class Index:
    """Pictures that can be searched by words, by another picture or by a vector. Made by `Index.open`.

    One process writes at a time, any number read, and readers see what was committed last. A filter (``where``) is
    a condition in SQL on ``id``, ``path``, ``size`` (bytes), ``mtime_ns``, ``width``, ``height`` (pixels),
    ``format``, ``taken`` (a timestamp; null when unknown) and ``content_hash``. Filtered results are exact.

    Example:
        >>> with nunbit.Index.open("photos.nunbit", encoder) as index:
        ...     report = index.add(["photos/"])
        ...     matches = index.search("a dog on a beach", top_k=5, where="width >= 640")
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self._folder = folder
        self._encoder = encoder
        self._store: Store | None = Store(folder, encoder.embedding_size)

    @classmethod
    def open(cls, path: str | os.PathLike[str], encoder: Encoder, *, create: bool = True) -> Index:
        """Open an index.

        Args:
            path: Its folder.
            encoder: The one that it was made with.
            create: Make it when there is none.

        Raises:
            StoreNotFound: There is none and ``create`` is false.
            EncoderMismatch: It was made with another encoder.
            StoreError: The folder is something else, is damaged, or cannot be read or written.
        """
        folder = Path(path).absolute()
        open_folder(folder, encoder, create=create)
        return cls(folder, encoder)

    def add(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Progress | None = None, exact: bool = False
    ) -> AddReport:
        """Make the index agree with files and folders: add, update, and forget what is gone.

        Files of the same size and modification time as before are skipped without reading them. A picture is
        forgotten when it was under one of ``paths`` and its file is gone. A disk that is not mounted must not cost
        its pictures: when a given folder is missing, or has nothing in it, nothing below it is forgotten and the
        folder itself is rejected; use `remove` to forget such pictures. A file that became bad leaves the index.

        Whatever is rejected has a line in the ledger. What was committed survives whatever happens, and running
        again continues. An interrupt is raised after what was encoded is committed.

        Args:
            paths: Files, and folders with everything below.
            progress: Called with how many of the found pictures are dealt with, and how many there are.
            exact: Decode large JPEGs in full, as in ``Encoder.encode_image``; pictures already in the index stay.

        Returns:
            Counts, and every rejected picture.

        Raises:
            UsageError: ``paths`` is one path, not several.
            StoreBusy: Somebody else is writing.
            StoreFull: The disk is full.
            StoreError: The index cannot be read or written.
        """
        store = self._opened()
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise UsageError(f"add takes a list of paths, got {os.fsdecode(paths)!r}", hint="put it in a list")
        given = tuple(paths)
        with writer_lock(self._folder):
            return AddRun(store, self._encoder, Ledger(self._folder), progress, exact).run(given)

    def remove(self, ids: Iterable[str]) -> int:
        """Take pictures out of the index; their files stay. `add` of the same paths would add them again.

        Args:
            ids: As in ``Match.id`` and ``Item.id``; unknown ones are passed over.

        Returns:
            How many were taken out.

        Raises:
            UsageError: ``ids`` is one id, not several.
            StoreBusy: Somebody else is writing.
            StoreError: The index cannot be written.
        """
        store, listed = self._opened(), _listed(ids)
        with writer_lock(self._folder):
            removed = store.delete(listed)
            store.tidy(final=True)
        return removed

    def search(
        self,
        text: str | None = None,
        *,
        image: ImageSource | None = None,
        top_k: int = 5,
        where: str | None = None,
        exact: bool = False,
    ) -> list[Match]:
        """Find the pictures that are most like a text or a picture, among all that pass the filter.

        Args:
            text: In words. Give this or ``image``.
            image: A path, the bytes of a file, a PIL picture or an array.
            top_k: How many to find, at least 1.
            where: A filter.
            exact: Decode a large JPEG in full, as in ``Encoder.encode_image``.

        Returns:
            At most ``top_k`` matches by similarity (equal ones by id), none when nothing passes the filter.

        Raises:
            UsageError: Neither or both of text and image, an empty text, a bad ``top_k``, a bad filter.
            ImageError: The picture cannot be used.
            StoreError: The index cannot be read.
        """
        self._opened()
        _check_top_k(top_k)
        if text is not None and image is None:
            vector = self._encoder.encode_text([text])[0]
        elif image is not None and text is None:
            vector = self._encoder.encode_image([image], exact=exact)[0]
        else:
            raise UsageError("search takes either a text or a picture", hint="search('a dog') or search(image='a.jpg')")
        return self.search_vector(vector, top_k=top_k, where=where)

    def search_vector(self, vector: FloatArray, top_k: int = 5, where: str | None = None) -> list[Match]:
        """Find the pictures whose embeddings are most like a vector: exact cosine, no approximation.

        Args:
            vector: (D,) numbers, finite and not all zero; its length does not matter.
            top_k: How many to find, at least 1.
            where: A filter.

        Returns:
            As `search`.

        Raises:
            UsageError: A bad vector, ``top_k`` or filter.
            StoreError: The index cannot be read.
        """
        store = self._opened()
        _check_top_k(top_k)
        query = np.asarray(vector, np.float32)
        size = self._encoder.embedding_size
        if query.shape != (size,) or not np.isfinite(query).all() or not query.any():
            raise UsageError(f"a vector to search by must be ({size},), finite and not zero; got shape {query.shape}")
        matches = []
        for rank, (similarity, record) in enumerate(store.nearest(query, top_k, where), start=1):
            item = item_of(record)
            matches.append(Match(rank, item.id, item.path, similarity, item.metadata))
        return matches

    def items(self, where: str | None = None) -> Iterator[Item]:
        """Go through the pictures in no particular order, without holding them all in memory.

        Args:
            where: A filter.

        Yields:
            Every picture that is in the index when the iteration starts. An iteration of more than ten minutes
            can fail when the index is written to meanwhile.

        Raises:
            UsageError: A bad filter.
            StoreError: The index cannot be read.
        """
        for records in self._opened().records(FILTER_COLUMNS, where):
            yield from map(item_of, records)

    def get_embeddings(self, ids: Iterable[str]) -> FloatArray:
        """Read embeddings.

        Args:
            ids: N ids, as in ``Match.id`` and ``Item.id``.

        Returns:
            (N, D) float32, unit rows, in the order of ``ids``.

        Raises:
            UsageError: An unknown id, or one id instead of several.
            StoreError: The index cannot be read.
        """
        store, listed = self._opened(), _listed(ids)
        found = store.vectors(listed)
        unknown = [id_ for id_ in listed if id_ not in found]
        if unknown:
            raise UsageError(f"{len(unknown)} of {len(listed)} ids are not in the index, the first is {unknown[0]!r}")
        rows = np.empty((len(listed), self._encoder.embedding_size), np.float32)
        for number, id_ in enumerate(listed):
            rows[number] = found[id_]
        return rows

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is: a line of JSON (path, reason, detail) for every bad picture. May not exist yet."""
        return self._folder / LEDGER

    def close(self) -> None:
        """Let go of the index; it cannot be used any more."""
        self._store = None

    def __len__(self) -> int:
        return self._opened().count()

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> Store:
        if self._store is None:
            raise StoreError(f"the index {self._folder} is closed", hint="open it again with Index.open")
        return self._store


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}, it must be at least 1")


def _listed(ids: Iterable[str]) -> Sequence[str]:
    if isinstance(ids, str):
        raise UsageError(f"expected a list of ids, got one string, {ids!r}", hint="put it in a list")
    return tuple(ids)
