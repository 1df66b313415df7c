"""Near duplicates: which pictures of a large set are another one again, and which of them stays.

A picture stays when none that stays and is preferred to it is near. So those that stay are never near each other, each
that goes has one that stays beside it, and neither depends on the order in which the pictures came.

Shapes: N pictures, Q of them looked up, P pairs, D width of an embedding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from nunbit.curate.hamming import HashTable
from nunbit.curate.perceptual import layout_similarity

if TYPE_CHECKING:
    import numpy.typing as npt

    Rows: TypeAlias = npt.NDArray[np.intp]
    Pairs: TypeAlias = Iterator[tuple[Rows, Rows, npt.NDArray[Any]]]

Search: TypeAlias = "Callable[[Rows, Rows], Pairs]"
"""Rows that are looked up, rows that they are looked up among → pairs of both, and how far apart they are."""

ALIKE = 0.97
"""Least correlation of the grids of colors of pictures with near hashes: goods photographed at one place stay apart."""

_FAR = (
    18  # what differs in more bits, or has less correlation, is no twin whatever an encoder says: to it, two shirts on
)
_UNLIKE = 0.9  # hangers are the same

_BLOCK = 4096
_COLUMNS = 16384


@dataclass(frozen=True, slots=True)
class Twin:
    """The picture that stays instead of another: its row, and how near it is."""

    row: int
    nearness: float


@dataclass(frozen=True, slots=True)
class Looks:
    """What pictures look like.

    Attributes:
        hashes: (N,) uint64.
        layouts: (N, 192) uint8.
    """

    hashes: npt.NDArray[np.uint64]
    layouts: npt.NDArray[np.uint8]


def search_looks(looks: Looks, distance: int, alike: float = ALIKE) -> Search:
    """Search by hashes that differ in at most ``distance`` bits, confirmed by grids of colors that are ``alike``."""

    def search(queries: Rows, among: Rows) -> Pairs:
        table = HashTable(looks.hashes[among])
        for found, others, distances in table.search(looks.hashes[queries], distance):
            left, right = queries[found], among[others]
            for at in range(0, len(left), _COLUMNS):
                part = slice(at, at + _COLUMNS)
                same = layout_similarity(looks.layouts[left[part]], looks.layouts[right[part]]) >= alike
                yield left[part][same], right[part][same], distances[part][same]

    return search


def search_embeddings(rows: npt.NDArray[np.float16], looks: Looks, similarity: float) -> Search:
    """Search by cosine, every pair in blocks, confirmed by looks that are not too different.

    Args:
        rows: (N, D) float16, unit rows.
        looks: Of the same pictures.
        similarity: The least cosine of a pair.
    """

    def search(queries: Rows, among: Rows) -> Pairs:
        left = rows[queries].astype(np.float32)
        for at in range(0, len(among), _COLUMNS):
            columns = among[at : at + _COLUMNS]
            cosines = left @ rows[columns].astype(np.float32).T  # (Q, columns)
            found, others = np.nonzero(cosines >= similarity)
            far = np.bitwise_count(looks.hashes[queries[found]] ^ looks.hashes[columns[others]])
            found, others = found[far <= _FAR], others[far <= _FAR]
            alike = layout_similarity(looks.layouts[queries[found]], looks.layouts[columns[others]]) >= _UNLIKE
            found, others = found[alike], others[alike]
            yield queries[found], columns[others], 1 - cosines[found, others]

    return search


def find_twins(preferred: Sequence[int], search: Search) -> dict[int, Twin]:
    """Tell which pictures go, and beside which one that stays.

    Args:
        preferred: Rows, those first that should rather stay.
        search: How near ones are found.

    Returns:
        Row that goes → the one that stays.
    """
    gone: dict[int, Twin] = {}
    stay: list[int] = []
    for at in range(0, len(preferred), _BLOCK):
        block = np.asarray(preferred[at : at + _BLOCK], np.intp)
        gone |= _nearest(search(block, np.asarray(stay, np.intp))) if stay else {}
        rest = np.array([row for row in block if int(row) not in gone], np.intp)
        neighbors = _neighbors(search(rest, rest))
        kept = set[int]()
        for row in map(int, rest):
            near = [twin for twin in neighbors[row] if twin.row in kept]
            if near:
                gone[row] = min(near, key=lambda twin: (twin.nearness, twin.row))
            else:
                kept.add(row)
                stay.append(row)
    return gone


def _nearest(pairs: Pairs) -> dict[int, Twin]:
    best: dict[int, Twin] = {}
    for left, right, nearness in pairs:
        for row, other, near in zip(left.tolist(), right.tolist(), nearness.tolist(), strict=True):
            known = best.get(row)
            if known is None or (near, other) < (known.nearness, known.row):
                best[row] = Twin(other, near)
    return best


def _neighbors(pairs: Pairs) -> defaultdict[int, list[Twin]]:
    found = defaultdict[int, list[Twin]](list)
    for left, right, nearness in pairs:
        for row, other, near in zip(left.tolist(), right.tolist(), nearness.tolist(), strict=True):
            if row != other:
                found[row].append(Twin(other, near))
    return found


class Groups:
    """Rows that belong together, directly or through others.

    Args:
        count: N; at first each is by itself.
    """

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def join(self, left: int, right: int) -> None:
        """Make one group of two rows' groups."""
        a, b = self.find(left), self.find(right)
        if a != b:
            self._above[max(a, b)] = min(a, b)

    def find(self, row: int) -> int:
        """The first row of a row's group."""
        above = self._above
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    def join_near(self, rows: Sequence[int], search: Search) -> None:
        """Join all of these rows that are near each other."""
        every = np.asarray(rows, np.intp)
        for at in range(0, len(every), _BLOCK):
            for left, right, _ in search(every[at : at + _BLOCK], every[at:]):
                for row, other in zip(left.tolist(), right.tolist(), strict=True):
                    self.join(row, other)
