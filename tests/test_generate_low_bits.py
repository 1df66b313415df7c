"""Weights that came in few bits are found again, and others are told from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from nunbit.generate.low_bits import GROUP, LowBits, find_low_bits

ROWS, GROUPS = 24, 5
Quantize: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def random_weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(ROWS, GROUPS * GROUP)).astype(np.float32)


def as_q4_1(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Quantized and dequantized as GGUF's Q4_1: a scale and a least value of 16 bits for each group."""
    groups = weights.reshape(len(weights), -1, GROUP)
    least, largest = groups.min(2, keepdims=True), groups.max(2, keepdims=True)
    scale = (largest - least) / 15
    values = np.rint((groups - least) / scale)
    rounded = values * scale.astype(np.float16).astype(np.float32) + least.astype(np.float16).astype(np.float32)
    return rounded.reshape(weights.shape).astype(np.float32)


def as_q8_0(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """As GGUF's Q8_0: a scale of 16 bits for each group."""
    groups = weights.reshape(len(weights), -1, GROUP)
    scale = np.abs(groups).max(2, keepdims=True) / 127
    rounded = np.rint(groups / scale) * scale.astype(np.float16).astype(np.float32)
    return rounded.reshape(weights.shape).astype(np.float32)


@pytest.mark.parametrize(("quantize", "bits"), [(as_q4_1, 4), (as_q8_0, 8)])
@pytest.mark.parametrize("loss", [False, True])
def test_few_bits_are_found_again(quantize: Quantize, bits: int, loss: bool) -> None:
    weights = quantize(random_weights())
    found = find_low_bits(weights, loss=loss)
    assert found is not None
    assert found.bits == bits
    assert found.values.min() >= (0 if bits == 4 else -127)
    assert found.values.max() == (15 if bits == 4 else 127)
    largest = np.abs(weights).reshape(ROWS, GROUPS, GROUP).max(2).repeat(GROUP, 1)
    assert (np.abs(found.weights() - weights) <= 1e-6 * largest).all()


def test_a_single_other_weight_is_noticed() -> None:
    weights = as_q4_1(random_weights())
    weights[3, 40] += 0.01
    assert find_low_bits(weights, loss=False) is None


def test_weights_of_many_bits_stay_so_unless_rounded() -> None:
    weights = random_weights()
    assert find_low_bits(weights, loss=False) is None
    rounded = find_low_bits(weights, loss=True)
    assert rounded is not None
    step = np.abs(weights).reshape(ROWS, GROUPS, GROUP).max(2).repeat(GROUP, 1) / 127
    off = np.abs(rounded.weights() - weights) / step
    assert off.max() <= 0.5 + 1e-4
    assert off.mean() == pytest.approx(0.25, abs=0.01)


def test_a_group_of_equal_weights_has_a_scale() -> None:
    for value in (0.0, 0.25, -3.0):
        found = find_low_bits(np.full((2, GROUP), value, np.float32), loss=False)
        assert isinstance(found, LowBits)
        assert np.isfinite(found.scale).all()
        np.testing.assert_allclose(found.weights(), value, rtol=1e-6)


def test_rows_that_do_not_fall_into_groups_are_left_alone() -> None:
    weights = random_weights()[:, :40]
    assert find_low_bits(weights, loss=False) is None
    assert find_low_bits(weights, loss=True) is None
