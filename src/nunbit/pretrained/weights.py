"""Weight files: safetensors, whole or in shards, checked tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nunbit.errors import UnsupportedModel, WeightsError
from nunbit.pretrained.parts import read_json
from nunbit.pretrained.tensor_names import Rule, to_ours, to_theirs

_LISTED = 8  # problems shown of each kind: a message, not a dump


def has_weights(folder: Path, names: Sequence[str]) -> bool:
    """Tell whether a folder has one of these files, whole or in shards."""
    return any((folder / name).is_file() or (folder / f"{name}.index.json").is_file() for name in names)


def find_weights(folder: Path, names: Sequence[str]) -> list[Path]:
    """The weight files of a folder.

    Args:
        folder: A model folder.
        names: Accepted file names, best first; ``NAME.index.json`` beside one lists its shards.

    Raises:
        WeightsError: A shard that the list names is missing.
        UnsupportedModel: There is no safetensors file.
    """
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted({str(name) for name in read_json(index)["weight_map"].values()})
            if any(Path(shard).name != shard for shard in shards):
                raise WeightsError(f"{index} names files outside of its folder")
            if missing := [shard for shard in shards if not (folder / shard).is_file()]:
                raise WeightsError(f"{folder} lacks {', '.join(missing)}", hint="copy the model folder again")
            return [folder / shard for shard in shards]
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack"))
    found = f"; it has {', '.join(others)}, which can run code when read" if others else ""
    hint = "convert the weights to safetensors where you trust them, or take a folder that has them"
    raise UnsupportedModel(f"{folder} has none of {', '.join(names)}{found}", hint=hint)


def read_tensors(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Read safetensors files.

    Raises:
        WeightsError: A file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read: {error}", hint="copy the model folder again") from error
    return tensors


def fit_tensors(
    tensors: Mapping[str, Tensor], module: nn.Module, rules: Sequence[Rule], *, where: str, ignored: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Rearrange a file's tensors for a module, and refuse those that do not fit.

    Args:
        tensors: As the file has them.
        module: Any instance of the right shape, on the meta device for instance.
        rules: Between the two.
        where: The file or folder, for messages.
        ignored: Names that may be there and mean nothing.

    Returns:
        The module's state: floating tensors as float32.

    Raises:
        WeightsError: Missing, unexpected or misshapen tensors, listed by their names in the file.
    """
    state = module.state_dict()
    expected = to_theirs({name: tensor.to("meta") for name, tensor in state.items()}, rules)
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys() - set(ignored)),
        "misshapen": [
            f"{name} {_shape(given[name])}, expected {_shape(tensor)}"
            for name, tensor in expected.items()
            if name in given and not _same_shape(given[name], tensor)
        ],
    }
    if any(problems.values()):
        told = "; ".join(_enumerate(kind, names) for kind, names in problems.items() if names)
        hint = "the configuration and the weights belong to different models, or the file is cut short"
        raise WeightsError(f"{where}: the tensors do not fit the architecture: {told}", hint=hint)
    ours = {name: _compute_dtype(tensor).contiguous() for name, tensor in to_ours(given, rules).items()}
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    return ours | {name: torch.zeros((), dtype=torch.int64) for name in counters}


def _compute_dtype(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _same_shape(given: Tensor, expected: Tensor) -> bool:
    return given.shape == expected.shape or given.numel() == expected.numel() == 1  # () and (1,) are both in use


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _enumerate(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}"
