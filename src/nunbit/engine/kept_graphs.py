"""Graphs of OpenVINO that took long to make, kept for the next time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nunbit.caches import cache_folder
from nunbit.durable import only_writer, sync_file_system
from nunbit.engine.openvino_models import import_openvino
from nunbit.engine.record import versions
from nunbit.errors import EngineRefused

T = TypeVar("T")

_MOST_BYTES = 8_000_000_000  # of all graphs together


def fingerprint(tensors: Iterable[tuple[str, Tensor]], *settings: object) -> str:
    """Changes with any weight, with the settings, and with the packages that graphs depend on."""
    digest = hashlib.sha256(f"{versions()} {settings!r}".encode())
    for name, values in tensors:
        plain = values.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def open_graph(name: str, make: Callable[[], Any], opened: Callable[[Any], T]) -> T:
    """Open a graph that is in the cache, or make it first. One that is damaged is made again.

    Args:
        name: With a `fingerprint` of all that it is made of.
        make: Gives the `openvino.Model`.
        opened: Takes it, or the path of its ``.xml``, beside which the weights lie; compiles it, and looks whether it
            says what it shall.

    Raises:
        EngineRefused: By ``opened``, of a graph that was just made.
    """
    try:
        folder = cache_folder("graphs")
        with only_writer(folder / "graphs.lock", "the cache of graphs", wait=True):
            return _opened(folder / f"{name}.xml", make, opened)
    except OSError:  # the cache cannot be written
        return opened(make())


def _opened(path: Path, make: Callable[[], Any], opened: Callable[[Any], T]) -> T:
    if path.is_file():
        try:
            found = opened(path)
        except EngineRefused:
            path.unlink()
        else:
            os.utime(path)  # those that were used last stay
            return found
    graph = make()
    return opened(path if _written(path, graph) else graph)


def _written(path: Path, graph: Any) -> bool:
    """Write a graph, both files whole and on the disk, or none of them."""
    draft = path.with_name(f"draft-{path.name}")
    weights = draft.with_suffix(".bin")
    try:
        import_openvino().save_model(graph, draft, compress_to_fp16=False)
        sync_file_system(path.parent)
        weights.replace(path.with_suffix(".bin"))  # who finds the .xml finds both
        draft.replace(path)
    except (RuntimeError, OSError):  # OpenVINO says the first where the disk is full
        for left in (draft, weights):
            left.unlink(missing_ok=True)
        return False
    _tidy(path.parent, keep=path.stem)
    return True


def _tidy(folder: Path, keep: str) -> None:
    """Delete the graphs that were not used for longest while all take too much room, and what was left half written."""
    room = _MOST_BYTES
    graphs = {file.stem: [folder / f"{file.stem}{end}" for end in (".xml", ".bin")] for file in folder.glob("*.[xb]*")}
    for stem, files in sorted(graphs.items(), key=lambda graph: -_last_used(graph[1][0])):
        there = [file for file in files if file.is_file()]
        room -= sum(file.stat().st_size for file in there)
        if stem != keep and (room < 0 or len(there) < len(files) or stem.startswith("draft-")):
            for file in there:
                file.unlink()


def _last_used(xml: Path) -> float:
    return xml.stat().st_mtime if xml.is_file() else 0.0
