"""Texts whose rows a set has already: they are copied, never embedded again.

Shapes: T texts, K rows, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nunbit.labels.additions import Additions
from nunbit.labels.base import Base

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray


class KnownRows:
    """The rows of a set, found by text.

    Args:
        base: What was built, None for a new set.
        added: What was added since.
    """

    def __init__(self, base: Base | None, added: Additions) -> None:
        self._base = base
        self._rows = 0 if base is None else base.rows
        labels = added.labels()
        texts = [text for label in labels for text in label.entry.texts]
        self._added = {text: self._rows + number for number, text in enumerate(texts)}
        self._fixed = np.concatenate([np.empty((0, added.width), np.int16), *(label.fixed for label in labels)])
        self._scale = np.concatenate([np.empty(0, np.float32), *(label.scale for label in labels)])

    def find(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """For each text the number of a row that has it, or -1: (T,)."""
        added = np.fromiter((self._added.get(text, -1) for text in texts), np.int64, len(texts))
        return added if self._base is None else np.where(added >= 0, added, self._base.find_texts(texts))

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int16], FloatArray]:
        """The rows of these numbers: (K, D) int16 and (K,) float32."""
        fixed, scale = np.empty((len(rows), self._fixed.shape[1]), np.int16), np.empty(len(rows), np.float32)
        added = rows >= self._rows
        fixed[added], scale[added] = self._fixed[rows[added] - self._rows], self._scale[rows[added] - self._rows]
        if self._base is not None:
            fixed[~added], scale[~added] = self._base.fixed(rows[~added])
        return fixed, scale
