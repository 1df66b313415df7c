"""A CLIP or SigLIP encoder → two ONNX files that give the same embeddings without torch.

Place in the river: above `nunbit.pretrained`; a way out. As metadata each file carries the encoder's fingerprint and
what a program needs around it, so that whoever runs the files can tell which encoder they are.

Writing needs ``pip install 'nunbit[export]'``; reading the metadata needs nothing, torch included.

Shapes: B batch, T tokens, S ``image_size``, E embedding.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.config import to_plain
from nunbit.encode import Encoder
from nunbit.errors import DriftError, ModelError, UnsupportedModel, UsageError, WeightsError
from nunbit.programs import quiet_compilers

if TYPE_CHECKING:
    from nunbit.pretrained.encoder import ClipTowers
    from nunbit.programs import Program
    from nunbit.types import FloatArray

IMAGE_FILE, TEXT_FILE = "image_encoder.onnx", "text_encoder.onnx"
TOLERANCE = 1e-5
"""The most that a number of an embedding may differ from torch's, both in float32."""

_OPSET = 18
_LARGEST_FILE = 1_500_000_000  # bytes; a protobuf message, which is what such a file is, ends at 2 GiB
_METADATA_FIELD = 14  # of ONNX's ModelProto; an entry has its key in field 1 and its value in field 2


@dataclass(frozen=True, slots=True)
class OnnxModels:
    """What was written.

    Attributes:
        image_encoder: ``pixel_values`` (B, 3, S, S) float32, as the preprocessing makes them → ``image_embeddings``
            (B, E) float32, unit rows.
        text_encoder: ``input_ids`` (B, T) int64 → ``text_embeddings`` (B, E) float32, unit rows. T is free up to the
            context length where padding changes nothing (CLIP), and the context length otherwise (SigLIP).
        difference: The largest one to torch that was measured; None where onnxruntime is not installed.
    """

    image_encoder: Path
    text_encoder: Path
    difference: float | None


_FILES = {"image": IMAGE_FILE, "text": TEXT_FILE}
_NAMES = {"image": ("pixel_values", "image_embeddings"), "text": ("input_ids", "text_embeddings")}


def export_onnx(encoder: Encoder, folder: str | os.PathLike[str]) -> OnnxModels:
    """Write an encoder as ONNX, with its tokenizer's files, and compare what was written with torch.

    Weights of more than 1.5 GB stand beside their file, in ``image_encoder.onnx.data`` or ``text_encoder.onnx.data``.
    When something fails, no file is left in ``folder``, and those of an earlier export stay.

    Args:
        encoder: A CLIP or SigLIP encoder, in float32 on the CPU.
        folder: Made when it is not there; files of the same names are replaced.

    Returns:
        Where the files are, and the largest difference to torch.

    Raises:
        UnsupportedModel: Another kind of encoder, or one that torch cannot write.
        UsageError: Another precision or device, or ``folder`` holds a model.
        ModelError: The packages that write ONNX are not installed.
        DriftError: The files answer otherwise than torch does.

    Example:
        >>> models = export_onnx(nunbit.load("my-clip", engine="torch"), "my-clip-onnx")
        >>> read_onnx_metadata(models.image_encoder)["fingerprint"]
    """
    towers, folder = _exportable(encoder), Path(folder)
    programs = towers.programs()
    if any(folder.glob("*.safetensors")):
        hint = "give a folder of its own: the tokenizer's files would be replaced"
        raise UsageError(f"{folder} holds a model already", hint=hint)
    _require_packages()
    from nunbit.pretrained.tokenizer_files import save_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as name:
        draft = Path(name)
        for tower, program in programs.items():
            _write(program, _NAMES[tower], _metadata(encoder, towers), draft / _FILES[tower])
        difference = _largest_difference(encoder, towers, draft)
        if difference is not None and not difference <= TOLERANCE:  # in this form a NaN is refused, too
            message = f"the ONNX files of {encoder.name} differ from torch by {difference:.1e}, more than {TOLERANCE}"
            raise DriftError(message, hint="try other versions of torch, onnxscript and onnxruntime; nothing was kept")
        save_tokenizer(towers.tokenizer, draft)
        for file in (IMAGE_FILE, TEXT_FILE):
            (folder / f"{file}.data").unlink(missing_ok=True)  # of an earlier, larger model
        for path in draft.iterdir():
            path.replace(folder / path.name)
    return OnnxModels(folder / IMAGE_FILE, folder / TEXT_FILE, difference)


