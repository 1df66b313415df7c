"""The table of an index in LanceDB: upsert, delete, read, nearest neighbors. Knows nothing of pictures or encoders.

Every change is one commit of Lance: it is there as a whole or not at all, whenever the process ends. Readers follow
the latest commit and read each query from one version, which stays on the disk for ``_RETENTION`` after it was
replaced. Shapes: N rows, K hits, D width of an embedding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.errors import StoreFull, UsageError
from nunbit.index.folder import lance_message, store_errors
from nunbit.index.rows import ADDED_COLUMNS, FILTER_COLUMNS, Row, in_chunks
from nunbit.picture_files import one_line

if TYPE_CHECKING:
    from nunbit.types import FloatArray

TABLE = "pictures.lance"
"""The folder of the table within the index's."""

_TABLE = TABLE.removesuffix(".lance")
_RETENTION = timedelta(minutes=10)  # longer than any query takes, so that tidying breaks no reader
_MANY_FILES = 64  # small data files that are merged into one; merging rewrites everything, so not too often
_CACHE_BYTES = 32 << 20
_IDS = 512  # named in one filter
_WHERE_HINT = "write it like: width >= 640 AND format = 'JPEG' AND taken >= date '2024-05-01'"


class Store:
    """The table of one index; made by the first upsert.

    Args:
        folder: Of the index.
        embedding_size: D.
    """

    def __init__(self, folder: Path, embedding_size: int) -> None:
        self._folder = folder
        self._embedding_size = embedding_size
        self._opened: Any = None
        self._commits = threading.RLock()  # threads of one process write side by side: uploads, and a folder's run
        self._own_version = -1
        self._others = False

    def count(self) -> int:
        """Count the rows."""
        with store_errors(self._folder):
            return int(table.count_rows()) if (table := self._table()) is not None else 0

    def records(self, columns: Sequence[str], where: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Read rows, a batch at a time, all from the version that is the latest when the reading starts.

        Args:
            columns: To read.
            where: SQL condition on the filter columns.

        Yields:
            Rows as dictionaries, in no particular order; never all of them at once.

        Raises:
            UsageError: ``where`` cannot be used.
            StoreError: The table cannot be read.
        """
        with self._query_errors(where):
            if (table := self._table()) is None:
                return
            query = table.search().select(list(columns))
            if where is not None:
                query = query.where(_enclosed(where))
            batches = iter(query.to_batches(4096))
        while True:
            with self._query_errors(where):
                if (batch := next(batches, None)) is None:
                    return
                records: list[dict[str, Any]] = batch.to_pylist()
            yield records

    def nearest(self, vector: FloatArray, limit: int, where: str | None = None) -> list[tuple[float, dict[str, Any]]]:
        """Find the rows most like a vector, by comparing it with every row that passes the filter: exact.

        Args:
            vector: (D,) float32, not zero; of any length.
            limit: At least 1.
            where: SQL condition on the filter columns, applied before the search.

        Returns:
            At most ``limit`` pairs of similarity (cosine in [-1, 1]) and record, by similarity and then by id.

        Raises:
            UsageError: ``where`` cannot be used.
            StoreError: The table cannot be read.
        """
        with self._query_errors(where):
            if (table := self._table()) is None:
                return []
            rows = int(table.count_rows())
            wanted = min(limit, rows) + 1  # one more shows whether equals were cut off, of which Lance takes any
            while True:
                query = table.search(vector, vector_column_name="vector").distance_type("cosine")
                query = query.select([*FILTER_COLUMNS, "_distance"]).limit(wanted)
                if where is not None:
                    query = query.where(_enclosed(where), prefilter=True)
                hits = [(min(1.0, max(-1.0, 1.0 - hit.pop("_distance"))), hit) for hit in query.to_list()]
                hits.sort(key=lambda hit: (-hit[0], hit[1]["id"]))
                if len(hits) < wanted or (wanted > limit and hits[-1][0] < hits[limit - 1][0]):
                    return hits[:limit]
                wanted *= 8

    def vectors(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """Read embeddings: id → (D,) float32. Unknown ids are left out."""
        found: dict[str, FloatArray] = {}
        for some in in_chunks(ids, _IDS):
            part = self._read(some, ["id", "vector"])
            if part is not None and len(part):
                rows = part["vector"].combine_chunks().flatten().to_numpy().reshape(len(part), -1)  # (N, D)
                found.update(zip(part["id"].to_pylist(), rows, strict=True))
        return found

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Hold back other threads' commits, and know those that are made within as one's own."""
        with self._commits:
            if self.version() != self._own_version:
                self._others = True
            yield
            self._own_version = self.version()

    @contextmanager
    def taking_in(self) -> Iterator[None]:
        """Hold back other threads' commits, and know what the table was when this began as taken in."""
        with self._commits:
            version = self.version()
            yield
            self._own_version, self._others = version, False

    def version(self) -> int:
        """The number of the latest commit, 0 before the first."""
        with store_errors(self._folder):
            return 0 if (table := self._table()) is None else int(table.version)

    def changed_by_others(self) -> bool:
        """Whether the table has changes that no `committing` block told of: another process's, or a `refresh`."""
        with self._commits:
            return self._others or self.version() != self._own_version

    def add_missing_columns(self) -> None:
        """Give a table of format version 1 the columns that came with 2. Only for the writer."""
        with self._commits, store_errors(self._folder):
            if self._has_table():
                table = self._connect().open_table(_TABLE)
                missing = [name for name in ADDED_COLUMNS if name not in table.schema.names]
                if missing:
                    table.add_columns(dict.fromkeys(missing, "cast(NULL as string)"))

    def paths(self, ids: Sequence[str]) -> list[str]:
        """Paths of rows, as they are in the table."""
        parts = (self._read(some, ["path"]) for some in in_chunks(ids, _IDS))
        return [path for part in parts if part is not None for path in part["path"].to_pylist()]

    def given(self, ids: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
        """What people gave to rows: id → name and attributes. Unknown ids are left out."""
        found: dict[str, tuple[str | None, str | None]] = {}
        for some in in_chunks(ids, _IDS):
            if (part := self._read(some, ["id", *ADDED_COLUMNS])) is not None:
                columns = [part[name].to_pylist() for name in ("id", *ADDED_COLUMNS)]
                found.update({id_: (name, attributes) for id_, name, attributes in zip(*columns, strict=True)})
        return found

    def upsert(self, rows: Sequence[Row]) -> None:
        """Insert rows, or replace those with the same id, in one commit. Ids must not repeat among ``rows``.

        Raises:
            StoreFull: The disk is full; nothing of this was committed.
            StoreError: It cannot be written.
        """
        if not rows:
            return
        import pyarrow as pa

        embeddings = np.concatenate([row.embedding for row in rows], dtype=np.float32)  # (N * D,)
        records = [row.record() for row in rows]
        columns = {name: [record[name] for record in records] for name in FILTER_COLUMNS}
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings), self._embedding_size)
        with self._commits:
            self._merge(pa.table({**columns, "vector": vectors}, schema=self._schema()))

    def refresh(self, changes: Mapping[str, tuple[int, int]]) -> None:
        """Give rows (id) another size and mtime_ns and leave the rest, one commit for every 512.

        Who follows the table by what is written to it must read it again: `changed_by_others` says so.
        """
        self._others = True
        import pyarrow as pa

        for some in in_chunks(changes, _IDS):
            with self._commits:
                part = self._read(some, self._schema().names)
                if part is None or not len(part):
                    continue
                for place, name in enumerate(("size", "mtime_ns")):
                    values = pa.array([changes[id_][place] for id_ in part["id"].to_pylist()], pa.int64())
                    part = part.set_column(part.schema.get_field_index(name), name, values)
                self._merge(part.cast(self._schema()))

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id, one commit for every 512; returns how many there were."""
        deleted = 0
        with self._commits, store_errors(self._folder):
            table = self._table()
            for some in in_chunks(ids, _IDS) if table is not None else ():
                deleted += int(table.delete(_among(some)).num_deleted_rows)
        return deleted

    def copy_all(self, origin: Store) -> None:
        """Fill this table, which is not there yet, with the rows of another, all from its latest version."""
        with store_errors(origin._folder):
            if (table := origin._table()) is not None:
                self._connect().create_table(_TABLE, table.search().to_batches(4096), schema=self._schema())

    def copy_again(self, origin: Store, ids: Sequence[str]) -> None:
        """Replace rows by what another table has of them now, which may be nothing."""
        self.delete(ids)
        for some in in_chunks(ids, _IDS):
            if (part := origin._read(some, self._schema().names)) is not None and len(part):
                self._merge(part.cast(self._schema()))

    def tidy(self, *, final: bool) -> None:
        """Merge small data files and remove versions that nobody reads any more. Only for the writer.

        Args:
            final: Look for old versions too, which takes a while when there are many.
        """
        # The rows are safe by now, and on a full disk too: then the next run tidies.
        with self._commits, suppress(StoreFull), store_errors(self._folder):
            if (table := self._table()) is None:
                return
            due = table.stats()["fragment_stats"]["num_fragments"] > _MANY_FILES
            if final and not due:
                versions = table.list_versions()
                due = len(versions) > 1 and versions[0]["timestamp"] < datetime.now() - _RETENTION
            if due:
                # Files of no version are left over from killed runs: there is no other writer whose files they are.
                table.optimize(cleanup_older_than=_RETENTION, delete_unverified=True)

    def _merge(self, rows: Any) -> None:
        with store_errors(self._folder):
            table = self._table()
            if table is None:
                table = self._opened = self._connect().create_table(_TABLE, schema=self._schema(), exist_ok=True)
            table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def _read(self, ids: Sequence[str], columns: Sequence[str]) -> Any:
        """Read the rows of these ids as a pyarrow table; None when there is no table yet."""
        with store_errors(self._folder):
            table = self._table()
            return None if table is None else table.search().where(_among(ids)).select(list(columns)).to_arrow()

    def _table(self) -> Any:
        """Give the table; None as long as nothing was added, or when a run was killed while making it."""
        if self._opened is None:
            with store_errors(self._folder):
                if self._has_table():
                    table = self._connect().open_table(_TABLE)
                    if not table.schema.equals(self._schema()):
                        raise ValueError(f"its table has other columns: {', '.join(table.schema.names)}")
                    self._opened = table
        return self._opened

    def _has_table(self) -> bool:
        versions = self._folder / TABLE / "_versions"
        return versions.is_dir() and any(versions.glob("*.manifest"))

    def _connect(self) -> Any:
        import lancedb

        # What Lance remembers of old versions has no bound by default, and every commit makes a version.
        session = lancedb.Session(index_cache_size_bytes=_CACHE_BYTES, metadata_cache_size_bytes=_CACHE_BYTES)
        return lancedb.connect(self._folder, read_consistency_interval=timedelta(0), session=session)

    def _schema(self) -> Any:
        import pyarrow as pa

        types: dict[str, Callable[[], Any]] = {
            **dict.fromkeys(("size", "mtime_ns"), pa.int64),
            **dict.fromkeys(("width", "height"), pa.int32),
            "taken": lambda: pa.timestamp("us"),
        }
        nullable = ("taken", *ADDED_COLUMNS)
        fields = [pa.field(name, types.get(name, pa.string)(), nullable=name in nullable) for name in FILTER_COLUMNS]
        vector = pa.field("vector", pa.list_(pa.float32(), self._embedding_size), nullable=False)
        first = len(FILTER_COLUMNS) - len(ADDED_COLUMNS)
        return pa.schema([*fields[:first], vector, *fields[first:]])

    @contextmanager
    def _query_errors(self, where: str | None) -> Iterator[None]:
        """Blame the filter for what Lance says about it, and the folder for everything else."""
        with store_errors(self._folder):
            try:
                yield
            except (ValueError, RuntimeError) as error:
                # ValueError: it cannot be understood. RuntimeError: it fails on a row, such as a division by zero.
                refused = isinstance(error, ValueError) or "filter expression" in str(error)
                if where is None or not refused:
                    raise
                raise UsageError(
                    f"the filter {one_line(where)!r} cannot be used: {lance_message(error)}; "
                    f"the columns are {', '.join(FILTER_COLUMNS)}",
                    hint=_WHERE_HINT,
                ) from error


def _enclosed(where: str) -> str:
    """In parentheses, Lance refuses what it would silently ignore otherwise: ``width > 1; and more``."""
    return f"({where})"


def _among(ids: Sequence[str]) -> str:
    quoted = ", ".join("'" + id_.replace("'", "''") + "'" for id_ in ids)
    return f"id IN ({quoted})"
