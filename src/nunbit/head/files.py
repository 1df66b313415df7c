"""A head as a folder: ``head.json`` and ``head.safetensors``, bound to its encoder by fingerprint.

Place in the river: learning writes, recognition and the server read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.durable import replace_file
from nunbit.errors import EncoderMismatch, StoreError, StoreNotFound
from nunbit.head.head import AnswerSets, Cache, Calibration, FeatureAdapter, Head
from nunbit.head.unknown import Unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nunbit.encode import Encoder

FORMAT = 1
DESCRIPTION, TENSORS, ENCODER = "head.json", "head.safetensors", "encoder"


def save_head(
    head: Head, folder: str | os.PathLike[str], encoder: Encoder, about: Mapping[str, Any], *, inside: bool = False
) -> None:
    """Write a head.

    Args:
        head: What was learned.
        folder: Made when it is not there; a head in it is replaced. ``head.json`` is written last, and has the sha256
            of the tensors: a folder whose writing was stopped is told from a whole one.
        encoder: Whose embeddings it takes.
        about: How it came about, as plain values.
        inside: The encoder is the model folder `ENCODER` of the head's own.
    """
    from safetensors.numpy import save

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tensors = save(_tensors(head))
    described = {
        "format": FORMAT,
        "encoder": {"name": ENCODER if inside else encoder.name, "fingerprint": encoder.fingerprint, "inside": inside},
        "classnames": list(head.classnames),
        "multi_label": head.multi_label,
        "numbers": _numbers(head),
        "unknown": _unknown(head),
        "answers": None if head.answers is None else asdict(head.answers),
        "sha256": _sha256(tensors),
        "about": dict(about),
    }
    content = json.dumps(described, ensure_ascii=False, indent=1).encode() + b"\n"
    replace_file(place / TENSORS, lambda file: file.write(tensors))
    replace_file(place / DESCRIPTION, lambda file: file.write(content))


def is_head(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a head."""
    return (Path(folder) / DESCRIPTION).is_file()


def describe_head(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a head's folder says of it: encoder, classes, how it came about.

    Raises:
        StoreNotFound: There is no head.
        StoreError: Its description cannot be understood.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise StoreNotFound(f"there is no head in {os.fspath(folder)}", hint="make one with `nunbit adapt fit`")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(described, dict) and described["format"] == FORMAT
        if not {"encoder", "classnames", "sha256"} <= described.keys() or "fingerprint" not in described["encoder"]:
            raise KeyError("it does not say which encoder, which classes or which file")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}", hint="make the head again with `nunbit adapt fit`") from error
    if not known:
        raise StoreError(f"{path} has format {described['format']!r}, expected {FORMAT}", hint="make the head again")
    return dict(described)


def encoder_of(folder: str | os.PathLike[str]) -> str:
    """What `nunbit.load` takes for the encoder of a head: its name, or a folder inside of the head's.

    Raises:
        StoreNotFound, StoreError: As in `describe_head`.
    """
    owner = describe_head(folder)["encoder"]
    return os.path.join(folder, ENCODER) if owner.get("inside") else str(owner.get("name", ""))


def load_head(folder: str | os.PathLike[str], encoder: Encoder) -> Head:
    """Read a head for its encoder.

    Args:
        folder: As `save_head` wrote it.
        encoder: The one that it was made with.

    Raises:
        StoreNotFound: There is no head.
        StoreError: Its files are damaged.
        EncoderMismatch: It was made with another encoder; both are named.
    """
    described = describe_head(folder)
    owner = described["encoder"]
    if owner["fingerprint"] != encoder.fingerprint:
        raise EncoderMismatch(
            f"the head in {os.fspath(folder)} was made with {owner.get('name', '?')} "
            f"({owner['fingerprint'][:12]}), not with {encoder.name} ({encoder.fingerprint[:12]})",
            hint=f"use --model {encoder_of(folder)}, or make the head again with `nunbit adapt fit`",
        )
    path = Path(folder) / TENSORS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}", hint="make the head again") from error
    if _sha256(content) != described["sha256"]:
        raise StoreError(f"{path} is not the file that head.json means: its sha256 differs", hint="make the head again")
    return _head(described, content)


def _head(described: Mapping[str, Any], content: bytes) -> Head:
    from safetensors.numpy import load

    tensors, numbers = load(content), described["numbers"]
    cache = adapter = calibration = None
    if "cache.keys" in tensors:
        cache = Cache(tensors["cache.keys"], tensors["cache.values"], numbers["alpha"], numbers["beta"])
    if "adapter.down" in tensors:
        adapter = FeatureAdapter(tensors["adapter.down"], tensors["adapter.up"], numbers["ratio"])
    if "calibration.factor" in tensors:
        calibration = Calibration(tensors["calibration.factor"], tensors["calibration.offset"])
    unknown = None
    if "unknown.rows" in tensors:
        unknown = Unknown(rows=tensors["unknown.rows"], positives=tensors["unknown.positives"], **described["unknown"])
    return Head(
        tuple(described["classnames"]),
        tensors["weights"],
        tensors["bias"],
        cache=cache,
        adapter=adapter,
        multi_label=bool(described["multi_label"]),
        calibration=calibration,
        unknown=unknown,
        answers=None if described["answers"] is None else AnswerSets(**described["answers"]),
    )


def _tensors(head: Head) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {"weights": head.weights, "bias": head.bias}
    if head.cache is not None:
        tensors |= {"cache.keys": head.cache.keys, "cache.values": head.cache.values}
    if head.adapter is not None:
        tensors |= {"adapter.down": head.adapter.down, "adapter.up": head.adapter.up}
    if head.calibration is not None:
        tensors |= {"calibration.factor": head.calibration.factor, "calibration.offset": head.calibration.offset}
    if head.unknown is not None:
        tensors |= {"unknown.rows": head.unknown.rows, "unknown.positives": head.unknown.positives}
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _numbers(head: Head) -> dict[str, float]:
    numbers: dict[str, float] = {}
    if head.cache is not None:
        numbers |= {"alpha": float(head.cache.alpha), "beta": float(head.cache.beta)}
    if head.adapter is not None:
        numbers["ratio"] = float(head.adapter.ratio)
    return numbers


def _unknown(head: Head) -> dict[str, Any] | None:
    if head.unknown is None:
        return None
    return {name: getattr(head.unknown, name) for name in ("way", "threshold", "false_alarms", "logit_scale")}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
