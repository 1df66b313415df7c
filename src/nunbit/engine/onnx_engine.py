"""ONNX Runtime: runs the two files that `nunbit.onnx_export` writes.

Shapes: B batch, E embedding.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.caches import cache_folder
from nunbit.engine.record import DRAFT, FORMAT_VERSION, Record, versions
from nunbit.errors import ModelError
from nunbit.onnx_export import IMAGE_FILE, TEXT_FILE, export_onnx, read_onnx_metadata

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

IMAGE, TEXT = IMAGE_FILE, TEXT_FILE


class OnnxModel:
    """One ONNX file, ready to run from several threads.

    Args:
        path: The file.
        threads: Cores to use.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session: Any = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, inputs: np.ndarray[Any, Any]) -> FloatArray:
        """What the tower takes → (B, E) float32."""
        rows: FloatArray = self._session.run(None, {self._input: inputs})[0]
        return rows


def onnx_files(fingerprint: str) -> Path | None:
    """The folder with an encoder's ONNX files, if these packages wrote them."""
    folder = _folder(fingerprint)
    return folder if folder.is_dir() else None


def write_onnx_files(encoder: Encoder) -> Path:
    """Export an encoder of torch; files that differ from torch by more than 1e-5 are refused.

    Raises:
        ModelError: A package is missing, the model cannot be exported, or the files answer otherwise than torch.
    """
    _runtime()
    folder = _folder(encoder.fingerprint)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=DRAFT) as name:
        export_onnx(encoder, Path(name, "onnx"))
        with suppress(OSError):  # somebody else was quicker
            Path(name, "onnx").rename(folder)
    return folder


def _folder(fingerprint: str) -> Path:
    packages = hashlib.sha256(versions().encode()).hexdigest()[:16]
    return cache_folder("engines") / f"{fingerprint[:32]}-onnx-{packages}"


def onnx_record(path: Path) -> Record:
    """What a file says about its encoder."""
    metadata = read_onnx_metadata(path)
    bias = metadata.get("logit_bias")
    return Record(
        format_version=FORMAT_VERSION,
        versions="",
        machine="",
        fingerprint=metadata["fingerprint"],
        embedding_size=int(metadata["embedding_size"]),
        logit_scale=float(metadata["logit_scale"]),
        logit_bias=None if bias is None else float(bias),
        preprocessing=json.loads(metadata["preprocessing"]),
        tokenizer=json.loads(metadata["tokenizer"]),
        calibration="",
        image=None,
        text=None,
        problem="",
    )


def _runtime() -> Any:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        hint = "pip install onnxruntime 'nunbit[export]'"
        raise ModelError(f"the engine onnxruntime needs the package of that name: {error}", hint=hint) from error
