"""Labels added since the last build: few, so they are held in memory and compared in full.

Shapes: M rows of all added labels, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nunbit.labels.journal import Added
from nunbit.labels.vectors import from_fixed

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray


class Additions:
    """Added labels, numbered in the order in which they came.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._labels: list[Added | None] = []  # None: added and removed again
        self._numbers: dict[str, int] = {}
        self._joined: tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, label: Added) -> None:
        """Add a label, in place of the one of this name."""
        self.remove(label.entry.name)
        self._numbers[label.entry.name] = len(self._labels)
        self._labels.append(label)
        self._joined = None

    def remove(self, name: str) -> bool:
        """Take a label out; whether it was there."""
        number = self._numbers.pop(name, None)
        if number is None:
            return False
        self._labels[number] = None
        self._joined = None
        return True

    def find(self, name: str) -> int | None:
        """Number of a label."""
        return self._numbers.get(name)

    def get(self, number: int) -> Added:
        """A label that is there."""
        label = self._labels[number]
        assert label is not None
        return label

    def labels(self) -> list[Added]:
        """All labels that are there."""
        return [label for label in self._labels if label is not None]

    def similarity(self, queries: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Compare with every added label.

        Args:
            queries: (N, D) float32.

        Returns:
            Similarity of each label's best text (N, labels), the labels' numbers (labels,), and which of its texts
            that is (N, labels).
        """
        if self._joined is None:
            self._joined = self._join()
        rows, starts, numbers = self._joined
        if not len(numbers):
            return np.empty((len(queries), 0), np.float32), numbers, np.empty((len(queries), 0), np.int64)
        every = queries @ rows.T  # (N, M)
        parts = np.split(every, starts[1:], axis=1)
        which = np.stack([part.argmax(axis=1) for part in parts], axis=1)
        return np.stack([part.max(axis=1) for part in parts], axis=1), numbers, which

    def _join(self) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        there = [(number, label) for number, label in enumerate(self._labels) if label is not None]
        parts = [from_fixed(label.fixed, label.scale) for _, label in there]
        rows = np.concatenate([np.empty((0, self.width), np.float32), *parts])
        sizes = np.array([len(part) for part in parts], np.int64)
        return rows, np.cumsum(sizes) - sizes, np.array([number for number, _ in there], np.int64)
