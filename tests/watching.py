"""A watcher of training runs that remembers losses and findings, and may interrupt."""

from __future__ import annotations

from collections.abc import Mapping

from nunbit.training.diagnosis import Finding


class Watching:
    """Counts steps, and may fall over at one of them."""

    def __init__(self, fall_at: int | None = None) -> None:
        self.fall_at = fall_at
        self.losses: list[float] = []
        self.findings: list[Finding] = []

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        self.losses.append(values["loss"])
        if step == self.fall_at:
            raise KeyboardInterrupt

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)
