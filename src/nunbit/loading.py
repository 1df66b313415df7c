"""A name, a local folder or a hub id → an encoder."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nunbit.distilled.encoder import MODEL_TYPE as DISTILLED
from nunbit.distilled.encoder import load_distilled, read_config_file
from nunbit.encode import Encoder
from nunbit.engine import AUTO, TORCH, open_engine
from nunbit.engine.names import requested_engine
from nunbit.engine.opening import ModelSource
from nunbit.errors import ConfigError, ModelNotFound, UsageError
from nunbit.hub import fetch_model
from nunbit.presets import find_preset, list_presets
from nunbit.starter.model import MODEL_TYPE, SHIPPED, load_starter
from nunbit.starter.packages import PACKAGED_FILES

if TYPE_CHECKING:
    from nunbit.pretrained.encoder import Precision
    from nunbit.pretrained.vit_folder import Classifier

STARTER = "starter"
PRECISIONS = ("float32", "bfloat16", "float16")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def load(
    model: str | os.PathLike[str] = STARTER,
    *,
    revision: str | None = None,
    precision: Precision = "float32",
    device: str | None = None,
    engine: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Encoder:
    """Load an encoder.

    What computes is prepared once for each model and machine, which takes from ten seconds to a minute.

    Args:
        model: One of

            * ``"starter"``, or another name that ``nunbit models`` lists;
            * a model folder: ours (a distilled one too), of `transformers` (clip, siglip, siglip2) or of open_clip;
            * one of OpenAI's ``.pt`` archives, with CLIP's vocabulary beside it;
            * a hub id ``owner/name``, or ``owner/name@revision``.
        revision: Branch, tag or commit of a hub repository. Without one, what was fetched before is used again.
        precision: What a CLIP or SigLIP computes in: ``float32``, ``bfloat16`` or ``float16``.
        device: Where torch computes, as it names it: ``cpu``, ``cuda``. Like another precision, it asks for torch.
        engine: ``auto``: the quickest that answers as torch in float32 does. ``torch``: the reference, exact to
            float32, with ``encoder.model`` to look into and to train, which no other engine has. ``openvino``, or
            ``openvino-fp32``, ``-bf16``, ``-int8`` (of pictures; texts are not rounded to int8); ``onnxruntime``.
            None: ``$NUNBIT_ENGINE``, else ``auto``.
        tell: Told in a few words what takes long.

    Raises:
        ModelNotFound: Nothing by that name, or the hub cannot be reached.
        EngineRefused: The engine that was asked for cannot run this model, or does not agree with torch.
        UnsupportedModel: A kind of model that this version does not run.
        WeightsError: The files are not what they should be.

    Example:
        >>> nunbit.load("starter").embedding_size
        512
    """
    name = os.fspath(model)
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}", hint=f"one of: {', '.join(PRECISIONS)}")
    chosen = requested_engine(engine)
    default = precision == "float32" and device is None
    if not default and engine not in (None, AUTO, TORCH):
        raise UsageError(f"{chosen} computes on the cpu in a precision of its own", hint='engine="torch" takes both')
    path = locate(name, revision=revision)
    if chosen == TORCH or not default:
        return _load_torch(path, name, precision, device or "cpu")
    return open_engine(model_source(path, name), chosen, tell)


def model_source(path: Path, name: str, *, students: tuple[Path, ...] = ()) -> ModelSource:
    """What `nunbit.engine` has to know of a model, before it is loaded.

    Args:
        path: As `locate` gives it.
        name: What the user called it.
        students: Folders of distilled encoders that ask for it as their teacher.

    Raises:
        ConfigError: It is its own teacher.
        ModelNotFound: Its teacher is gone.
    """
    if path in students:
        raise ConfigError(f"{path} is its own teacher", hint="distill it again")
    starter, distilled = is_starter(path), is_distilled(path)
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    if path.is_file():  # an archive of OpenAI's has its vocabulary beside it
        files += path.parent.glob("*.txt.gz")
    if starter:
        files += [packaged.find() for packaged in PACKAGED_FILES]
    if distilled:  # it answers texts with its teacher's files
        teacher = read_config_file(path)[0].teacher.model
        try:
            files += model_source(locate(teacher), teacher, students=(*students, path)).files
        except ModelNotFound as error:
            message = f"{path} takes its words from its teacher, and {error.message}"
            raise ModelNotFound(message, hint="put the teacher back, or distill again") from error
    on_gpu = None if starter or distilled else lambda: _load_torch(path, name, "float32", "cuda")
    return ModelSource(name, sorted(files), lambda: _load_torch(path, name, "float32", "cpu"), on_gpu)


def _load_torch(path: Path, name: str, precision: Precision, device: str) -> Encoder:
    if is_starter(path) or is_distilled(path):
        if (precision, device) != ("float32", "cpu"):
            raise UsageError(f"{name} computes in float32 on the cpu, not in {precision} on {device}")
        if is_starter(path):
            return load_starter(path, name)
        return load_distilled(path, name, lambda teacher: load(teacher, engine=TORCH))
    from nunbit.pretrained.encoder import load_clip

    return load_clip(path, name, precision=precision, device=device)


def load_classifier(model: str | os.PathLike[str], *, revision: str | None = None) -> Classifier:
    """Load a ViT classifier of `transformers` (model_type vit), as a start for transfer learning.

    Args:
        model: A folder or a hub id.
        revision: As `load` takes it.

    Raises:
        ModelNotFound: Nothing by that name, or the hub cannot be reached.
        UnsupportedModel: It is another kind of model.
        WeightsError: The files are not what they should be.
    """
    from nunbit.pretrained.vit_folder import load_classifier as read

    return read(locate(os.fspath(model), revision=revision))


def locate(name: str, *, revision: str | None = None) -> Path:
    """The folder or archive that a name stands for; a hub repository is fetched if it is not here yet.

    Args:
        name: As `load` takes it.
        revision: As `load` takes it.

    Raises:
        ModelNotFound: Nothing by that name, or the hub cannot be reached.
    """
    if name == STARTER:
        return SHIPPED
    path = Path(name)
    preset = None if path.exists() else find_preset(name)
    if path.exists():
        return path
    if preset is not None:
        return fetch_model(preset.hub_id, revision=revision).folder
    if _HUB_ID.fullmatch(name) and not name.startswith((".", "/")):
        return fetch_model(name, revision=revision).folder
    names = [STARTER, *(known.name for known in list_presets())]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`nunbit models` lists names; a folder or owner/name works too"
    raise ModelNotFound(f"there is no model called {name!r} and no such folder", hint=hint)


def is_starter(path: Path) -> bool:
    """Tell whether this is a folder with a model of the starter's kind."""
    return _model_type(path) == MODEL_TYPE


def is_distilled(path: Path) -> bool:
    """Tell whether this is the folder of a distilled encoder."""
    return _model_type(path) == DISTILLED


def _model_type(path: Path) -> object:
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return content.get("model_type") if isinstance(content, dict) else None
    except (OSError, ValueError):
        return None
