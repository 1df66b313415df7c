"""What a locked tower says, computed once and kept on the disk: then an epoch reads no picture.

A store is two files: rows of float32 or float16, and a line for each group of items with the keys of those that have a
row. It grows by whole groups, which are the same in every run over the same items; so a pass that was interrupted goes
on, and ends with the same numbers.

Shapes: N items, D width.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from nunbit.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nunbit.types import FloatArray

T = TypeVar("T")


class FeatureStore:
    """Rows by key.

    Args:
        folder: Made when it is not there.
        name: Of the two files.
        width: D.
        dtype: What rows are kept in.
    """

    def __init__(self, folder: Path, name: str, width: int, dtype: Literal["float32", "float16"] = "float32") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._dtype = np.dtype(dtype)
        suffix = {"float32": "f32", "float16": "f16"}[dtype]
        self._rows_path, self._keys_path = folder / f"{name}.{suffix}", folder / f"{name}.keys.jsonl"
        self._width = width
        self._groups = 0
        self._numbers: dict[str, int] = {}
        self._rows: NDArray[Any] = np.empty((0, width), self._dtype)
        self._read()

    def __contains__(self, key: object) -> bool:
        return key in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def rows(self, keys: Iterable[str]) -> FloatArray:
        """The rows (N, D) of keys that are there, float32."""
        found: FloatArray = self._rows[[self._numbers[key] for key in keys]].astype(np.float32)
        return found

    def fill(
        self, items: Iterable[T], compute: Callable[[list[T]], tuple[list[str], FloatArray]], *, group: int
    ) -> Iterator[int]:
        """Compute what is not there yet.

        Args:
            items: All of them, in an order that is always the same.
            compute: Some items → the keys of those that can be used, and their rows.
            group: Items that are computed and kept at a time.

        Yields:
            After each group, how many items there were so far.
        """
        rest, done = iter(items), 0
        for number in range(2**62):
            some = list(islice(rest, group))
            if not some:
                return
            if number >= self._groups:
                self._append(*compute(some))
            done += len(some)
            yield done

    def _append(self, keys: Sequence[str], rows: FloatArray) -> None:
        """Add a group. Rows reach the disk before the keys that promise them."""
        if rows.shape != (len(keys), self._width):
            raise StoreError(f"{self._rows_path}: {len(keys)} keys for rows of {rows.shape}, width {self._width}")
        with self._rows_path.open("ab") as file:
            file.truncate(len(self) * self._width * self._dtype.itemsize)  # what a kill left beyond the keys
            file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())
        with self._keys_path.open("ab") as file:
            file.write(json.dumps(list(keys)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._numbers |= {key: number for number, key in enumerate(keys, start=len(self))}
        self._groups += 1
        self._map()

    def _read(self) -> None:
        lines = self._keys_path.read_bytes().split(b"\n") if self._keys_path.is_file() else [b""]
        if lines[-1]:  # cut off by a kill
            with self._keys_path.open("r+b") as file:
                file.truncate(self._keys_path.stat().st_size - len(lines[-1]))
        groups = [json.loads(line) for line in lines[:-1]]
        self._groups = len(groups)
        self._numbers = {key: number for number, key in enumerate(key for keys in groups for key in keys)}
        self._map()

    def _map(self) -> None:
        if self._numbers:
            self._rows = np.memmap(self._rows_path, self._dtype, "r", shape=(len(self._numbers), self._width))
