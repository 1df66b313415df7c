"""A name, a local folder or a hub id → an encoder."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from nunbit.encode import Encoder
from nunbit.errors import ModelNotFound
from nunbit.starter.model import MODEL_TYPE, SHIPPED, load_starter

NAMED_MODELS = {"starter": SHIPPED}
MODEL_TYPES: dict[str, Callable[[Path, str], Encoder]] = {MODEL_TYPE: load_starter}

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load(model: str | os.PathLike[str] = "starter") -> Encoder:
    """Load an encoder.

    Args:
        model: ``"starter"``, a folder with ``config.json`` and ``model.safetensors``, or a hub id ``owner/name``.

    Raises:
        ModelNotFound: Nothing by that name, or a kind of model that this version cannot run.
        WeightsError: The files are not what they should be.

    Example:
        >>> nunbit.load("starter").embedding_size
        512
    """
    name = os.fspath(model)
    folder = NAMED_MODELS.get(name, Path(name))
    if folder.is_dir():
        return _build(folder, name)
    if _HUB_ID.fullmatch(name):
        return _build(_download(name), name)
    close = difflib.get_close_matches(name, NAMED_MODELS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "give 'starter', a folder, or a hub id such as owner/name"
    raise ModelNotFound(f"there is no model called {name!r} and no such folder", hint=hint)


def _build(folder: Path, name: str) -> Encoder:
    config_path = folder / "config.json"
    try:
        model_type = json.loads(config_path.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotFound(f"{folder} is not a model folder: no config.json with a model_type") from error
    if model_type not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise ModelNotFound(f"{name} is a {model_type!r} model; this version runs: {known}")
    return MODEL_TYPES[model_type](folder, name)


def _download(hub_id: str) -> Path:
    """The local snapshot of a hub repository; asked for by name, so the network may be used."""
    hint = "pip install 'nunbit[hub]', or download the folder elsewhere and give its path"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelNotFound(f"{hub_id} looks like a hub id, and huggingface_hub is not installed", hint=hint) from error
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["config.json", "model.safetensors"]))
    except Exception as error:  # the client has dozens of network errors, all with one remedy
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "check the id and the network, or download the folder elsewhere and give its path"
        raise ModelNotFound(f"{hub_id} cannot be fetched from the hub: {reason}", hint=hint) from error
