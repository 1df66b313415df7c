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
from nunbit.durable import only_writer
from nunbit.engine.openvino_models import import_openvino
from nunbit.engine.record import versions
from nunbit.errors import EngineRefused

T = TypeVar("T")

_ENDS = (".xml", ".bin", ".digest")
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
    """Open a graph that is in the cache, or make it first. One that is refused and is damaged is made again.

    Args:
        name: With a `fingerprint` of all that it is made of.
        make: Gives the `openvino.Model`.
        opened: Takes it, or the path of its ``.xml``, beside which the weights lie; compiles it, and looks whether it
            says what it shall.

    Raises:
        EngineRefused: By ``opened``, of a graph that is as it was made.
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
            if _is_whole(path):
                raise
            path.unlink()
        else:
            os.utime(path)  # those that were used last stay
            return found
    graph = make()
    source = path if _written(path, graph) else graph
    del graph  # it holds all weights
    return opened(source)


def _written(path: Path, graph: Any) -> bool:
    """Write a graph: whole, or not at all."""
    draft = path.with_name(f"draft-{path.name}")
    try:
        import_openvino().save_model(graph, draft, compress_to_fp16=False)
        draft.with_suffix(".digest").write_text(_digest(draft))
        for end in _ENDS:
            with draft.with_suffix(end).open("rb") as file:
                os.fsync(file.fileno())
        for end in reversed(_ENDS):  # who finds the .xml finds all
            draft.with_suffix(end).replace(path.with_suffix(end))
    except (RuntimeError, OSError):  # OpenVINO says the first where the disk is full
        for end in _ENDS:
            draft.with_suffix(end).unlink(missing_ok=True)
        return False
    _tidy(path.parent, keep=path.stem)
    return True


def _digest(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes())
    with path.with_suffix(".bin").open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _is_whole(path: Path) -> bool:
    try:
        return _digest(path) == path.with_suffix(".digest").read_text()
    except OSError:
        return False


def _tidy(folder: Path, keep: str) -> None:
    """Delete the graphs that were not used for longest while all take too much room, and what was left half written."""
    room = _MOST_BYTES
    stems = {file.stem for file in folder.iterdir() if file.suffix in _ENDS}
    graphs = {stem: [folder / f"{stem}{end}" for end in _ENDS] for stem in stems}
    for stem, files in sorted(graphs.items(), key=lambda graph: -_last_used(graph[1][0])):
        there = [file for file in files if file.is_file()]
        room -= sum(file.stat().st_size for file in there)
        if stem != keep and (room < 0 or len(there) < len(files) or stem.startswith("draft-")):
            for file in there:
                file.unlink()


def _last_used(xml: Path) -> float:
    return xml.stat().st_mtime if xml.is_file() else 0.0
