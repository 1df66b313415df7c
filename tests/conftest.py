from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import nunbit
from index_fakes import FakeTowers, make_album, make_encoder
from nunbit.caches import VARIABLE, cache_folder
from nunbit.encode import Encoder
from nunbit.engine.names import VARIABLE as ENGINE_VARIABLE
from nunbit.index import Index

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that earlier runs have cached takes part, and nothing is left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))
        patch.setenv(ENGINE_VARIABLE, "torch")  # the reference; tests of other engines name them
        yield


@pytest.fixture(autouse=True)
def no_labels_known(own_cache: None) -> None:
    """Fakes share a fingerprint, but not their rows: no test reads what another one has embedded."""
    shutil.rmtree(cache_folder("labels"))


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


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return make_album(tmp_path / "album")


@pytest.fixture
def towers() -> FakeTowers:
    return FakeTowers()


@pytest.fixture
def index(tmp_path: Path, towers: FakeTowers) -> Iterator[Index]:
    with Index.open(tmp_path / "x.nunbit", make_encoder(towers=towers)) as opened:
        yield opened
