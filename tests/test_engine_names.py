"""How exact an engine has to be."""

from __future__ import annotations

import math

import pytest

from nunbit.engine.names import Precision, refusal


@pytest.mark.parametrize(
    ("mean", "lowest", "precision", "said"),
    [
        (1.0, 1.0, "fp32", ""),
        (0.99998, 0.99998, "fp32", "cosine 0.999980 to torch, at least 0.99999"),
        (0.9995, 0.9951, "int8", ""),
        (0.9995, 0.9949, "int8", "cosine 0.994900 to torch for one input, at least 0.995"),
        (0.99995, 0.9994, "bf16", "for one input, at least 0.9995"),
        (math.nan, math.nan, "int8", "cosine nan to torch, at least 0.999"),
        (1.0, math.nan, "int8", "cosine nan to torch for one input"),
    ],
    ids=["same", "mean", "just-enough", "one-input", "one-in-bf16", "no-number", "one-no-number"],
)
def test_neither_the_mean_nor_a_single_input_may_be_far_off(
    mean: float, lowest: float, precision: Precision, said: str
) -> None:
    refused = refusal(mean, lowest, precision)
    assert said in refused and bool(said) == bool(refused)
