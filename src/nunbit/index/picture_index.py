"""`Index`: what users call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np

from nunbit.durable import sync_file_system
from nunbit.errors import StoreError, UsageError
from nunbit.index.add import AddReport, AddRun, HowToAdd, Progress
from nunbit.index.folder import is_outdated, mark_upgraded, open_folder, writer_lock
from nunbit.index.ledger import LEDGER, Ledger
from nunbit.index.rows import FILTER_COLUMNS, Item, Row, as_attributes, item_of
from nunbit.index.store import Store
from nunbit.index.uploads import Uploads
from nunbit.index.writers import Writers
from nunbit.types import Match

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray, ImageSource


Listener: TypeAlias = "Callable[[Sequence[Item], FloatArray, Sequence[str]], None]"


class Index:
    """Pictures that can be searched by words, by another picture or by a vector. Made by `Index.open`.

    One process writes at a time, any number read, and readers see what was committed last. A filter (``where``) is
    a condition in SQL on ``id``, ``path``, ``size`` (bytes), ``mtime_ns``, ``width``, ``height`` (pixels),
    ``format``, ``taken`` (a timestamp; null when unknown), ``content_hash``, ``name`` and ``attributes`` (JSON; null or
    empty when there are none). Filtered results are exact.

    Example:
        >>> with nunbit.Index.open("photos.nunbit", encoder) as index:
        ...     report = index.add(["photos/"])
        ...     matches = index.search("a dog on a beach", top_k=5, where="width >= 640")
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self._folder = folder
        self._encoder = encoder
        self._store: Store | None = Store(folder, encoder.embedding_size)
        self._listener: Listener = lambda items, vectors, removed: None
        self._writers = Writers(folder)
        self.uploads = Uploads(folder)
        """Files of uploaded pictures."""

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
        index = cls(folder, encoder)
        if is_outdated(folder):
            with writer_lock(folder):
                index._opened().add_missing_columns()
                mark_upgraded(folder)
        return index

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        progress: Progress | None = None,
        exact: bool = False,
        within: Path | None = None,
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
            within: A folder, resolved, outside of which nothing is listed or read.

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
        how = HowToAdd(progress, exact, within)
        with self._writers.run():
            return AddRun(store, self._encoder, Ledger(self._folder), how, self._committed).run(given)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from writing meanwhile; this one's threads may.

        Raises:
            StoreBusy: Another process is writing.
        """
        with self._writers.side_by_side():
            yield

    def put(self, rows: Sequence[Row]) -> None:
        """Insert rows, or replace those of the same ids, in one commit. For servers, beside a run of `add`.

        The rows are on the disk when this returns.

        Files of uploads that are replaced are deleted.

        Raises:
            StoreBusy: Another process is writing.
            StoreFull: The disk is full; nothing of this was committed.
            StoreError: The index cannot be written.
        """
        if not rows:
            return
        store = self._opened()
        with self._writers.side_by_side(), store.committing():
            before = self._uploaded(store, [row.id for row in rows])
            store.upsert(rows)
            store.tidy(final=False)
            sync_file_system(self._folder)
            self._committed(rows, ())
        for path in before.difference(row.path for row in rows):
            self.uploads.delete(path)

    def row_of(self, item: Item, embedding: FloatArray) -> Row:
        """The row of an item, as `put` takes it."""
        own = self.uploads.owns(item.path)
        path = str(Path(item.path).relative_to(self._folder)) if own else item.path
        attributes = as_attributes(item.attributes)
        return Row(item.id, path, **item.metadata, name=item.name, attributes=attributes, embedding=embedding)

    def watch(self, listener: Listener) -> None:
        """Be told of every commit of this process: items added or replaced, their embeddings, ids that are gone."""
        self._listener = listener

    def changed_by_others(self) -> bool:
        """Whether another process has committed something since this one last did, or last read a `snapshot`."""
        return self._opened().changed_by_others()

    @contextmanager
    def snapshot(self) -> Iterator[Iterator[tuple[list[Item], FloatArray]]]:
        """All pictures with their embeddings, (N, D) float32, in parts. Nobody in this process commits meanwhile."""
        store = self._opened()
        with store.taking_in():
            yield self._parts(store)

    def remove_orphans(self) -> int:
        """Delete files of uploads that no row names, which a killed process has left; returns how many."""
        store = self._opened()
        with self._writers.side_by_side():
            return self.uploads.remove_orphans(
                record["path"] for records in store.records(["path"]) for record in records
            )

    def drop_files(self, rows: Sequence[Row]) -> None:
        """Delete files of uploads that were written for rows whose `put` failed."""
        named = set(self._opened().paths([row.id for row in rows]))
        for row in rows:
            if row.path not in named:
                self.uploads.delete(row.path)

    def remove(self, ids: Iterable[str]) -> int:
        """Take pictures out of the index. Files of uploads are deleted, all others stay: `add` would add them again.

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
        with self._writers.side_by_side(), store.committing():
            uploaded = self._uploaded(store, listed)
            removed = store.delete(listed)
            store.tidy(final=True)
            sync_file_system(self._folder)
            self._committed((), listed)
        for path in uploaded:
            self.uploads.delete(path)
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
            item = item_of(record, self._folder)
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
            yield from (item_of(record, self._folder) for record in records)

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

    def _committed(self, rows: Sequence[Row], removed: Sequence[str]) -> None:
        items = [item_of(row.record(), self._folder) for row in rows]
        size = self._encoder.embedding_size
        vectors = np.stack([row.embedding for row in rows]) if rows else np.empty((0, size), np.float32)
        self._listener(items, vectors, removed)

    def _parts(self, store: Store) -> Iterator[tuple[list[Item], FloatArray]]:
        for records in store.records([*FILTER_COLUMNS, "vector"]):
            vectors = np.array([record.pop("vector") for record in records], np.float32)  # (N, D)
            yield [item_of(record, self._folder) for record in records], vectors

    def _uploaded(self, store: Store, ids: Sequence[str]) -> set[str]:
        """Paths of those rows that are uploads."""
        paths = store.paths(ids)
        return {path for path in paths if self.uploads.names(path)}

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
