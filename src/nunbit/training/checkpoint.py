"""All that a run needs to go on, in one folder that is whole or not there.

``state.safetensors`` holds every tensor, ``state.json`` what is none. Nothing is pickled. Random states are not among
them: every step starts its generators from the seed and its own number.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nunbit.durable import replace_file, sync_folder
from nunbit.errors import StoreError

_NAME = re.compile(r"step-(\d{8})")
_TENSORS, _PLAIN = "state.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after ``step`` optimizer steps: tensors by name, and plain JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint, and delete the oldest beyond ``keep``.

    It is written under another name and appears when all of it is on the disk, so a kill leaves the one before.

    Args:
        folder: Of all checkpoints.
        checkpoint: What to write.
        keep: How many stay.

    Raises:
        StoreError: The disk is full, or cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"step-{checkpoint.step:08d}"
    draft = folder / f".{target.name}.{os.getpid()}"
    _remove_drafts(folder)
    draft.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    try:
        save_file(tensors, draft / _TENSORS)
        with (draft / _TENSORS).open("rb") as file:
            os.fsync(file.fileno())
        content = json.dumps({"step": checkpoint.step, **checkpoint.plain}).encode()
        replace_file(draft / _PLAIN, lambda file: file.write(content))
        shutil.rmtree(target, ignore_errors=True)
        draft.replace(target)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        _remove_drafts(folder)
        hint = "free some space, or set keep_checkpoints: 1; then start the same command: it goes on from the last one"
        raise StoreError(f"the checkpoint {target} cannot be written: {error}", hint=hint) from error
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def _remove_drafts(folder: Path) -> None:
    """What a run left that was killed while it wrote: one writes at a time, so none of it is of use."""
    for left in folder.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        StoreError: It cannot be read, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        plain = json.loads((path / _PLAIN).read_text(encoding="utf-8"))
        tensors = load_file(path / _TENSORS)
        return Checkpoint(int(plain.pop("step")), tensors, plain)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        hint = "delete that folder; the run then goes on from the checkpoint before it"
        raise StoreError(f"the checkpoint {path} cannot be read: {error}", hint=hint) from error