def read_onnx_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what `export_onnx` wrote about the encoder, without loading weights and without the ``onnx`` package.

    Args:
        path: An ONNX file.

    Returns:
        ``fingerprint``, ``name``, ``embedding_size``, ``logit_scale``, ``logit_bias`` (SigLIP only), ``license``; and
        as JSON ``preprocessing`` and ``tokenizer``, the fields of `nunbit.text.TokenizerConfig`. A file from elsewhere
        has other entries, or none.

    Raises:
        WeightsError: It is not an ONNX file, or not whole.
    """
    try:
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            entries = [content[start:end] for field, start, end in _fields(content) if field == _METADATA_FIELD]
        pairs = [{field: entry[start:end].decode() for field, start, end in _fields(entry)} for entry in entries]
        return {pair[1]: pair.get(2, "") for pair in pairs}
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    except (LookupError, ValueError) as error:
        raise WeightsError(f"{path} is no ONNX file, or not a whole one", hint="copy or export it again") from error


def _exportable(encoder: Encoder) -> ClipTowers:
    from nunbit.pretrained.encoder import ClipTowers

    towers = encoder.towers
    if not encoder.engine.name.startswith("torch"):
        raise UsageError(f"{encoder.name} is computed by {encoder.engine.name}", hint='load it with engine="torch"')
    if not isinstance(towers, ClipTowers):
        raise UnsupportedModel(
            f"{encoder.name} is not a CLIP or SigLIP model, and no other kind can be written as ONNX",
            hint="`nunbit models` lists models that can",
        )
    return towers


def _require_packages() -> None:
    for name in ("onnx", "onnxscript"):
        try:
            import_module(name)
        except ImportError as error:
            hint = "pip install 'nunbit[export]'"
            raise ModelError(f"writing ONNX needs the package {name}: {error}", hint=hint) from error


def _metadata(encoder: Encoder, towers: ClipTowers) -> dict[str, str]:
    entries = {
        "fingerprint": encoder.fingerprint,
        "name": encoder.name,
        "embedding_size": str(encoder.embedding_size),
        "logit_scale": repr(encoder.logit_scale),
        "preprocessing": json.dumps(encoder.preprocessing.to_dict()),
        "tokenizer": json.dumps(to_plain(towers.tokenizer.config)),
        "license": towers.license,
    }
    return entries if encoder.logit_bias is None else entries | {"logit_bias": repr(encoder.logit_bias)}


def _write(program: Program, names: tuple[str, str], metadata: dict[str, str], path: Path) -> None:
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    with quiet_compilers():
        try:
            # Strict, because only then does len() of a tensor stay free; and apart from the conversion, which on its
            # own would write the example's batch size into the file instead of failing.
            onnx = torch.onnx.export(
                program.export(strict=True),
                dynamo=True,
                dynamic_shapes=({axis: name for axis, (name, _) in program.free.items()},),
                input_names=[names[0]],
                output_names=[names[1]],
                opset_version=_OPSET,
                verbose=False,
            )
        except Exception as error:  # of two compilers, with dozens of errors between them
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnsupportedModel(f"torch cannot write {path.name} for this model: {reason}") from error
        assert onnx is not None
        ClearMetadataAndDocStringPass()(onnx.model)  # every node says from which source file of whose disk it comes
        onnx.model.metadata_props.update(metadata)
        size = sum(value.const_value.nbytes for value in onnx.model.graph.initializers.values() if value.const_value)
        onnx.save(path, external_data=size > _LARGEST_FILE)


def _largest_difference(encoder: Encoder, towers: ClipTowers, folder: Path) -> float | None:
    """Between the files and torch on random input, at two batch sizes and, where it is free, two token counts."""
    import torch

    try:
        runtime: Any = import_module("onnxruntime")
    except ImportError:
        return None
    programs = towers.programs()
    image, text = (
        runtime.InferenceSession(str(folder / _FILES[tower]), providers=["CPUExecutionProvider"])
        for tower in ("image", "text")
    )
    rng = np.random.default_rng(0)
    length = programs["text"].example.shape[1]
    differences = []
    for batch, tokens in ((1, length), (3, max(2, length // 2) if 1 in programs["text"].free else length)):
        pixels = rng.standard_normal((batch, *programs["image"].example.shape[1:]), np.float32)
        (embeddings,) = image.run(None, {"pixel_values": pixels})
        differences.append(_difference(embeddings, encoder.encode_pixels(pixels)))
        ids = rng.integers(0, towers.settings.config.text.vocab_size, (batch, tokens))
        ids[:, -1] = towers.tokenizer.config.end_token_id
        (embeddings,) = text.run(None, {"input_ids": ids})
        with torch.inference_mode():
            differences.append(_difference(embeddings, towers.model.embed_text(torch.from_numpy(ids)).numpy()))
    return float(np.max(differences))


def _difference(got: FloatArray, expected: FloatArray) -> float:
    return float(np.abs(got - expected).max())


def _fields(content: mmap.mmap | bytes) -> Iterator[tuple[int, int, int]]:
    """The fields of a protobuf message: number, start and end of what it holds; integers are passed over."""
    at = 0
    while at < len(content):
        tag, at = _integer(content, at)
        kind = tag & 7
        if kind == 0:
            _, at = _integer(content, at)
            continue
        length, at = _integer(content, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + length > len(content):
            raise ValueError("it ends too early")
        yield tag >> 3, at, at + length
        at += length


def _integer(content: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first; and where the next one begins."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
