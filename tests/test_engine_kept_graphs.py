"""Graphs are made once, and the cache of them does not grow for ever."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nunbit.engine import kept_graphs
from nunbit.engine.kept_graphs import fingerprint, open_graph
from nunbit.engine.machine import this_machine
from nunbit.engine.openvino_models import CompiledModel, import_openvino
from nunbit.errors import EngineRefused


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("NUNBIT_CACHE", str(tmp_path))
    return tmp_path / "graphs"


def make() -> Any:
    openvino = import_openvino()
    ops = openvino.opset13
    node = ops.parameter([2, 300], np.float32)
    return openvino.Model([ops.matmul(node, ops.constant(np.ones((300, 4), np.float32)), False, False)], [node], "m")


def compile_graph(graph: Any) -> Any:
    return CompiledModel(graph, "fp32", this_machine(), streams=1)


def test_a_graph_is_made_once(cache: Path) -> None:
    open_graph("one", make, compile_graph)
    assert open_graph("one", pytest.fail, lambda graph: graph) == cache / "one.xml"


@pytest.mark.parametrize("end", [".xml", ".bin"])
def test_a_damaged_graph_is_made_again(cache: Path, end: str) -> None:
    open_graph("one", make, compile_graph)
    (cache / f"one{end}").write_bytes(b"<net")
    compiled = open_graph("one", make, compile_graph)
    found = compiled(np.ones((2, 300), np.float32))
    np.testing.assert_array_equal(found, np.full((2, 4), 300, np.float32))
    compile_graph(cache / "one.xml")


def test_what_was_not_used_for_longest_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        open_graph(name, make, compile_graph)
        os.utime(cache / f"{name}.xml", (1e9 - age, 1e9 - age))
    for left in ("draft-gone.xml", "lost.bin", "lost.digest"):  # somebody was killed while writing
        (cache / left).write_text("")
    monkeypatch.setattr(kept_graphs, "_MOST_BYTES", 3 * sum(file.stat().st_size for file in cache.glob("old.*")))
    open_graph("last", make, compile_graph)
    assert sorted(path.stem for path in cache.glob("*.xml")) == ["last", "new", "old"]
    assert sorted(path.stem for path in cache.glob("*.bin")) == ["last", "new", "old"]
    assert sorted(path.stem for path in cache.glob("*.digest")) == ["last", "new", "old"]


def test_a_full_disk_stops_nobody_and_is_not_filled_further(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def fails(graph: Any, path: Path, **_: Any) -> None:
        path.with_suffix(".bin").write_bytes(b"half")
        path.write_text("<net")
        raise RuntimeError("no space left")

    monkeypatch.setattr(import_openvino(), "save_model", fails)
    assert open_graph("one", lambda: made.append(1) or make(), compile_graph) is not None
    assert (len(made), [path.name for path in cache.iterdir()]) == (1, ["graphs.lock"])


def test_what_is_refused_is_not_made_again_and_again(cache: Path) -> None:
    made: list[int] = []

    def refuse(_: Any) -> None:
        raise EngineRefused("it says something else", hint="")

    for _ in range(3):
        with pytest.raises(EngineRefused):
            open_graph("one", lambda: made.append(1) or make(), refuse)
    assert len(made) == 1
    (cache / "one.bin").unlink()
    with pytest.raises(EngineRefused):
        open_graph("one", lambda: made.append(1) or make(), refuse)
    assert len(made) == 2


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
