"""The folder of one run, and what is in it.

=================  ===================================================================================
``config.json``    the configuration as it was resolved, versions, seed, fingerprints of the data
``start.json``     the fingerprint of the model before its first step
``metrics.jsonl``  a line of numbers every so many steps
``ledger.jsonl``   a line for every picture or row that was set aside
``diagnosis.jsonl``  what went wrong, in words
``checkpoints/``   what a run needs to go on
``examples/``      what the model answered at some steps
``features/``      outputs of locked towers, computed once
``model/``         the trained model
``report.html``    all of it to look at
=================  ===================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from nunbit.durable import only_writer, replace_file
from nunbit.errors import UsageError
from nunbit.training.diagnosis import Finding
from nunbit.training.lines import line_of, open_lines, read_lines
from nunbit.types import Rejected

FREE = ("command", "log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints", "tensorboard")
"""Settings that may change when a run goes on: they decide what is seen, not what is learned."""


class RunFolder:
    """A run's folder.

    Args:
        path: Made when it is not there.
        rank: Of this process among those that train together; each but the first has a ledger of its own until
            `gather_ledgers`.
    """

    def __init__(self, path: Path, *, rank: int = 0) -> None:
        self.path = path
        self._ledger = path / (f"ledger.{rank}.jsonl" if rank else "ledger.jsonl")
        self.checkpoints, self.examples, self.model = path / "checkpoints", path / "examples", path / "model"
        self._noted: set[str] = set()
        self._lock = Lock()  # pictures are set aside by the thread that prepares batches

    @contextmanager
    def opened(self, resolved: Mapping[str, Any]) -> Iterator[None]:
        """Be the only writer while the block runs, in a folder of this very configuration.

        Args:
            resolved: All that decides what is learned, as plain values.

        Raises:
            UsageError: The folder holds a run with another configuration, or other files.
            StoreBusy: Another process trains there.
        """
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "config.json").is_file():
            raise UsageError(f"{self.path} holds other files already", hint="give a new folder")
        self.path.mkdir(parents=True, exist_ok=True)
        with only_writer(self.path / "writer.lock", str(self.path)):
            self._check(resolved)
            content = json.dumps(resolved, indent=2, ensure_ascii=False).encode() + b"\n"
            replace_file(self.path / "config.json", lambda file: file.write(content))
            self.checkpoints.mkdir(exist_ok=True)
            self.examples.mkdir(exist_ok=True)
            self._noted = {line["path"] for line in read_lines(self._ledger, lambda line: "path" in line)[0]}
            yield

    def check_start(self, fingerprint: str) -> None:
        """Note what the run starts from; when it goes on, refuse another start.

        Checkpoints hold what is trained: with other frozen weights or another vocabulary it would mean something else.

        Raises:
            UsageError: The run began with another model.
        """
        path = self.path / "start.json"
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
            if before != fingerprint:
                message = f"{self.path} began with another model ({before[:12]}) than there is now ({fingerprint[:12]})"
                raise UsageError(message, hint="the start was changed since; give another folder to start anew")
            return
        content = json.dumps({"fingerprint": fingerprint}).encode() + b"\n"
        replace_file(path, lambda file: file.write(content))

    def set_aside(self, rejected: Rejected) -> None:
        """Note what cannot be used, once."""
        with self._lock:
            if rejected.path not in self._noted:
                self._noted.add(rejected.path)
                _append(self._ledger, asdict(rejected))

    def gather_ledgers(self) -> None:
        """Put what the other processes set aside into the first one's ledger; they must be done."""
        for path in sorted(self.path.glob("ledger.*.jsonl")):
            for line in read_lines(path, lambda line: line.keys() == {"path", "reason", "detail"})[0]:
                self.set_aside(Rejected(**line))
            path.unlink()

    def note(self, finding: Finding) -> None:
        """Note what goes wrong with the run."""
        _append(self.path / "diagnosis.jsonl", asdict(finding))

    def save_example(self, step: int, content: Mapping[str, Any]) -> None:
        """Keep what the model answers at a step."""
        data = json.dumps(content, ensure_ascii=False).encode()
        replace_file(self.examples / f"step-{step:06d}.json", lambda file: file.write(data))

    def _check(self, resolved: Mapping[str, Any]) -> None:
        path = self.path / "config.json"
        if not path.is_file():
            return
        before, now = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(resolved)
        differing = [
            name
            for name, value in before.items()  # a setting that it lacks came with a later version
            if now.get(name) != value and name.rpartition(".")[2] not in FREE and not name.startswith("versions.")
        ]
        if differing:
            name = differing[0]
            if name.endswith("fingerprint"):
                hint = "the files that teach were changed since; give another folder to start anew"
                raise UsageError(f"{self.path} holds a run with other data", hint=hint)
            raise UsageError(
                f"{self.path} holds a run with another configuration: "
                f"{name} was {before[name]!r}, is {now.get(name)!r}",
                hint="give another folder, or delete this one to start anew",
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _append(path: Path, content: Mapping[str, Any]) -> None:
    with open_lines(path) as file:
        file.write(line_of(content))
