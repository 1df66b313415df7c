"""What a build made: names, rows and lists, on disk and memory-mapped; nothing of it is read before it is needed.

| name | content |
|---|---|
| ``labels.arrow`` | Name and parents of every label; a label's number is its place in the file it came from. |
| ``rows.arrow`` | Text and label of every row, in the order of the lists. |
| ``vectors.npy``, ``scale.npy`` | Rows in 16-bit fixed point (`nunbit.labels.vectors`). |
| ``lead.npy``, ``lead_scale.npy``, ``rotation.npy`` | The leading numbers of the turned rows. |
| ``centers.npy``, ``offsets.npy`` | The lists: unit centers, and where each begins. |
| ``label_rows.npy``, ``label_starts.npy`` | The rows of each label. |
| ``hashes.npy``, ``hashed.npy`` | Sorted hashes of the names, and the label of each. |

Shapes: N labels, R rows (a label has one for its name and for each synonym), D width, P leading width, L lists.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.errors import StoreError
from nunbit.labels.files import LabelEntry
from nunbit.labels.vectors import from_fixed

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

GATHERED_AT_MOST = 8192
"""Scattered rows read before the system may take their pages back: without it a busy process would by and by hold the
whole of ``vectors.npy``, a kilobyte a row."""


class Base:
    """The opened base of a label set.

    Args:
        folder: ``base-...``.

    Raises:
        StoreError: A file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._labels, self._rows = _read_table(folder / "labels.arrow"), _read_table(folder / "rows.arrow")
            self._vectors, self._pages = _map(folder / "vectors.npy")
            self.scale = np.load(folder / "scale.npy", mmap_mode="r")
            self.lead = np.load(folder / "lead.npy", mmap_mode="r")
            self.lead_scale = np.load(folder / "lead_scale.npy", mmap_mode="r")
            self.rotation: FloatArray = np.load(folder / "rotation.npy")
            self.centers: FloatArray = np.load(folder / "centers.npy")
            self.offsets: npt.NDArray[np.int64] = np.load(folder / "offsets.npy")
            self.label_rows = np.load(folder / "label_rows.npy", mmap_mode="r")
            self.label_starts = np.load(folder / "label_starts.npy", mmap_mode="r")
            self._hashes = np.load(folder / "hashes.npy", mmap_mode="r")
            self._hashed = np.load(folder / "hashed.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            hint = "build the labels again into a new folder"
            raise StoreError(f"{folder} is damaged: {error}", hint=hint) from error
        self.row_label: npt.NDArray[np.int32] = self._rows["label"].chunk(0).to_numpy()
        self._gathered = 0

    def __len__(self) -> int:
        return self._labels.num_rows  # type: ignore[no-any-return]

    @property
    def rows(self) -> int:
        """R."""
        return len(self._vectors)

    def name(self, label: int) -> str:
        """Name of a label."""
        return self._labels["name"].chunk(0)[label].as_py()  # type: ignore[no-any-return]

    def parents(self, label: int) -> tuple[str, ...]:
        """Parents of a label."""
        return tuple(self._labels["parents"].chunk(0)[label].as_py())

    def text(self, row: int) -> str:
        """Text of a row."""
        return self._rows["text"].chunk(0)[row].as_py()  # type: ignore[no-any-return]

    def entry(self, label: int) -> LabelEntry:
        """A label with its synonyms."""
        return LabelEntry(self.name(label), tuple(map(self.text, self.rows_of(label)[1:])), self.parents(label))

    def rows_of(self, label: int) -> npt.NDArray[np.int32]:
        """The rows of a label, its name first."""
        rows: npt.NDArray[np.int32] = self.label_rows[self.label_starts[label] : self.label_starts[label + 1]]
        return rows

    def find(self, name: str) -> int | None:
        """The label of a name, None when there is none."""
        wanted = np.uint64(hash_name(name))
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            if self.name(int(self._hashed[at])) == name:
                return int(self._hashed[at])
            at += 1
        return None

    def find_texts(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """For each of many texts a row that has it, or -1."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(pa.array(texts, pa.large_string()), value_set=self._rows["text"].chunk(0))
        return found.fill_null(-1).to_numpy().astype(np.int64)  # type: ignore[no-any-return]

    def fixed(self, rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int16], FloatArray]:
        """Rows as they are kept, (K, D) int16 with scales (K,)."""
        self._gathered += len(rows)
        if self._gathered > GATHERED_AT_MOST:
            self._gathered = 0
            self._pages.madvise(mmap.MADV_DONTNEED)
        return self._vectors[rows], self.scale[rows]

    def vectors(self, rows: npt.NDArray[Any]) -> FloatArray:
        """Rows as (K, D) float32."""
        return from_fixed(*self.fixed(rows))


def hash_name(name: str) -> int:
    """64 bits of a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def write_tables(
    folder: Path, entries: Sequence[LabelEntry], texts: Sequence[str], label: npt.NDArray[np.int32]
) -> None:
    """Write the two tables and the hashes.

    Args:
        folder: Of the base that is being made.
        entries: N labels.
        texts: R texts, in the order of the lists.
        label: (R,) int32, the label of each row.
    """
    import pyarrow as pa

    names = pa.array([entry.name for entry in entries], pa.large_string())
    parents = pa.array([entry.parents for entry in entries], pa.large_list(pa.large_string()))
    _write_table(folder / "labels.arrow", {"name": names, "parents": parents})
    _write_table(folder / "rows.arrow", {"text": pa.array(texts, pa.large_string()), "label": pa.array(label)})
    hashes = np.fromiter((hash_name(entry.name) for entry in entries), np.uint64, len(entries))
    order = np.argsort(hashes, kind="stable")
    np.save(folder / "hashes.npy", hashes[order])
    np.save(folder / "hashed.npy", order.astype(np.int32))


def _write_table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa

    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table, max_chunksize=max(1, table.num_rows))  # one chunk: a row is found without counting


def _read_table(path: Path) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _map(path: Path) -> tuple[npt.NDArray[np.int16], mmap.mmap]:
    """A ``.npy`` file of int16 with its mapping, whose pages can be given back."""
    array = np.load(path, mmap_mode="r")
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(array.shape, array.dtype, pages, array.offset), pages
