"""A folder → a vision-language model."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from nunbit.errors import ModelNotFound, UnsupportedModel
from nunbit.vlm import folder as own_folder
from nunbit.vlm import transformers_folder
from nunbit.vlm.assembly import list_presets
from nunbit.vlm.model import VisionLanguageModel

STARTER = "starter"
"""The model that this package carries."""
_STARTER_FOLDER = Path(str(files("nunbit.vlm"))) / "starter"


def find_vlm(model: str | os.PathLike[str]) -> Path:
    """The folder of a model: a path, or that of the `STARTER`; nothing says that it is there."""
    return _STARTER_FOLDER if os.fspath(model) == STARTER and not Path(model).is_dir() else Path(model)


def load_vlm(model: str | os.PathLike[str]) -> VisionLanguageModel:
    """Load a vision-language model, from this machine only.

    Args:
        model: `STARTER`, a folder that `nunbit.vlm.folder.write_vlm` wrote, or one of `transformers` with a LLaVA,
            BLIP-2, InstructBLIP or SmolVLM.

    Raises:
        ModelNotFound: There is no such folder, or a package that it takes a part from is not installed.
        UnsupportedModel: A kind of model that is not known here.
        WeightsError: The files are not what they should be.
    """
    path = find_vlm(model)
    if not path.is_dir():
        hint = "a model folder"
        if os.fspath(model) in list_presets():
            hint = f"{os.fspath(model)} is a preset, which has no weights: train it, or take a model folder"
        raise ModelNotFound(f"there is no vision-language model {os.fspath(model)!r}", hint=hint)
    if (path / own_folder.CONFIG).is_file():
        return own_folder.read_vlm(path)
    if (path / transformers_folder.CONFIG).is_file():
        return transformers_folder.read_transformers_vlm(path)
    names = f"{own_folder.CONFIG} or {transformers_folder.CONFIG}"
    raise UnsupportedModel(f"{path} has no {names}", hint="take the folder that a model was saved into")
