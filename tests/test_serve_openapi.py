"""What /openapi.json promises holds; `make test-fuzz` tries it at length."""

from __future__ import annotations

from pathlib import Path

from hostile import watched
from nunbit.serve.settings import Limits
from openapi_cases import check_operations


def test_every_operation_answers_as_it_promises(tmp_path: Path) -> None:
    (tmp_path / "album" / "holidays").mkdir(parents=True)
    with watched(tmp_path, Limits(rate=0)) as client:
        tried = check_operations(client, examples=5)
        assert client("GET", "/healthz").json["status"] == "ok"
    assert len(tried) > 25
