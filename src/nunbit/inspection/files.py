"""An inspector as a folder: ``inspector.json`` and ``inspector.safetensors``, bound to its encoder by fingerprint."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from nunbit.bound_folder import BoundFolder
from nunbit.errors import StoreError
from nunbit.inspection.memory_bank import MemoryBank
from nunbit.inspection.patches import Look
from nunbit.inspection.threshold import Threshold

if TYPE_CHECKING:
    from nunbit.encode import Encoder

FOLDER = BoundFolder("inspector", "nunbit inspect fit", frozenset({"look", "threshold"}))


def write_inspector(
    folder: str | os.PathLike[str], encoder: Encoder, bank: MemoryBank, look: Look, threshold: Threshold
) -> None:
    """Write all that an inspector knows; see `nunbit.bound_folder.BoundFolder.write`."""
    described = {"look": asdict(look), "threshold": asdict(threshold)}
    FOLDER.write(folder, (encoder.name, encoder.fingerprint), described, {"rows": bank.rows})


def read_inspector(folder: str | os.PathLike[str], encoder: Encoder) -> tuple[MemoryBank, Look, Threshold]:
    """Read it again.

    Raises:
        StoreNotFound: There is no inspector.
        StoreError: Its files are damaged.
        EncoderMismatch: It was made with another encoder.
    """
    described, tensors = FOLDER.read(folder, encoder)
    try:
        layers = described["look"]["layers"]
        look = Look(described["look"]["scale"], None if layers is None else tuple(layers))
        return MemoryBank(tensors["rows"]), look, Threshold(**described["threshold"])
    except (KeyError, TypeError) as error:
        again = f"make it again with `{FOLDER.command}`"
        raise StoreError(f"the inspector in {os.fspath(folder)} is damaged: {error}", hint=again) from error
