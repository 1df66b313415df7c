"""A whole collection sorted by labels.

Shapes: N rows, C labels, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.head import Head
    from nunbit.recognition import Labels
    from nunbit.serve.collection import View

UNKNOWN = -1
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Sorted:
    """Pictures in bins.

    Attributes:
        total: Pictures sorted.
        bins: The number of a label, or ``UNKNOWN`` → rows of the view, the most probable first.
    """

    total: int
    bins: dict[int, npt.NDArray[np.int64]]


def sort_by_labels(
    view: View, labels: Labels | Head, mask: npt.NDArray[np.bool_] | None, min_probability: float, min_similarity: float
) -> Sorted:
    """Put each picture into the bin of its best label, or into the unknown bin.

    Args:
        view: The collection.
        labels: C of them, or a head; what the head calls unknown is in no bin of a label.
        mask: (N,) bool: which rows take part; all by default.
        min_probability: A best label that is less probable is none.
        min_similarity: The same for its cosine.

    Returns:
        A bin for each label and the unknown one, empty ones too. Within a bin equals are ordered by their rows.
    """
    rows = np.flatnonzero(view.alive if mask is None else view.alive & mask)
    best = np.empty(len(rows), np.int64)
    sure = np.empty(len(rows), np.float64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        judged = labels.judge(view.vectors[rows[some]])
        place = judged.best[:, None]
        best[some] = judged.best
        sure[some] = np.take_along_axis(judged.probability, place, 1)[:, 0]
        none = np.take_along_axis(judged.similarity, place, 1)[:, 0] < min_similarity
        none |= sure[some] < min_probability
        if judged.unknown is not None:
            none |= judged.unknown
        best[some][none] = UNKNOWN
    order = np.argsort(-sure, kind="stable")
    rows, best = rows[order], best[order]
    return Sorted(len(rows), {label: rows[best == label] for label in [*range(len(labels.classnames)), UNKNOWN]})
