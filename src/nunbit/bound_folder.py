"""What was learned from pictures, as a folder of a description and tensors, bound to its encoder by fingerprint.

Place in the river: heads and inspectors are written and read by it. JSON and safetensors, nothing that runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.durable import replace_file
from nunbit.errors import EncoderMismatch, StoreError, StoreNotFound

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nunbit.encode import Encoder

FORMAT = 1


@dataclass(frozen=True, slots=True)
class BoundFolder:
    """A kind of folder.

    Attributes:
        kind: What is in it, in one word; its files are ``<kind>.json`` and ``<kind>.safetensors``.
        command: What makes one, for hints.
        needs: What its description must have, beside the encoder and the sha256 of the tensors.
    """

    kind: str
    command: str
    needs: frozenset[str]

    def is_there(self, folder: str | os.PathLike[str]) -> bool:
        """Whether a folder holds one."""
        return self._description(folder).is_file()

    def write(
        self,
        folder: str | os.PathLike[str],
        encoder: tuple[str, str],
        described: Mapping[str, Any],
        tensors: Mapping[str, NDArray[Any]],
    ) -> None:
        """Write one.

        Args:
            folder: Made when it is not there; one in it is replaced. The description is written last, and has the
                sha256 of the tensors: a folder whose writing was stopped is told from a whole one.
            encoder: Name and fingerprint of what it is bound to; of a folder the whole path is kept.
            described: Plain values.
            tensors: Arrays of any shapes.
        """
        from safetensors.numpy import save

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
        name, fingerprint = encoder
        owner = {"name": str(Path(name).absolute()) if Path(name).is_dir() else name, "fingerprint": fingerprint}
        whole = {"format": FORMAT, "encoder": owner, **described, "sha256": _sha256(content)}
        text = json.dumps(whole, ensure_ascii=False, indent=1).encode() + b"\n"
        replace_file(self._tensors(place), lambda file: file.write(content))
        replace_file(self._description(place), lambda file: file.write(text))

    def describe(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """What a folder says of itself.

        Raises:
            StoreNotFound: There is none.
            StoreError: Its description cannot be understood.
        """
        path, again = self._description(folder), f"make the {self.kind} again with `{self.command}`"
        if not path.is_file():
            raise StoreNotFound(
                f"there is no {self.kind} in {os.fspath(folder)}", hint=f"make one with `{self.command}`"
            )
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            known = isinstance(described, dict) and described["format"] == FORMAT
            missing = {"encoder", "sha256", *self.needs} - described.keys()
            if missing or "fingerprint" not in described["encoder"]:
                raise KeyError(f"it does not say {', '.join(sorted(missing)) or 'which encoder'}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is damaged: {error}", hint=again) from error
        if not known:
            raise StoreError(f"{path} has format {described['format']!r}, expected {FORMAT}", hint=again)
        return dict(described)

    def read(self, folder: str | os.PathLike[str], encoder: Encoder) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Read one for its encoder.

        Args:
            folder: As `write` wrote it.
            encoder: The one that it was made with.

        Returns:
            The description, and the tensors.

        Raises:
            StoreNotFound: There is none.
            StoreError: Its files are damaged.
            EncoderMismatch: It was made with another encoder; both are named.
        """
        from safetensors.numpy import load

        described, again = self.describe(folder), f"make the {self.kind} again with `{self.command}`"
        owner = described["encoder"]
        if owner["fingerprint"] != encoder.fingerprint:
            raise EncoderMismatch(
                f"the {self.kind} in {os.fspath(folder)} was made with {owner.get('name', '?')} "
                f"({owner['fingerprint'][:12]}), not with {encoder.name} ({encoder.fingerprint[:12]})",
                hint=f"use --model {owner.get('name', '?')}, or {again}",
            )
        path = self._tensors(folder)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error}", hint=again) from error
        if _sha256(content) != described["sha256"]:
            meant = f"{path} is not the file that {self.kind}.json means: its sha256 differs"
            raise StoreError(meant, hint=again)
        return described, load(content)

    def _description(self, folder: str | os.PathLike[str]) -> Path:
        return Path(folder) / f"{self.kind}.json"

    def _tensors(self, folder: str | os.PathLike[str]) -> Path:
        return Path(folder) / f"{self.kind}.safetensors"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
