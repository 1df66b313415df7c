"""Examples that show one thing twice: held out apart, one would be said by the other.

Place in the river: after pictures are embedded, before they are held out. Near is what `nunbit.curate` calls so.

Shapes: N examples, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from nunbit.cores import usable_cores
from nunbit.curate.facts import measure
from nunbit.curate.near import Groups, Looks, search_embeddings, search_looks
from nunbit.curate.rules import CurationConfig

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

_WORTH_A_LOOK = 0.9
"""Least cosine of pictures whose looks are compared: that needs them decoded once more, which the rest is spared."""

_BLOCK = 4096


def near_groups(images: Sequence[str | bytes], rows: FloatArray) -> npt.NDArray[np.int64]:
    """Find near duplicates: the same picture in other sizes, compressions, brightness, slightly cropped.

    Args:
        images: N paths, or contents of files, that can be read.
        rows: (N, D) their unit rows.

    Returns:
        (N,) the first example of each one's group: itself, where nothing is near.
    """
    count = len(rows)
    alike = sorted({row for pair in _alike(rows) for row in pair})
    groups = Groups(count)
    if alike:
        with ThreadPoolExecutor(usable_cores()) as pool:
            facts = list(pool.map(measure, (images[row] for row in alike)))
        looks = Looks(
            np.array([one.looks for one in facts], np.uint64),
            np.stack([np.frombuffer(one.layout, np.uint8) for one in facts]),
        )
        rules, among = CurationConfig(), Groups(len(alike))
        among.join_near(range(len(alike)), search_looks(looks, rules.near_distance))
        among.join_near(
            range(len(alike)), search_embeddings(rows[alike].astype(np.float16), looks, rules.near_similarity)
        )
        for place, row in enumerate(alike):
            groups.join(row, alike[among.find(place)])
    return np.array([groups.find(row) for row in range(count)], np.int64)


def _alike(rows: FloatArray) -> Iterator[tuple[int, int]]:
    """Pairs of examples with near embeddings."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        left, right = np.nonzero(block @ rows[start:].T >= _WORTH_A_LOOK)
        apart = left < right
        yield from zip((left[apart] + start).tolist(), (right[apart] + start).tolist(), strict=True)
