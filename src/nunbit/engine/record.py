"""What was found out about an encoder's engines on this machine, kept beside the compiled models.

A prepared engine is one folder of the cache, named after the encoder's fingerprint and the machine::

    engine.json             a `Record`
    image-fp32.xml, .bin    towers as OpenVINO writes them; those that were not chosen are not kept
    text-fp32.xml, .bin
    tokenizer/              the vocabulary, where the encoder has one
    compiled/               what OpenVINO made of them for this processor

A file beside these folders says which model files a fingerprint belongs to, by size and time, so that a prepared
engine is found without reading the weights.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nunbit.caches import cache_folder
from nunbit.config import from_plain, to_plain
from nunbit.durable import replace_file
from nunbit.engine.machine import Machine
from nunbit.engine.names import Precision
from nunbit.errors import NunbitError

Tower: TypeAlias = Literal["image", "text"]
FileStates: TypeAlias = list[list[Any]]
"""Of every file: path, size, modification time, change time, inode."""

RECORD_FILE = "engine.json"
DRAFT = ".preparing-"
"""Begins the name of a folder that is not whole yet."""
FORMAT_VERSION = 1
WORTH_IT = 1.05
"""How many times as quick as torch an engine must be to be taken by itself."""


@dataclass(frozen=True, slots=True)
class Check:
    """One precision of one tower.

    Attributes:
        precision: Of its products.
        cosine: Mean over the check inputs, to torch in float32.
        lowest: The lowest of these cosines.
        rate: Inputs a second on this machine; 0 when it was not run.
        refused: Why it may not be used; empty when it may.
    """

    precision: Precision
    cosine: float
    lowest: float
    rate: float
    refused: str


@dataclass(frozen=True, slots=True)
class TowerRecord:
    """One tower: how quick torch is with it, and what was found for each precision."""

    torch_rate: float
    checks: tuple[Check, ...]

    def find(self, precision: Precision) -> Check | None:
        """What was found for one precision."""
        return next((check for check in self.checks if check.precision == precision), None)

    def quickest(self, *, at_least: float = 0) -> Check | None:
        """The quickest that is exact enough, if it does ``at_least`` so many inputs a second."""
        good = [check for check in self.checks if not check.refused and check.rate >= at_least]
        return max(good, key=lambda check: check.rate, default=None)


@dataclass(frozen=True, slots=True)
class Record:
    """All that a process has to know to use a prepared engine without torch.

    Attributes:
        format_version: Of this file.
        versions: Of the packages that made it; with others it is made again.
        machine: `Machine.signature`; on another machine it is made again.
        fingerprint: Of the encoder.
        embedding_size: E.
        logit_scale: As in `nunbit.encode.Encoder`.
        logit_bias: As in `nunbit.encode.Encoder`.
        preprocessing: As plain values.
        tokenizer: As plain values; None where texts need none.
        calibration: What int8 was calibrated on, in words.
        image: The picture tower.
        text: The text tower; None where texts are embedded without torch in any case.
        problem: Why the picture tower could not be prepared, so that torch computes; empty when it could.
    """

    format_version: int
    versions: str
    machine: str
    fingerprint: str
    embedding_size: int
    logit_scale: float
    logit_bias: float | None
    preprocessing: dict[str, Any]
    tokenizer: dict[str, Any] | None
    calibration: str
    image: TowerRecord | None
    text: TowerRecord | None
    problem: str

    def tower(self, name: Tower) -> TowerRecord | None:
        """One of the two."""
        return self.image if name == "image" else self.text


def versions() -> str:
    """What a prepared engine depends on."""
    found = []
    for package in ("nunbit", "openvino", "torch"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return " ".join(found)


def engine_folder(fingerprint: str, machine: Machine) -> Path:
    """Where the engine of an encoder is prepared; machines that share a home do not overwrite each other's."""
    return cache_folder("engines") / f"{fingerprint[:32]}-{machine.signature}"


def read_record(fingerprint: str, machine: Machine) -> Record | None:
    """What was recorded for an encoder on this machine with these packages; None if nothing, or nothing readable."""
    path = engine_folder(fingerprint, machine) / RECORD_FILE
    try:
        record = from_plain(Record, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, NunbitError):
        return None
    current = (FORMAT_VERSION, versions(), machine.signature, fingerprint)
    found = (record.format_version, record.versions, record.machine, record.fingerprint)
    return record if found == current else None


def write_record(record: Record, folder: Path) -> None:
    """Keep it in the folder of the engine."""
    content = json.dumps(to_plain(record), ensure_ascii=False, indent=1).encode()
    replace_file(folder / RECORD_FILE, lambda file: file.write(content))


def refuse(fingerprint: str, reasons: Mapping[Precision, str], machine: Machine) -> Record | None:
    """Keep that pictures may not be computed in some precisions, whatever the check inputs say.

    Returns:
        The record as it is now; None where there is none.
    """
    record = read_record(fingerprint, machine)
    if record is None or record.image is None:
        return record
    checks = tuple(replace(check, refused=reasons.get(check.precision, check.refused)) for check in record.image.checks)
    record = replace(record, image=replace(record.image, checks=checks))
    write_record(record, engine_folder(fingerprint, machine))
    return record


def file_states(files: Sequence[Path]) -> FileStates:
    """Place, size and identity of files; whatever writes to one, or puts another in its place, changes its state."""
    states = [(os.path.realpath(file), file.stat()) for file in files]
    return [[name, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino] for name, state in states]


def known_fingerprint(states: FileStates) -> str | None:
    """The fingerprint that was computed for these very files."""
    try:
        content = json.loads(_note(states).read_text(encoding="utf-8"))
        return str(content["fingerprint"]) if content["files"] == states else None
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):  # the second: there is no home folder
        return None


def remember_fingerprint(states: FileStates, fingerprint: str) -> None:
    """Note which fingerprint these files had when they were read."""
    content = json.dumps({"files": states, "fingerprint": fingerprint}).encode()
    replace_file(_note(states), lambda file: file.write(content))


def _note(states: FileStates) -> Path:
    names = "\n".join(state[0] for state in states)
    folder = cache_folder("engines") / "models"
    folder.mkdir(exist_ok=True)
    return folder / f"{hashlib.sha256(names.encode()).hexdigest()[:32]}.json"
