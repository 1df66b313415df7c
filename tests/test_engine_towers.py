"""What a compiled encoder does when its engine gives no numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from index_fakes import SIZE, make_encoder
from nunbit.engine.record import Record
from nunbit.engine.towers import CompiledTowers, Parts
from nunbit.errors import NunbitWarning


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_torch_computes_what_the_engine_does_not(bad: float) -> None:
    def run(pixels: Any) -> np.ndarray:
        rows = np.full((len(pixels), SIZE), 2.0, np.float32)
        if len(pixels) > 2:
            rows[1, 3] = bad
        return rows

    original = make_encoder()
    record = cast(Record, SimpleNamespace(fingerprint=original.fingerprint, embedding_size=SIZE))
    towers = CompiledTowers(record, Parts(lambda: run, None, lambda: original, Path()))
    pixels = np.random.default_rng(0).normal(size=(3, 3, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(towers.encode_pixels(pixels[:2]), SIZE**-0.5, atol=1e-6)
    with pytest.warns(NunbitWarning, match="gave no numbers"):
        rows = towers.encode_pixels(pixels)
    np.testing.assert_array_equal(rows, original.towers.encode_pixels(pixels))
