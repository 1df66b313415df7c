"""OpenAI's ``.pt`` archives: TorchScript programs of which the tensors alone are read.

Such an archive is a zip file. ``data.pkl`` in it is a pickle that describes a tree of modules, with tensors that point
to raw numbers in other members. A pickle can call anything that it names; here the names stand for three harmless
things and every other one is an error, so nothing of the archive is executed: neither the pickle's calls nor the
program.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


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
    except (zipfile.BadZipFile, ValueError, pickle.UnpicklingError) as error:
        raise UnsupportedModel(f"{path} is not a TorchScript archive of tensors: {error}", hint=hint) from error
    except (KeyError, EOFError, OSError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged: {error}", hint="copy it again") from error
    return dict(_walk(root, ""))


class _TensorReader(pickle.Unpickler):
    """An unpickler that knows tensors, ordered dictionaries and inert modules, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "__torch__" or module.startswith("__torch__."):
            return _Attributes
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset).clone()  # raises where it would reach beyond its numbers


def _walk(node: _Attributes, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in getattr(node, "attributes", {}).items():
        if isinstance(value, _Attributes):
            found += _walk(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            found.append((f"{prefix}{name}", value))
    return found
