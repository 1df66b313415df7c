"""OpenAI's ``.pt`` archives: TorchScript programs of which the tensors alone are read.

Such an archive is a zip file. ``data.pkl`` in it is a pickle that describes a tree of modules, with tensors that point
to raw numbers in other members. A pickle can call anything that it names; here the names stand for three harmless
things and every other one is an error, so nothing of the archive is executed: neither the pickle's calls nor the
program.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nunbit.errors import UnsupportedModel, WeightsError

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Attributes:
    """Stands for any module of the archived program: keeps its attributes and does nothing."""

    __slots__ = ("attributes",)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module whose attributes are no dictionary")
        self.attributes: dict[str, Any] = state


@dataclass(frozen=True, slots=True)
class _Storage:
    """Raw numbers of a member of the archive."""

    numbers: Tensor


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor, wrapped so that the description cannot reach its state."""

    tensor: Tensor


class _Rebuild:
    """Stands for torch's function that makes a tensor of raw numbers; without state that could be changed."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _View:
        numbers = storage.numbers
        if math.prod(size) > len(numbers):  # repeated numbers: a small file could ask for any amount of memory
            raise pickle.UnpicklingError(f"a tensor of {math.prod(size)} numbers from {len(numbers)}")
        return _View(torch.as_strided(numbers, size, stride, offset).clone())  # raises where it would reach beyond


def read_openai_archive(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive, by their dotted names.

    Raises:
        UnsupportedModel: It is not such an archive, or its description asks for more than tensors.
        WeightsError: It is cut short or damaged.
    """
    hint = "give OpenAI's own archive, or a folder with safetensors"
    try:
        with zipfile.ZipFile(path) as archive:
            (description,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            root = _TensorReader(archive, description.removesuffix("data.pkl")).load()
            return _tensors(root)
    except (zipfile.BadZipFile, ValueError, TypeError, AttributeError, RecursionError, pickle.UnpicklingError) as error:
        raise UnsupportedModel(f"{path} is not a TorchScript archive of tensors: {error}", hint=hint) from error
    except (KeyError, EOFError, IndexError, OSError, OverflowError, MemoryError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged: {error}", hint="copy it again") from error


class _TensorReader(pickle.Unpickler):
    """An unpickler that knows tensors, ordered dictionaries and inert modules, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(_read_member(archive, f"{folder}data.pkl")))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "__torch__" or module.startswith("__torch__."):
            return _Attributes
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            data = bytearray(_read_member(self._archive, f"{self._folder}data/{key}"))
            numbers = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self._storages[key] = _Storage(numbers)
        return self._storages[key]


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # it could unpack to any size
        raise pickle.UnpicklingError(f"{name} is compressed")
    return archive.read(name)


def _tensors(root: Any) -> dict[str, Tensor]:
    """Tensors of a tree of modules, by dotted names; a module that holds itself is looked at once."""
    found: dict[str, Tensor] = {}
    waiting, seen = [("", root)], set[int]()
    while waiting:
        prefix, node = waiting.pop()
        if not isinstance(node, _Attributes) or id(node) in seen:
            continue
        seen.add(id(node))
        for name, value in node.attributes.items():
            if isinstance(value, _View):
                found[f"{prefix}{name}"] = value.tensor
            waiting.append((f"{prefix}{name}.", value))
    return found
