"""The rows nearest to a query among all that a base holds, in three steps.

1. The lists whose unit centers are nearest to the query: a tenth of them by default.
2. Of these lists every row, by the leading numbers of the turned rows alone: the best few hundred are candidates.
3. The candidates exactly, in 16-bit rows.

A base of fewer than `EXACT_ROWS` rows is compared in full, in float32.

Queries are taken a chunk at a time, so that a list is unpacked once for all queries that look at it.

Shapes: N queries, R rows, D width, P leading width, L lists, K candidates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from nunbit.labels.base import Base

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

EXACT_ROWS = 20_000
SHARE_OF_LISTS = 0.1
LEAST_ROWS = 20_000
"""Rows that are looked at, at least: of some ten thousand a tenth would be too few for a query that is far from all of
them, and more cost little."""

CANDIDATES = 200
QUERIES_AT_ONCE = 256
"""A chunk needs some 100 MB at a million rows; more queries in one would be little faster."""

PRODUCT_QUERIES = 32
PRODUCT = 2**17
"""Multiplications in one matrix product: few enough that OpenBLAS does not wake its threads for it. Ours share the work
already, and where other processes are busy too, its waiting for each other made a search ten times slower."""

ROWS_A_CANDIDATE = 8
"""Rows that are looked at for each candidate, at least; a search for very many labels looks at more lists."""


@dataclass(frozen=True, slots=True)
class Found:
    """Labels of one query, the most similar first: number, similarity, and the row that was nearest, each (labels,)."""

    label: npt.NDArray[np.int64]
    similarity: FloatArray
    row: npt.NDArray[np.int64]


class Searcher:
    """Searches a base.

    Args:
        base: Where to search.
        removed: (labels,) bool: labels of the base that are gone. It may change between searches.
    """

    def __init__(self, base: Base, removed: npt.NDArray[np.bool_]) -> None:
        self._base = base
        self._removed = removed
        self.exact = base.rows < EXACT_ROWS

    @cached_property
    def _all_rows(self) -> FloatArray:
        return self._base.vectors(np.arange(self._base.rows))

    def search(self, queries: FloatArray, top_k: int, *, threads: int | None = None) -> list[Found]:
        """The ``top_k`` labels nearest to each of (N, D) unit rows, fewer where there are not so many.

        Args:
            queries: (N, D) float32.
            top_k: At least 1.
            threads: Chunks of queries searched at a time, by default the number of cores.
        """
        find = self._exactly if self.exact else self._through_lists
        chunks = [queries[at : at + QUERIES_AT_ONCE] for at in range(0, len(queries), QUERIES_AT_ONCE)]
        if len(chunks) < 2 or threads == 1:
            return [found for chunk in chunks for found in find(chunk, top_k)]
        with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="nunbit-labels") as pool:
            return [found for part in pool.map(lambda chunk: find(chunk, top_k), chunks) for found in part]

    def _exactly(self, queries: FloatArray, top_k: int) -> list[Found]:
        similarity = queries @ self._all_rows.T  # (N, R)
        if self._removed.any():
            similarity[:, self._removed[self._base.row_label]] = -np.inf
        return [self._narrow(row, top_k, partial(_as_they_are, row)) for row in similarity]

    def _through_lists(self, queries: FloatArray, top_k: int) -> list[Found]:
        lists, wanted = len(self._base.centers), min(top_k, len(self._base) - int(self._removed.sum()))
        rows = max(LEAST_ROWS, ROWS_A_CANDIDATE * _candidates(top_k))
        probes = min(lists, int(np.ceil(max(SHARE_OF_LISTS, rows / self._base.rows) * lists)))
        scan = self._scan(queries, probes)
        found = [self._rerank(query, top_k, *scan(number)) for number, query in enumerate(queries)]
        # lists full of one label's synonyms, or of labels that are gone, may hold too few others
        while probes < lists and (short := [at for at, hits in enumerate(found) if len(hits.label) < wanted]):
            probes = min(lists, 4 * probes)
            for at in short:
                found[at] = self._rerank(queries[at], top_k, *self._scan(queries[at : at + 1], probes)(0))
        return found

    def _scan(
        self, queries: FloatArray, probes: int
    ) -> Callable[[int], tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Step 1 and the arithmetic of step 2: rough similarities of every row in the lists of each query."""
        base = self._base
        lists = _largest(_products(queries, base.centers), probes)  # (N, probes)
        sizes = np.diff(base.offsets)[lists]
        ends = np.cumsum(sizes, axis=1)
        rough = np.empty((len(queries), int(ends[:, -1].max())), np.float32)
        turned = _products(queries, base.rotation.T)  # (N, P)
        gone = self._removed.any()
        for number, pairs in _by_list(lists):
            start, stop = base.offsets[number], base.offsets[number + 1]
            rows = base.lead[start:stop].astype(np.float32)  # (rows of a list, P)
            who, place = np.divmod(pairs, probes)
            block = _products(turned[who], rows)  # (queries of a list, rows of a list)
            block *= base.lead_scale[start:stop]
            if gone:
                block[:, self._removed[base.row_label[start:stop]]] = -np.inf
            for query, line, end in zip(who.tolist(), block, ends[who, place].tolist(), strict=True):
                rough[query, end - (stop - start) : end] = line

        def scanned(number: int) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            return rough[number, : ends[number, -1]], ends[number], base.offsets[lists[number] + 1]

        return scanned

    def _rerank(
        self,
        query: FloatArray,
        top_k: int,
        rough: FloatArray,
        ends: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
    ) -> Found:
        """Step 3."""

        def exactly(best: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], FloatArray]:
            at = np.searchsorted(ends, best, side="right")
            rows = stops[at] - (ends[at] - best)  # place in the lists of this query → row of the base
            return rows, np.vecdot(self._base.vectors(rows), query)

        return self._narrow(rough, top_k, exactly)

    def _narrow(
        self,
        rough: FloatArray,
        top_k: int,
        exactly: Callable[[npt.NDArray[np.int64]], tuple[npt.NDArray[np.int64], FloatArray]],
    ) -> Found:
        """The best labels among the candidates that look best. Where synonyms fill these, more of them are taken."""
        wanted = _candidates(top_k)
        while True:
            best = np.sort(_largest(rough[None], wanted)[0])
            rows, similarity = exactly(best[np.isfinite(rough[best])])
            order = np.lexsort((rows, -similarity))
            label = self._base.row_label[rows[order]].astype(np.int64)
            first = np.sort(np.unique(label, return_index=True)[1])[:top_k]  # the best row of each label
            if len(first) == top_k or wanted >= len(rough):
                return Found(label[first], similarity[order[first]], rows[order[first]])
            wanted *= 4


def _as_they_are(similarity: FloatArray, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    return rows, similarity[rows]


def _candidates(top_k: int) -> int:
    return CANDIDATES + 2 * top_k


def _largest(values: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Places of the ``count`` largest of each row of (N, M), in no order: (N, count)."""
    if count >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, -count, axis=1)[:, -count:]


def _products(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """(n, P) times (r, P) → (n, r), in pieces of `PRODUCT`."""
    if len(queries) == 1:
        one: FloatArray = np.vecdot(rows, queries[0])[None]
        return one
    out = np.empty((len(queries), len(rows)), np.float32)
    high = min(len(queries), PRODUCT_QUERIES)
    wide = max(16, PRODUCT // (high * queries.shape[1]))
    for top in range(0, len(queries), high):
        some = queries[top : top + high]
        for left in range(0, len(rows), wide):
            np.matmul(some, rows[left : left + wide].T, out=out[top : top + high, left : left + wide])
    return out


def _by_list(lists: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Every list that somebody looks at, with the flat places in (N, probes) that name it."""
    flat = lists.ravel()
    order = np.argsort(flat, kind="stable")
    numbers, starts = np.unique(flat[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)
