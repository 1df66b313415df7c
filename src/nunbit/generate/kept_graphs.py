"""Graphs of OpenVINO that took long to make, kept for the next time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nunbit.caches import cache_folder
from nunbit.durable import only_writer
from nunbit.engine.openvino_models import import_openvino
from nunbit.engine.record import versions

_MOST_BYTES = 8_000_000_000  # of all graphs together


def fingerprint(tensors: Iterable[tuple[str, Tensor]], *settings: object) -> str:
    """Changes with any weight, with the settings, and with the packages that graphs depend on."""
    digest = hashlib.sha256(f"{versions()} {settings!r}".encode())
    for name, values in tensors:
        plain = values.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def kept_graph(name: str, make: Callable[[], Any]) -> Any:
    """Find a graph in the cache, or make it.

    Args:
        name: With a `fingerprint` of all that it is made of.
        make: Gives the `openvino.Model`.

    Returns:
        The path of its ``.xml``, beside which the weights lie; the graph itself where the cache cannot be written.
    """
    try:
        folder = cache_folder("graphs")
        with only_writer(folder / "graphs.lock", "the cache of graphs", wait=True):
            path = folder / f"{name}.xml"
            if path.is_file():
                os.utime(path)  # those that were used last stay
            else:
                _write(path, make())
            return path
    except OSError:
        return make()


def _write(path: Path, graph: Any) -> None:
    draft = path.with_name(f"draft-{path.name}")
    import_openvino().save_model(graph, draft, compress_to_fp16=False)
    draft.with_suffix(".bin").replace(path.with_suffix(".bin"))  # who finds the .xml finds both
    draft.replace(path)
    _tidy(path.parent, keep=path)


def _tidy(folder: Path, keep: Path) -> None:
    """Delete the graphs that were not used for longest while all take too much room, and drafts that nobody writes."""
    room = _MOST_BYTES
    for path in sorted(folder.glob("*.xml"), key=lambda path: -path.stat().st_mtime):
        files = [file for file in (path, path.with_suffix(".bin")) if file.is_file()]
        room -= sum(file.stat().st_size for file in files)
        if path != keep and (room < 0 or path.name.startswith("draft-")):
            for file in files:
                file.unlink()
