"""A head as a folder: ``head.json`` and ``head.safetensors``, bound to its encoder by fingerprint.

Place in the river: learning writes, recognition and the server read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nunbit.bound_folder import BoundFolder
from nunbit.errors import StoreError
from nunbit.head.head import AnswerSets, Cache, Calibration, FeatureAdapter, Head
from nunbit.head.unknown import Unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nunbit.encode import Encoder

FOLDER = BoundFolder("head", "nunbit adapt fit", frozenset({"classnames"}))
ENCODER = "encoder"


def save_head(
    head: Head, folder: str | os.PathLike[str], encoder: Encoder, about: Mapping[str, Any], *, inside: bool = False
) -> None:
    """Write a head.

    Args:
        head: What was learned.
        folder: Made when it is not there; a head in it is replaced.
        encoder: Whose embeddings it takes.
        about: How it came about, as plain values.
        inside: The encoder is the model folder `ENCODER` of the head's own.
    """
    described = {
        "classnames": list(head.classnames),
        "multi_label": head.multi_label,
        "numbers": _numbers(head),
        "unknown": _unknown(head),
        "answers": None if head.answers is None else asdict(head.answers),
        "inside": inside,
        "about": dict(about),
    }
    name = f"{Path(folder).name}/{ENCODER}" if inside else encoder.name
    FOLDER.write(folder, (name, encoder.fingerprint), described, _tensors(head))


def is_head(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a head."""
    return FOLDER.is_there(folder)


def describe_head(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a head's folder says of it: encoder, classes, how it came about.

    Raises:
        StoreNotFound: There is no head.
        StoreError: Its description cannot be understood.
    """
    return FOLDER.describe(folder)


def encoder_of(folder: str | os.PathLike[str]) -> str:
    """What `nunbit.load` takes for the encoder of a head: its name, or a folder inside of the head's.

    Raises:
        StoreNotFound, StoreError: As in `describe_head`.
    """
    described = describe_head(folder)
    return os.path.join(folder, ENCODER) if described.get("inside") else str(described["encoder"].get("name", ""))


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
    described, tensors = FOLDER.read(folder, encoder)
    try:
        return _head(described, tensors)
    except (KeyError, TypeError) as error:
        again = f"make it again with `{FOLDER.command}`"
        raise StoreError(f"the head in {os.fspath(folder)} is damaged: {error}", hint=again) from error


def _head(described: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Head:
    numbers = described["numbers"]
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
        answers=None if described.get("answers") is None else AnswerSets(**described["answers"]),
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
    return tensors


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
