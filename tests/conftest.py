from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import nunbit
from nunbit.encode import Encoder

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def starter() -> Encoder:
    return nunbit.load("starter")


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of photographs that scikit-image carries."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared reference data is not beside this checkout")
    return SHARED
