"""Graphs are made once, and the cache of them does not grow for ever."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nunbit.engine.openvino_models import import_openvino
from nunbit.generate import kept_graphs
from nunbit.generate.kept_graphs import fingerprint, kept_graph


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("NUNBIT_CACHE", str(tmp_path))
    return tmp_path / "graphs"


def make() -> Any:
    openvino = import_openvino()
    ops = openvino.opset13
    node = ops.parameter([2, 300], np.float32)
    return openvino.Model([ops.matmul(node, ops.constant(np.ones((300, 4), np.float32)), False, False)], [node], "m")


def test_a_graph_is_made_once() -> None:
    path = kept_graph("one", make)
    assert path.is_file()
    assert kept_graph("one", pytest.fail) == path


def test_what_was_not_used_for_longest_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        path = kept_graph(name, make)
        os.utime(path, (1e9 - age, 1e9 - age))
    (cache / "draft-gone.xml").write_text("")
    monkeypatch.setattr(kept_graphs, "_MOST_BYTES", 3 * sum(file.stat().st_size for file in cache.glob("old.*")))
    kept_graph("last", make)
    assert sorted(path.stem for path in cache.glob("*.xml")) == ["last", "new", "old"]
    assert sorted(path.stem for path in cache.glob("*.bin")) == ["last", "new", "old"]


def test_every_weight_and_every_setting_counts() -> None:
    weights = torch.arange(6.0).view(2, 3)
    names = {
        fingerprint([("a", weights)]),
        fingerprint([("a", weights.flatten())]),
        fingerprint([("a", weights.half())]),
        fingerprint([("b", weights)]),
        fingerprint([("a", weights + torch.eye(2, 3) * 1e-6)]),
        fingerprint([("a", weights)], "int8"),
    }
    assert len(names) == 6
    assert fingerprint([("a", weights.T.contiguous().T)]) in names
