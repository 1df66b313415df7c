"""All hashes within a few bits of others, without comparing every pair: multi-index hashing (arXiv 1307.2982).

A 64-bit hash is cut into four chunks of 16 bits. Two hashes that differ in at most r bits agree, in one of the chunks,
but for at most r // 4 bits, so that only hashes with such a chunk are compared.

Shapes: N hashes, Q queries, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Hashes: TypeAlias = npt.NDArray[np.uint64]
    Rows: TypeAlias = npt.NDArray[np.intp]

_CHUNKS = 4
_CHUNK_BITS = 16
_AT_ONCE = 1 << 20  # pairs that are compared at a time


class HashTable:
    """Hashes, found by their chunks.

    Args:
        hashes: (N,) uint64.
    """

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        keys = _chunks(hashes)  # (4, N)
        self._orders = [np.argsort(chunk, kind="stable") for chunk in keys]
        counts = (np.bincount(chunk, minlength=1 << _CHUNK_BITS) for chunk in keys)
        self._starts = [np.concatenate(([0], np.cumsum(count))) for count in counts]

    def search(self, queries: Hashes, radius: int) -> Iterator[tuple[Rows, Rows, npt.NDArray[np.uint8]]]:
        """Find all hashes near others.

        Args:
            queries: (Q,) uint64.
            radius: Bits that may differ, 0 to 16.

        Yields:
            Rows among the queries (P,), rows of the table (P,) and their distances (P,), some pairs at a time; a pair
            may come more than once.
        """
        if len(self._hashes) == 0 or len(queries) == 0:
            return
        most, rest = divmod(radius, _CHUNKS)
        for chunk, keys in enumerate(_chunks(queries)):
            for mask in _masks(most if chunk <= rest else most - 1):
                for found, rows in self._with_chunk(chunk, keys ^ mask):
                    distances = np.bitwise_count(queries[found] ^ self._hashes[rows])
                    near = distances <= radius
                    if near.any():
                        yield found[near], rows[near], distances[near]

    def _with_chunk(self, chunk: int, keys: npt.NDArray[np.uint16]) -> Iterator[tuple[Rows, Rows]]:
        """Pairs of a query and a hash with the query's chunk, a bounded number at a time."""
        starts = self._starts[chunk]
        first = starts[keys]
        counts = starts[keys.astype(np.intp) + 1] - first
        for part in _parts(counts):
            number = counts[part]
            found = np.repeat(np.arange(part.start, part.start + len(number)), number)
            before = np.repeat(np.cumsum(number) - number, number)
            yield found, self._orders[chunk][np.repeat(first[part], number) + np.arange(len(found)) - before]


def _chunks(hashes: Hashes) -> npt.NDArray[np.uint16]:
    """Cut hashes into chunks: (4, N) uint16.

    Neighboring frequencies go to different chunks: a picture's low ones would otherwise fill a chunk that most share.
    """
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)  # (N, 64)
    packed = np.packbits(bits.reshape(-1, _CHUNK_BITS, _CHUNKS), axis=1)  # (N, 2, 4)
    return (packed[:, 0].astype(np.uint16) << 8 | packed[:, 1]).astype(np.uint16).T


def _masks(radius: int) -> Iterator[np.uint16]:
    """Every number of 16 bits of which at most ``radius`` are set."""
    for count in range(radius + 1):
        for bits in combinations(range(_CHUNK_BITS), count):
            yield np.uint16(sum(1 << bit for bit in bits))


def _parts(counts: npt.NDArray[Any]) -> Iterator[slice]:
    """Cut a row of numbers so that each part adds up to a bounded sum, or is one number."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts) and ends[-1] > (ends[start - 1] if start else 0):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _AT_ONCE, side="right")), start + 1)
        yield slice(start, stop)
        start = stop
