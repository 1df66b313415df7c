"""Weights in few bits: 32 neighbors of a row share a scale and a zero point, ``w = scale (value - zero)``.

A processor that says one token reads all weights and multiplies each once, so that a token takes as long as they take
to be read. Weights that come from a quantized file were few bits to begin with; found again, they are stored as such
and nothing is lost.

Shapes: O rows, I columns, N = I / 32 groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

GROUP = 32
_SAME = 1e-6  # of a group's largest weight: what writing weights as 32-bit numbers costs anyway
_TRIED = 8  # rows
Bits: TypeAlias = Literal[4, 8]


@dataclass(frozen=True, slots=True)
class LowBits:
    """A matrix in few bits.

    Attributes:
        bits: Of each value.
        values: (O, N, 32): uint8 from 0 to 15 for four bits, int8 from -127 to 127 for eight.
        scale: (O, N, 1) float32.
        zero: (O, N, 1) float32; None where it is 0.
    """

    bits: Bits
    values: NDArray[np.uint8] | NDArray[np.int8]
    scale: NDArray[np.float32]
    zero: NDArray[np.float32] | None

    def weights(self) -> NDArray[np.float32]:
        """(O, I) float32, what it stands for."""
        shifted = self.values.astype(np.float32) - (0 if self.zero is None else self.zero)
        plain: NDArray[np.float32] = (self.scale * shifted).reshape(len(self.values), -1)
        return plain


def find_low_bits(weights: NDArray[np.float32], *, loss: bool) -> LowBits | None:
    """Weights in four or eight bits, where that changes none of them by more than rounding.

    Args:
        weights: (O, I).
        loss: Others are taken, too: in eight bits, each off by at most half of 1/127 of its group's largest.

    Returns:
        None where there is no such form, or the columns are no multiple of 32.
    """
    if weights.shape[1] % GROUP:
        return None
    groups = weights.reshape(len(weights), -1, GROUP)
    for made in (_four_bits, _eight_bits):
        some = groups[:_TRIED]  # those that fit nowhere show it in a few rows
        if _is_same(some, made(some)) and _is_same(groups, found := made(groups)):
            return found
    return _eight_bits(groups) if loss else None


def _eight_bits(groups: NDArray[np.float32]) -> LowBits:
    scale = _positive(np.abs(groups).max(2, keepdims=True) / np.float32(127))
    return LowBits(8, np.rint(groups / scale).astype(np.int8), scale, None)


def _four_bits(groups: NDArray[np.float32]) -> LowBits:
    """In sixteen levels from the least to the largest, as GGUF's Q4_1 places them."""
    least, largest = groups.min(2, keepdims=True), groups.max(2, keepdims=True)
    scale = _positive((largest - least) / np.float32(15))
    return LowBits(4, np.rint((groups - least) / scale).astype(np.uint8), scale, -least / scale)


def _is_same(groups: NDArray[np.float32], found: LowBits) -> bool:
    off = np.abs(found.weights().reshape(groups.shape) - groups).max(2)
    return bool((off <= _SAME * np.abs(groups).max(2)).all())


def _positive(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of a group that is the same everywhere, any scale will do."""
    return np.where(scale > 0, scale, np.float32(1))
