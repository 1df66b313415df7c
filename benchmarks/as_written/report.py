"""What every script here says at its end: one line of JSON."""

from __future__ import annotations

import json
from pathlib import Path

from resident import peak_mb


def report(count: int, seconds: float, base_mb: float, rows: Path | None = None) -> None:
    """Print how many items took how long, and memory: before anything was done, and the most of all."""
    said: dict[str, object] = {"count": count, "seconds": seconds, "base_mb": base_mb, "peak_mb": peak_mb()}
    print(json.dumps(said if rows is None else said | {"rows": str(rows)}))
